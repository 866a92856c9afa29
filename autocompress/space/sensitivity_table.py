"""The sensitivity table: what every level of every knob does by itself, measured."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autocompress.space.search_space import Knob, SearchSpace
from autocompress.technique import TECHNIQUES

Array = NDArray[np.float64]
"""Figures."""

Levels = NDArray[np.int64]
"""Level indices, one column per knob."""


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
    """

    divergence: float
    size_bytes: int | None = None
    layer_bytes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    latency_ratio: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain containers only, for JSON."""
        return {**dataclasses.asdict(self), "layer_bytes": dict(self.layer_bytes)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Figures":
        """Inverse of `to_json`."""
        return cls(**data)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredLevel:
    """One level of one knob, everything else as in the knob's context.

    Attributes:
        knob: Name of the knob.
        level: Index into its levels, >= 1.
        figures: What it does; None if it could not be built or measured.
        reason: Why not, one line; None if it could.
    """

    knob: str
    level: int
    figures: Figures | None
    reason: str | None = None


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
    """

    baseline: Figures
    contexts: Mapping[str, Figures]
    options: tuple[MeasuredLevel, ...]
    seconds: float

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
                }
                for option in self.options
            ],
            "seconds": self.seconds,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "SensitivityTable":
        """Inverse of `to_json`."""
        return cls(
            baseline=Figures.from_json(data["baseline"]),
            contexts={k: Figures.from_json(f) for k, f in data["contexts"].items()},
            options=tuple(
                MeasuredLevel(
                    knob=option["knob"],
                    level=option["level"],
                    figures=option["figures"] and Figures.from_json(option["figures"]),
                    reason=option["reason"],
                )
                for option in data["options"]
            ),
            seconds=data["seconds"],
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
