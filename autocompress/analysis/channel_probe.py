"""Which input channels see which output channels, found by numbers.

Each output channel of a producer is perturbed in an example of its own, and the layers' inputs are
compared with those of an untouched example. Producers that reach nothing in common are perturbed
in the same pass; a producer whose channels a LayerNorm spreads over a whole input is not probed
channel by channel.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from autocompress.analysis.probed_model import EVERY_CHANNEL, Hits, Key, ProbedModel

_N_DRAWS = 2  # made-up numbers per channel: a gate that happens to be shut hides what it gates
_N_MORE_DRAWS = 14  # for channels that reached nothing
_N_SCOUT_DRAWS = 8  # for what a whole producer reaches
_MAX_EXAMPLES = 64
_MAX_ELEMENTS = 2**24  # numbers in the layers' inputs of one pass


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reach:
    """What the channels of one producer reach before the next weighted layer computes.

    Attributes:
        channels: Probed output channels, shape (n,).
        hits: What is reached -> shape (n, C): by which channel, in which channel.
        is_mixed: Whether one channel stands for all, because each reaches all.
    """

    channels: NDArray[np.int64]
    hits: Hits
    is_mixed: bool = False


def probe_channels(
    model: ProbedModel, producers: Mapping[str, NDArray[np.int64]]
) -> dict[str, Reach]:
    """Probe output channels.

    Args:
        model: What runs.
        producers: Called layer -> its channels to probe.
    """
    reaches: dict[str, Reach] = {}
    varying = {name: c for name, c in producers.items() if not model.is_constant(name)}
    scouts = _scout(model, varying)
    keys = {name: {key for key, hit in hits.items() if hit.any()} for name, hits in scouts.items()}
    for name, hits in scouts.items():
        if _is_mixed(hits):
            reaches[name] = _mixed(varying[name], hits)
    apart = {name: keys[name] for name in varying if name not in reaches}
    for names in _without_common_keys(apart):
        together = {name: varying[name] for name in names}
        watched = set().union(*(keys[name] for name in names))
        for name, hits in _probe_together(model, together, range(_N_DRAWS), watched).items():
            own = {key: hit for key, hit in hits.items() if key in keys[name]}
            reaches[name] = _look_again(model, name, Reach(channels=varying[name], hits=own))
    for name, channels in producers.items():
        if name not in varying:
            reaches[name] = _probe_constant(model, name, channels)
    return {name: reaches[name] for name in producers}


def _scout(model: ProbedModel, producers: Mapping[str, NDArray[np.int64]]) -> dict[str, Hits]:
    """Per producer three examples: all channels at once, the first alone, the last alone."""
    probes = [
        (name, int(channel))
        for name, channels in producers.items()
        for channel in (EVERY_CHANNEL, channels[0], channels[-1])
    ]
    rows: list[dict[Key, NDArray[np.bool_]]] = []
    size = _examples_per_pass(model) // 3 * 3
    for start in range(0, len(probes), size):
        part = probes[start : start + size]
        wanted: dict[str, list[tuple[int, int]]] = {}
        for example, (name, channel) in enumerate(part):
            wanted.setdefault(name, []).append((example, channel))
        hits = _union([model.probe(len(part), wanted, seed) for seed in range(_N_SCOUT_DRAWS)])
        rows += [{key: hit[i : i + 3] for key, hit in hits.items()} for i in range(0, len(part), 3)]
    return dict(zip(producers, rows, strict=True))


def _is_mixed(hits: Hits) -> bool:
    """Whether first and last channel each reach all of some input through a norm over channels."""
    spread = any(
        kind == "in" and hit.shape[1] > 2 and hit[1:].all() for (kind, _), hit in hits.items()
    )
    return spread and any(kind == "mixer" and hit[1:].all() for (kind, _), hit in hits.items())


def _mixed(channels: NDArray[np.int64], scouts: Hits) -> Reach:
    """Let the first channel stand for all: it reaches what all of them do."""
    hits = {key: np.any(hit, axis=0, keepdims=True) for key, hit in scouts.items() if hit.any()}
    return Reach(channels=channels[:1], hits=hits, is_mixed=True)


def _without_common_keys(keys: Mapping[str, set[Key]]) -> list[list[str]]:
    """Sort producers into classes whose members reach nothing in common, greedily."""
    classes: list[tuple[list[str], set[Key]]] = []
    for name, own in keys.items():
        for names, taken in classes:
            if not own & taken:
                names.append(name)
                taken |= own
                break
        else:
            classes.append(([name], set(own)))
    return [names for names, _ in classes]


def _probe_together(
    model: ProbedModel,
    producers: Mapping[str, NDArray[np.int64]],
    seeds: Iterable[int],
    keys: Collection[Key],
) -> dict[str, Hits]:
    """Probe producers that reach nothing in common: example `i` is the `i`-th channel of each."""
    seeds = list(seeds)
    size = _examples_per_pass(model)
    parts: dict[str, list[Hits]] = {name: [] for name in producers}
    for start in range(0, max(map(len, producers.values())), size):
        chunk = {name: c[start : start + size] for name, c in producers.items() if start < len(c)}
        wanted = {name: [(i, int(c)) for i, c in enumerate(part)] for name, part in chunk.items()}
        n_examples = max(map(len, chunk.values()))
        hits = _union([model.probe(n_examples, wanted, seed, keys) for seed in seeds])
        for name, part in chunk.items():
            parts[name].append({key: hit[: len(part)] for key, hit in hits.items()})
    return {
        name: {key: np.concatenate([part[key] for part in own]) for key in own[0]}
        for name, own in parts.items()
    }


def _look_again(model: ProbedModel, name: str, reach: Reach) -> Reach:
    """Probe the channels that reached nothing with other numbers."""
    silent = ~_reaches_anything(reach)
    if not (silent.any() and reach.hits):
        return reach
    seeds = range(_N_DRAWS, _N_DRAWS + _N_MORE_DRAWS)
    again = _probe_together(model, {name: reach.channels[silent]}, seeds, reach.hits)[name]
    for key, hit in reach.hits.items():
        hit[silent] |= again[key]
    return reach


def _reaches_anything(reach: Reach) -> NDArray[np.bool_]:
    found = np.zeros(len(reach.channels), dtype=np.bool_)
    for (kind, _), hit in reach.hits.items():
        if kind in ("in", "state", "output"):
            found |= hit.any(axis=1)
    return found


def _probe_constant(model: ProbedModel, name: str, channels: NDArray[np.int64]) -> Reach:
    scouts = np.array([EVERY_CHANNEL, channels[0], channels[-1]])
    hits = _union([model.probe_constant(name, scouts, seed) for seed in range(_N_DRAWS)])
    if _is_mixed(hits):
        return _mixed(channels, hits)
    hits = _union([model.probe_constant(name, channels, seed) for seed in range(_N_DRAWS)])
    return Reach(channels=channels, hits=hits)


def _union(passes: list[Hits]) -> Hits:
    return {key: np.logical_or.reduce([hits[key] for hits in passes]) for key in passes[0]}


def _examples_per_pass(model: ProbedModel) -> int:
    return max(3, min(_MAX_EXAMPLES, _MAX_ELEMENTS // max(1, model.n_elements)))
