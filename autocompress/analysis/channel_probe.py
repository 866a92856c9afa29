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

LEAST = 32
"""Channels from which codes are cheaper than a look at each."""


def halves(channels: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Channels whose index has bit 0, has it not, has bit 1, ...; 2b arrays.

    >>> [half.tolist() for half in halves(np.array([5, 6, 7]))]
    [[5, 7], [6], [5, 6], [7]]
    """
    index = np.arange(len(channels))
    bits = (1 << np.arange(_n_bits(len(channels))))[:, None]
    has = (index & bits) > 0
    return [channels[half] for pair in zip(~has, has, strict=True) for half in pair]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decoded:
    """What codes say.

    Attributes:
        hits: What is reached -> shape (n, C), by which channel in which channel.
        doubtful: Indices of channels whose hits are to be compared with their own, because a
            block's channels were taken to reach all alike; empty if nothing was taken for granted.
    """

    hits: Hits
    doubtful: tuple[int, ...]


def decode(coded: Hits, n_channels: int) -> Decoded | None:
    """Read codes.

    Args:
        coded: What is reached -> shape (2b, C), in the order of `halves`.
        n_channels: n.

    Returns:
        None if they contradict each other.
    """
    index = np.arange(n_channels)
    weights = 1 << np.arange(_n_bits(n_channels))
    hits: Hits = {}
    blocks: set[tuple[int, int]] = set()
    for key, rows in coded.items():
        without, having = rows[0::2], rows[1::2]  # (b, C)
        is_reached = (without | having).any(axis=0)
        if not (without | having)[:, is_reached].all():
            return None
        value = (having & ~without).T @ weights  # (C,)
        free = (having & without).T @ weights
        hits[key] = ((index[:, None] & ~free) == value) & is_reached  # (n, C)
        blocks |= set(zip(value[is_reached].tolist(), free[is_reached].tolist(), strict=True))
    doubtful: set[int] = set()
    for value_of, free_of in blocks:
        if free_of:
            inside = np.flatnonzero((index & ~free_of) == value_of)
            if len(inside):
                doubtful |= {int(inside[i]) for i in (0, len(inside) // 2, -1)}
    return Decoded(hits=hits, doubtful=tuple(sorted(doubtful)))


def agree(decoded: Decoded, own: Hits) -> bool:
    """Whether the doubtful channels reach what codes say.

    Args:
        decoded: What codes say.
        own: What is reached -> shape (doubtful, C), each channel perturbed by itself.
    """
    chosen = list(decoded.doubtful)
    return all(np.array_equal(own[key], hit[chosen]) for key, hit in decoded.hits.items())


def _n_bits(n_channels: int) -> int:
    return max(1, (n_channels - 1).bit_length())


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
        found = _probe_by_codes(model, together, keys)
        rest = {name: channels for name, channels in together.items() if name not in found}
        if rest:
            found |= _probe_together(model, rest, range(_N_DRAWS), watched)
        for name, hits in found.items():
            own = {key: hit for key, hit in hits.items() if key in keys[name]}
            reaches[name] = _look_again(model, name, Reach(channels=varying[name], hits=own))
    for name, channels in producers.items():
        if name not in varying:
            reaches[name] = _probe_constant(model, name, channels)
    return {name: reaches[name] for name in producers}


def _scout(model: ProbedModel, producers: Mapping[str, NDArray[np.int64]]) -> dict[str, Hits]:
    """Per producer three examples: all channels at once, the first alone, the last alone.

    Producers are perturbed one after the other in two draws only, since that costs a pass over the
    whole model for each; then together with others that reach nothing in common.
    """
    alone = _scout_alone(model, producers, (EVERY_CHANNEL,), range(_N_DRAWS))
    keys = {name: {key for key, hit in hits.items() if hit.any()} for name, hits in alone.items()}
    found: dict[str, Hits] = {}
    for names in _without_common_keys(keys):
        wanted = {
            name: list(
                enumerate((EVERY_CHANNEL, int(producers[name][0]), int(producers[name][-1])))
            )
            for name in names
        }
        hits = _union([model.probe(3, wanted, seed) for seed in range(_N_SCOUT_DRAWS)])
        known = set().union(*(keys[name] for name in names))
        if any(hit.any() for key, hit in hits.items() if key not in known):
            found |= _scout_each(model, {name: producers[name] for name in names})
            continue
        for name in names:
            found[name] = {key: hits[key] for key in keys[name]}
    return {name: found[name] for name in producers}


def _scout_each(model: ProbedModel, producers: Mapping[str, NDArray[np.int64]]) -> dict[str, Hits]:
    """As `_scout`, each producer by itself: whose hits they are cannot be told otherwise."""
    channels = (EVERY_CHANNEL, 0, -1)
    return _scout_alone(model, producers, channels, range(_N_SCOUT_DRAWS))


def _scout_alone(
    model: ProbedModel,
    producers: Mapping[str, NDArray[np.int64]],
    places: tuple[int, ...],
    seeds: Iterable[int],
) -> dict[str, Hits]:
    """Perturb all channels of each producer, then some by place, each in an example of its own.

    The first of `places` is `EVERY_CHANNEL`.
    """
    seeds = list(seeds)
    probes = [
        (name, EVERY_CHANNEL if i == 0 else int(channels[place]))
        for name, channels in producers.items()
        for i, place in enumerate(places)
    ]
    n = len(places)
    rows: list[dict[Key, NDArray[np.bool_]]] = []
    size = _examples_per_pass(model) // n * n
    for start in range(0, len(probes), size):
        part = probes[start : start + size]
        wanted: dict[str, list[tuple[int, int]]] = {}
        for example, (name, channel) in enumerate(part):
            wanted.setdefault(name, []).append((example, channel))
        hits = _union([model.probe(len(part), wanted, seed) for seed in seeds])
        rows += [{key: hit[i : i + n] for key, hit in hits.items()} for i in range(0, len(part), n)]
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


def _probe_by_codes(
    model: ProbedModel,
    producers: Mapping[str, NDArray[np.int64]],
    keys: Mapping[str, Collection[Key]],
) -> dict[str, Hits]:
    """Producers with many channels that `channel_codes` can read, and what their channels reach."""
    coded = {name: channels for name, channels in producers.items() if len(channels) >= LEAST}
    if not coded:
        return {}
    watched = set().union(*(keys[name] for name in coded))
    rows = _probe_examples(model, {n: halves(c) for n, c in coded.items()}, watched)
    decoded: dict[str, Decoded] = {}
    for name, channels in coded.items():
        own = {key: hit for key, hit in rows[name].items() if key in keys[name]}
        read = decode(own, len(channels))
        if read is not None and 2 * len(read.doubtful) <= len(channels):
            decoded[name] = read
    doubtful = {n: coded[n][list(d.doubtful)] for n, d in decoded.items() if d.doubtful}
    if doubtful:
        seen = _probe_together(model, doubtful, range(_N_DRAWS), watched)
        for name in doubtful:
            if not agree(decoded[name], seen[name]):
                del decoded[name]
    return {name: read.hits for name, read in decoded.items()}


def _probe_examples(
    model: ProbedModel,
    examples: Mapping[str, list[NDArray[np.int64]]],
    keys: Collection[Key],
) -> dict[str, Hits]:
    """What is reached in each example, by the channels perturbed there; (examples, C)."""
    size = _examples_per_pass(model)
    n_examples = max(map(len, examples.values()))
    parts: list[Hits] = []
    for start in range(0, n_examples, size):
        wanted = {
            name: list(enumerate(own[start : start + size]))
            for name, own in examples.items()
            if start < len(own)
        }
        n_in_pass = max(map(len, wanted.values()))
        parts.append(
            _union([model.probe(n_in_pass, wanted, seed, keys) for seed in range(_N_DRAWS)])
        )
    together = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return {
        name: {key: hit[: len(own)] for key, hit in together.items()}
        for name, own in examples.items()
    }


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
