"""Knobs and the search space they span: level indices in, plan out, and back."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from autocompress.errors import InputError
from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.technique import TECHNIQUES, KnobKind, Level


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """One dimension of the search.

    Attributes:
        kind: Which field of the plan it sets.
        targets: Channel groups (pruning), blocks or layers it sets it for; several share one level.
        levels: What it can be set to; `levels[0]` is untouched. Numbers stand in order of growing
            compression, names of methods as the rule lists them.
        label: Name of the target in tables: the target itself, or the rule's name if shared.
    """

    kind: KnobKind
    targets: tuple[str, ...]
    levels: tuple[Level, ...]
    label: str

    @property
    def name(self) -> str:
        """Unique name, also the Optuna parameter: `weight_bits:layer1.0.conv1`."""
        return f"{self.kind}:{self.label}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A choice that is not searched: how an amount is brought about wherever it is not untouched.

    Attributes:
        kind: Which field of the plan it sets.
        target: Layer.
        value: Name of the method.
    """

    kind: KnobKind
    target: str
    value: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """The knobs of one search.

    Attributes:
        knobs: In a fixed order, names unique.
        methods: What is fixed.
    """

    knobs: tuple[Knob, ...]
    methods: tuple[Method, ...] = ()

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
        """sha256 over all knobs and methods in hex: two spaces are the same if this is."""
        parts = [*map(dataclasses.astuple, self.knobs), *map(dataclasses.astuple, self.methods)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def decode(self, levels: Mapping[str, int]) -> CompressionPlan:
        """Turn one level index per knob into a plan.

        Raises:
            InputError: If a knob is missing or a level is out of range.
        """
        ratios: dict[str, float] = {}
        dropped: list[str] = []
        layers: dict[str, dict[str, Any]] = {}
        for knob in self.knobs:
            value = knob.levels[self._index(knob, levels)]
            acts_on = TECHNIQUES[knob.kind].acts_on
            for target in knob.targets:
                if acts_on == "group":
                    ratios[target] = float(value)
                elif acts_on == "block":
                    dropped += [target] * int(value)
                else:
                    layers.setdefault(target, {})[knob.kind] = value
        for method in self.methods:
            amount = TECHNIQUES[TECHNIQUES[method.kind].refused_as]
            fields = layers.get(method.target, {})
            if fields.get(amount.kind, amount.untouched) != amount.untouched:
                fields[method.kind] = method.value
        return CompressionPlan(
            pruning_ratios=ratios,
            dropped_blocks=tuple(dropped),
            layers={name: LayerPlan(**fields) for name, fields in layers.items()},
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
                f"but the plan asks for {sorted(values, key=lambda v: (isinstance(v, str), v))}."
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


def _requested(plan: CompressionPlan, kind: KnobKind, target: str) -> Level:
    acts_on = TECHNIQUES[kind].acts_on
    if acts_on == "group":
        return plan.pruning_ratios.get(target, 0.0)
    if acts_on == "block":
        return int(target in plan.dropped_blocks)
    value: Level = getattr(plan.layers.get(target, LayerPlan()), kind)
    return value
