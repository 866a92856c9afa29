"""Knobs, and the space they span: levels in, plan out, and back."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Literal

from autocompress.errors import InputError
from autocompress.plan import FULL_BITS, CompressionPlan, LayerPlan

KnobKind = Literal["pruning_ratio", "rank_ratio", "weight_bits", "activation_bits"]
UNTOUCHED: dict[KnobKind, float] = {
    "pruning_ratio": 0.0,
    "rank_ratio": 1.0,
    "weight_bits": 32,
    "activation_bits": 32,
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """One dimension of the search.

    Attributes:
        kind: Which field of the plan it sets.
        targets: Channel groups (pruning) or layers it sets it for; several share one level.
        levels: What it can be set to, in order of growing compression; `levels[0]` is untouched.
        label: Name of the target in tables: the target itself, or the rule's name if shared.
    """

    kind: KnobKind
    targets: tuple[str, ...]
    levels: tuple[float, ...]
    label: str

    @property
    def name(self) -> str:
        """Unique name, also the Optuna parameter: `weight_bits:layer1.0.conv1`."""
        return f"{self.kind}:{self.label}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """The knobs of one search.

    Attributes:
        knobs: In a fixed order, names unique.
    """

    knobs: tuple[Knob, ...]

    def __post_init__(self) -> None:
        """Check that every knob can be told from the others.

        Raises:
            InputError: If two knobs have the same name.
        """
        names = [knob.name for knob in self.knobs]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"Knob names must be unique, but {name!r} stands twice.")

    @property
    def fingerprint(self) -> str:
        """sha256 over all knobs in hex: two spaces are the same if this is."""
        text = json.dumps([dataclasses.astuple(knob) for knob in self.knobs])
        return hashlib.sha256(text.encode()).hexdigest()

    def decode(self, levels: Mapping[str, int]) -> CompressionPlan:
        """Turn one level index per knob into a plan.

        Raises:
            InputError: If a knob is missing or a level is out of range.
        """
        ratios: dict[str, float] = {}
        layers: dict[str, dict[str, float]] = {}
        for knob in self.knobs:
            value = knob.levels[self._index(knob, levels)]
            for target in knob.targets:
                if knob.kind == "pruning_ratio":
                    ratios[target] = value
                else:
                    layers.setdefault(target, {})[knob.kind] = value
        return CompressionPlan(
            pruning_ratios=ratios,
            layers={name: _layer_plan(fields) for name, fields in layers.items()},
        )

    def encode(self, plan: CompressionPlan) -> dict[str, int]:
        """Turn a plan into one level index per knob: the exact inverse of `decode`.

        Raises:
            InputError: If the plan asks for something that no level of this space says.
        """
        levels = {knob.name: self._level_of(knob, plan) for knob in self.knobs}
        if self.decode(levels) != plan:
            raise InputError(
                f"Plan {plan.digest} touches groups or layers that have no knob in this space."
            )
        return levels

    def _level_of(self, knob: Knob, plan: CompressionPlan) -> int:
        values = {_requested(plan, knob.kind, target) for target in knob.targets}
        if len(values) != 1:
            raise InputError(
                f"Knob {knob.name!r} sets one level for {len(knob.targets)} targets, "
                f"but the plan asks for {sorted(values)}."
            )
        value = values.pop()
        if value not in knob.levels:
            raise InputError(
                f"The level of knob {knob.name!r} must be one of {list(knob.levels)}, "
                f"but the plan asks for {value}."
            )
        return knob.levels.index(value)

    def _index(self, knob: Knob, levels: Mapping[str, int]) -> int:
        if knob.name not in levels:
            raise InputError(f"Levels must name every knob, but {knob.name!r} is missing.")
        index = levels[knob.name]
        if not 0 <= index < len(knob.levels):
            raise InputError(
                f"The level of knob {knob.name!r} must be in [0, {len(knob.levels) - 1}], "
                f"but got {index}."
            )
        return index


def _requested(plan: CompressionPlan, kind: KnobKind, target: str) -> float:
    if kind == "pruning_ratio":
        return plan.pruning_ratios.get(target, 0.0)
    return float(getattr(plan.layers.get(target, LayerPlan()), kind))


def _layer_plan(fields: Mapping[str, float]) -> LayerPlan:
    return LayerPlan(
        rank_ratio=fields.get("rank_ratio", 1.0),
        weight_bits=int(fields.get("weight_bits", FULL_BITS)),
        activation_bits=int(fields.get("activation_bits", FULL_BITS)),
    )
