"""A plan that was probed: built, packed, sometimes timed, not trained."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autocompress.space.sensitivity_table import Figures


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProbedPlan:
    """What a probe of a plan found.

    Attributes:
        levels: Knob name -> level index.
        divergence: Training-free score, nats; None if the plan cannot be built.
        size_bytes: Of its packed file before tuning; None if it cannot be built.
        latency_ratio: Time over the original model's; None if it was not timed.
        has_chance: Whether it was worth tuning when it was probed.
    """

    levels: Mapping[str, int]
    divergence: float | None
    size_bytes: int | None
    latency_ratio: float | None = None
    has_chance: bool


def probed_plan(levels: Mapping[str, int], figures: Figures, *, has_chance: bool) -> ProbedPlan:
    """The probe that found these figures."""
    return ProbedPlan(
        levels=levels,
        divergence=figures.divergence,
        size_bytes=figures.size_bytes,
        latency_ratio=figures.latency_ratio,
        has_chance=has_chance,
    )


ProbePlans = Callable[[Sequence[Mapping[str, int]]], Sequence[ProbedPlan]]
"""Probes plans without training, in their order."""


def probed_plans_in(attributes: Mapping[str, Any]) -> list[ProbedPlan]:
    """What was probed to choose a trial, and as the trial itself if it was stopped.

    Args:
        attributes: Of the trial, as the study keeps them.
    """
    own = [attributes["look"]] if "look" in attributes else []
    return [ProbedPlan(**probed) for probed in (*attributes.get("looks", ()), *own)]
