"""An objective: which measured figure the search looks at, and in which direction it is better."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Final, Literal

from autocompress.errors import InputError, unknown_name

Direction = Literal["maximize", "minimize"]


REGION: Final = 0.1
"""Share of the baseline's accuracy down to which a front counts: nobody ships what loses more."""

SLACK_HALVINGS: Final = 1.0
"""With several costs, how far one may exceed the baseline's: 1 is twice as much.

Without it a file 20 times smaller that runs exactly as fast would be worth nothing.
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """One axis of the front.

    Attributes:
        name: What users type: `accuracy`, `size` or `latency`.
        field: Attribute of `Measurement` that holds the figure.
        direction: `maximize` or `minimize`.
        unit: Unit of the figure, for axes and tables.
    """

    name: str
    field: str
    direction: Direction
    unit: str


OBJECTIVES: dict[str, Objective] = {
    objective.name: objective
    for objective in (
        Objective(name="accuracy", field="accuracy", direction="maximize", unit="share"),
        Objective(name="size", field="size_bytes", direction="minimize", unit="bytes"),
        Objective(name="latency", field="latency_ms", direction="minimize", unit="ms"),
    )
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a point must keep to count: constraints of the search. None sets no limit.

    Attributes:
        max_drop: Accuracy a candidate may lose against the baseline, a share in [0, 1].
        max_size_bytes: Largest packed file.
        max_latency_ms: Longest time of one inference.
    """

    max_drop: float | None = None
    max_size_bytes: int | None = None
    max_latency_ms: float | None = None

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            InputError: If a limit is outside its range.
        """
        if self.max_drop is not None and not 0.0 <= self.max_drop <= 1.0:
            raise InputError(
                "The largest drop in accuracy must lie in [0, 1], a share, "
                f"but got {self.max_drop:g}.",
                "One point of accuracy is 0.01, 1% or 1pt.",
            )
        if self.max_size_bytes is not None and not 1 <= self.max_size_bytes < math.inf:
            raise InputError(
                f"The largest size must be at least 1 byte, but got {self.max_size_bytes}."
            )
        if self.max_latency_ms is not None and not 0.0 < self.max_latency_ms < math.inf:
            raise InputError(
                f"The longest latency must be > 0 ms, but got {self.max_latency_ms:g}."
            )

    @property
    def is_empty(self) -> bool:
        """Whether nothing is limited."""
        return self == Limits()

    def to_json(self) -> dict[str, float]:
        """The limits that are set, by name, for JSON."""
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if value is not None}

    def violations(
        self,
        *,
        accuracy: float,
        size_bytes: float,
        latency_ms: float | None,
        baseline_accuracy: float,
    ) -> dict[str, float]:
        """By how much each limit is missed: name -> figure minus limit, <= 0 where it is kept.

        A latency that was not measured keeps no limit: it is missed by the whole limit.
        """
        missed: dict[str, float] = {}
        if self.max_drop is not None:
            # accuracies are ratios of counts: a drop of exactly the limit must not fail
            missed["max_drop"] = baseline_accuracy - accuracy - self.max_drop - 1e-9
        if self.max_size_bytes is not None:
            missed["max_size_bytes"] = size_bytes - self.max_size_bytes
        if self.max_latency_ms is not None:
            known = latency_ms if latency_ms is not None else 2.0 * self.max_latency_ms
            missed["max_latency_ms"] = known - self.max_latency_ms
        return missed


def parse_objectives(names: str | Sequence[str]) -> tuple[Objective, ...]:
    """Turn `"accuracy,size"` into objectives, in the order given.

    Raises:
        InputError: If a name is unknown or repeated, accuracy is missing, or no cost is given.
    """
    listed = [n.strip() for n in names.split(",")] if isinstance(names, str) else list(names)
    for name in listed:
        if name not in OBJECTIVES:
            raise unknown_name("objective", name, OBJECTIVES)
    if len(set(listed)) != len(listed):
        raise InputError(f"Each objective must be named once, but got {','.join(listed)!r}.")
    if "accuracy" not in listed or len(listed) < 2:
        raise InputError(
            f"`objectives` must hold accuracy and a cost, but got {','.join(listed)!r}.",
            "For example: `objectives=accuracy,size,latency`.",
        )
    return tuple(OBJECTIVES[name] for name in listed)
