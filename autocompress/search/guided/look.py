"""A look at a plan: built, not trained."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a look at a plan found.

    Attributes:
        levels: Knob name -> level index.
        divergence: Training-free score, nats; None if the plan cannot be built.
        has_chance: Whether it is worth tuning.
    """

    levels: Mapping[str, int]
    divergence: float | None
    has_chance: bool


Screen = Callable[[Sequence[Mapping[str, int]]], Sequence[Look]]
"""Looks at plans without training, in their order."""
