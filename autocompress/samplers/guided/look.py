"""A look at a plan: built, packed, sometimes timed, not trained."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autocompress.space.option_table import Figures


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a look at a plan found.

    Attributes:
        levels: Knob name -> level index.
        divergence: Training-free score, nats; None if the plan cannot be built.
        size_bytes: Of its packed file before tuning; None if it cannot be built.
        latency_ratio: Time over the untouched model's; None if it was not timed.
        has_chance: Whether it was worth tuning when it was looked at.
    """

    levels: Mapping[str, int]
    divergence: float | None
    size_bytes: int | None
    latency_ratio: float | None = None
    has_chance: bool


def look_of(levels: Mapping[str, int], figures: Figures, *, has_chance: bool) -> Look:
    """The look that found these figures."""
    return Look(
        levels=levels,
        divergence=figures.divergence,
        size_bytes=figures.size_bytes,
        latency_ratio=figures.latency_ratio,
        has_chance=has_chance,
    )


LookAt = Callable[[Sequence[Mapping[str, int]]], Sequence[Look]]
"""Looks at plans without training, in their order."""


def looks_in(attributes: Mapping[str, Any]) -> list[Look]:
    """What was looked at to choose a trial, and as the trial itself if it was stopped.

    Args:
        attributes: Of the trial, as the study keeps them.
    """
    own = [attributes["look"]] if "look" in attributes else []
    return [Look(**look) for look in (*attributes.get("looks", ()), *own)]
