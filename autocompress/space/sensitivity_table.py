"""The sensitivity table: what every level of every knob does by itself, measured."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from autocompress.space.search_space import Knob, SearchSpace
from autocompress.technique import FULL_BITS, TECHNIQUES

Array = NDArray[np.float64]
"""Figures."""

Levels = NDArray[np.int64]
"""Level indices, one column per knob."""


_LEAST_DIVERGENCE: Final = 1e-9
_MOST: Final = 2.0**62


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a plan does to the model without any training.

    Attributes:
        divergence: Mean divergence of the outputs from the base model's on calibration data, in
            nats per example where outputs are classes; batch-norm statistics of both re-estimated
            on the same examples.
        size_bytes: Size of the packed file; None if it was not asked for.
        layer_bytes: Layer name -> bytes of its tensors in that file; what is left is graph, table
            and header. A layer that is gone holds 0. Empty if the size was not asked for.
        latency_ratio: Time of one inference over the original model's, taken interleaved; None if
            it was not asked for.
        halves: The divergence on each half of the examples: how far it repeats; None if there was
            one example only.
    """

    divergence: float
    size_bytes: int | None = None
    layer_bytes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    latency_ratio: float | None = None
    halves: tuple[float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain containers only, for JSON."""
        said = {**dataclasses.asdict(self), "layer_bytes": dict(self.layer_bytes)}
        halves = said.pop("halves")
        return said if halves is None else {**said, "halves": list(halves)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Figures":
        """Inverse of `to_json`; the file may be damaged, or anybody's.

        Raises:
            ValueError: If a figure is none that could have been measured.
            TypeError: If a field is missing or unknown.
        """
        halves = data.get("halves")
        found = cls(**{**data, "halves": None if halves is None else (halves[0], halves[1])})
        numbers = [found.divergence, *(found.halves or ())]
        numbers += [n for n in (found.size_bytes, found.latency_ratio) if n is not None]
        for number in (*numbers, *found.layer_bytes.values()):
            is_number = isinstance(number, int | float) and not isinstance(number, bool)
            if not is_number or not 0 <= number <= _MOST:
                msg = f"a figure cannot be {str(number)[:40]!r}"
                raise ValueError(msg)
        return found


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredLevel:
    """One level of one knob, everything else as in the knob's context.

    Attributes:
        knob: Name of the knob.
        level: Index into its levels, >= 1.
        figures: What it does; None if it could not be built or measured.
        reason: Why not, one line; None if it could.
        is_estimated: Whether the figures follow from those of other levels.
    """

    knob: str
    level: int
    figures: Figures | None
    reason: str | None = None
    is_estimated: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityTable:
    """All options of a search space.

    Attributes:
        baseline: Figures of the original model.
        contexts: Knob name -> figures of what its levels were measured in, for knobs that do
            nothing by themselves (see `context_of`); all others were measured on the untouched
            model.
        options: Every level but the untouched ones.
        seconds: Wall time that measuring took, cached options included as they were measured.
        seconds_here: Of these, what was not known before; None if that was not kept.
    """

    baseline: Figures
    contexts: Mapping[str, Figures]
    options: tuple[MeasuredLevel, ...]
    seconds: float
    seconds_here: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain containers only, for JSON."""
        return {
            "baseline": self.baseline.to_json(),
            "contexts": {name: figures.to_json() for name, figures in self.contexts.items()},
            "options": [
                {
                    "knob": option.knob,
                    "level": option.level,
                    "figures": None if option.figures is None else option.figures.to_json(),
                    "reason": option.reason,
                    **({"is_estimated": True} if option.is_estimated else {}),
                }
                for option in self.options
            ],
            "seconds": self.seconds,
            "seconds_here": self.seconds_here,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "SensitivityTable":
        """Inverse of `to_json`.

        Raises:
            ValueError: If a figure is none that could have been measured.
            TypeError, KeyError, AttributeError: If it has another shape.
        """
        return cls(
            baseline=Figures.from_json(data["baseline"]),
            contexts={k: Figures.from_json(f) for k, f in data["contexts"].items()},
            options=tuple(
                MeasuredLevel(
                    knob=option["knob"],
                    level=option["level"],
                    figures=option["figures"] and Figures.from_json(option["figures"]),
                    reason=option["reason"],
                    is_estimated=option.get("is_estimated", False),
                )
                for option in data["options"]
            ),
            seconds=data["seconds"],
            seconds_here=data.get("seconds_here"),
        )


def score_reliability(space: SearchSpace, table: SensitivityTable) -> float | None:
    """How far scores tell levels of equal strength apart: 1 exactly, 0 no better than chance.

    The split-half reliability: each level was scored on two halves of the examples, and what is
    correlated are the logarithms of these scores, less the mean of all levels of the same kind and
    value (3-bit weights of one layer or another, say), which differ anyway.

    Args:
        space: The knobs.
        table: Their levels.

    Returns:
        Pearson's correlation, corrected for half the examples (Spearman-Brown); None for fewer than
        three levels that have another like them.
    """
    knobs = {knob.name: knob for knob in space.knobs}
    alike: dict[tuple[str, object], list[tuple[float, float]]] = {}
    for option in table.options:
        halves = None if option.figures is None or option.is_estimated else option.figures.halves
        if halves is not None and min(halves) > _LEAST_DIVERGENCE:
            knob = knobs[option.knob]
            pair = (math.log(halves[0]), math.log(halves[1]))
            alike.setdefault((knob.kind, knob.levels[option.level]), []).append(pair)
    groups = [np.array(pairs) - np.mean(pairs, axis=0) for pairs in alike.values()]
    pairs = np.concatenate([np.empty((0, 2)), *(g for g in groups if len(g) > 1)])
    if len(pairs) < 3 or not (pairs.std(axis=0) > 0.0).all():
        return None
    half = float((pairs[:, 0] * pairs[:, 1]).mean() / (pairs**2).mean(axis=0).prod() ** 0.5)
    return 2.0 * half / (1.0 + half) if half > 0.0 else half


_N_PENALTIES: Final = 4
_FEW: Final = 4  # knobs of bits; so many are measured at all levels


def measured_levels(space: SearchSpace, knob: Knob) -> tuple[int, ...]:
    """The levels of a knob that are measured; the others follow from them.

    That is all of them but for two kinds. Where each of many layers has bits of its own, the error
    of rounding falls by a factor of four with each bit, and codes grow by one bit per weight
    (Bennett 1948): where a rate penalty can be paid instead of bits one level tells enough, else
    two. Of many rate penalties four are enough: everything is smooth in their logarithm.

    Args:
        space: All knobs.
        knob: One of them.
    """
    every = tuple(range(1, len(knob.levels)))
    if knob.kind == "rate_price":
        chosen = np.linspace(1, len(every), min(len(every), _N_PENALTIES)).round()
        return tuple(int(level) for level in np.unique(chosen))
    n_alike = sum(other.kind == knob.kind for other in space.knobs)
    if knob.kind != "weight_bits" or n_alike <= _FEW or len(every) < 3:
        return every
    has_penalty = any(
        other.kind == "rate_price" and not set(other.targets).isdisjoint(knob.targets)
        for other in space.knobs
    )
    return (every[-2],) if has_penalty else (every[len(every) // 2 - 1], every[-1])


def estimated_figures(
    knob: Knob, level: int, measured: Mapping[int, Figures], baseline: Figures
) -> Figures:
    """Figures of a level of bits or of a rate penalty, from those of other levels of the knob.

    Between two measured levels the logarithm of the divergence and the bytes are linear in the
    bits, or in the logarithm of the penalty; beyond them the divergence changes by a factor of four
    per bit, and the bytes by one bit per weight.

    Args:
        knob: Of weight bits, or of rate penalties, whose first and last level are measured.
        level: Which.
        measured: Level -> figures, at least one.
        baseline: Of the original model.
    """

    def place(i: int) -> float:
        value = float(knob.levels[i])
        return math.log(value) if knob.kind == "rate_price" else value

    bits = place(level)
    known = sorted(((place(i), figures) for i, figures in measured.items()), key=lambda p: p[0])
    below = [pair for pair in known if pair[0] <= bits]
    above = [pair for pair in known if pair[0] >= bits]
    nearest_bits, nearest = below[-1] if below else above[0]
    layers = [name for name in knob.targets if name in nearest.layer_bytes]
    steps = {name: baseline.layer_bytes.get(name, 0) / FULL_BITS for name in layers}
    slope = -math.log(4.0)
    if below and above and above[0][0] > nearest_bits:
        span = above[0][0] - nearest_bits
        least = [max(pair[1].divergence, _LEAST_DIVERGENCE) for pair in (below[-1], above[0])]
        slope = math.log(least[1] / least[0]) / span
        steps = {
            name: (above[0][1].layer_bytes[name] - nearest.layer_bytes[name]) / span
            for name in layers
        }
    away = bits - nearest_bits
    grown = {n: max(1, round(nearest.layer_bytes[n] + steps[n] * away)) for n in layers}
    change = sum(grown[name] - nearest.layer_bytes[name] for name in layers)
    return Figures(
        divergence=nearest.divergence * math.exp(slope * away),
        size_bytes=None if nearest.size_bytes is None else nearest.size_bytes + change,
        layer_bytes={**nearest.layer_bytes, **grown},
        latency_ratio=nearest.latency_ratio,
    )


def context_of(space: SearchSpace, knob: Knob) -> dict[str, int]:
    """Levels of the plan that a knob's levels are measured in, one per knob of the space.

    Methods (a quantizer, a factorization) do nothing without their amount, and 8-bit activations
    and a rate penalty nothing without quantized weights: methods are measured where the amounts of
    the same layers stand at their middle level, the others where weights stand at their first. All
    other knobs are measured alone.
    """
    technique = TECHNIQUES[knob.kind]
    levels = {}
    for other in space.knobs:
        is_amount = other.kind == technique.needs and not set(other.targets).isdisjoint(
            knob.targets
        )
        middle = len(other.levels) // 2 if technique.is_method else 1
        levels[other.name] = middle if is_amount else 0
    return levels
