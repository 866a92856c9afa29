"""An objective: which measured figure the search looks at, and in which direction it is better.

One row of `OBJECTIVES` is all that the search, the front, the report, tables, limits and options
know about an objective: a new one is a new row, and code that measures its figure.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal

from autocompress.errors import InputError, unknown_name
from autocompress.quantities import BYTES, MILLISECONDS, SHARE, Quantity

Direction = Literal["maximize", "minimize"]

SLACK_HALVINGS: Final = 1.0
"""With several costs, how far one may exceed the baseline's: 1 is twice as much.

Without it a file 20 times smaller that runs exactly as fast would be worth nothing.
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """The fields of `Measurement` that say how far a figure is from itself, measured twice.

    Such a figure is taken in turns with the original model's, and only its ratio to that one can
    be compared with other times and machines.

    Attributes:
        low: Lower end of its 95 % confidence interval.
        high: Upper end.
        spread: Interquartile range of single measurements, which stands in where there is no
            interval.
        baseline: The original model's figure, measured in turns.
    """

    low: str
    high: str
    spread: str
    baseline: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """One axis of the front: accuracy, or a cost.

    Attributes:
        name: What users type: `accuracy`, `size` or `latency`.
        field: Attribute of `Measurement` that holds the figure; None there if it was not taken.
        direction: `maximize` or `minimize`.
        quantity: How its figures are written, drawn and typed.
        is_default: Whether a search has it unless it is told its objectives.
        ratio: Name in tables of the baseline's figure over this one; empty if that means nothing.
        noise: Where the noise of the measurement is found; None for a figure that is exact.
        better: Says that less of it was measured: `smaller`, `faster`.
        worse: The opposite.
        even: What a figure equal to another one is: `the same size`.
        best: What the best point is called: `smallest`.
        lowest: The best figure: `smallest file`.
        excess: What a point is that breaks its limit: `too large`.
        axis: Title of an axis, without the unit.
        limit_help: What a limit on it means, with examples, for `--help`.
        meaning: What the figure is, for the report.
    """

    name: str
    field: str
    direction: Direction
    quantity: Quantity
    is_default: bool = False
    ratio: str = ""
    noise: Noise | None = None
    better: str
    worse: str
    even: str
    best: str
    lowest: str
    excess: str
    axis: str
    limit_help: str
    meaning: str

    @property
    def is_cost(self) -> bool:
        """Whether less of it is better: every objective but accuracy."""
        return self.direction == "minimize"

    @property
    def unit(self) -> str:
        """Unit of the figure."""
        return self.quantity.unit

    @property
    def limit(self) -> str:
        """Name of its limit in `Limits`: `max_size_bytes`; `max_drop` for accuracy."""
        return f"max_{self.field}" if self.is_cost else "max_drop"

    @property
    def option(self) -> str:
        """Name of the option that limits it: `max_size`; `max_drop` for accuracy."""
        return f"max_{self.name}" if self.is_cost else "max_drop"


ACCURACY: Final = Objective(
    name="accuracy",
    field="accuracy",
    direction="maximize",
    quantity=SHARE,
    is_default=True,
    better="more accurate",
    worse="less accurate",
    even="the same accuracy",
    best="most accurate",
    lowest="highest accuracy",
    excess="too inaccurate",
    axis="accuracy, validation",
    limit_help="Accuracy a point may lose, such as 0.01, 1% or 1pt.",
    meaning="the task's metric on the validation split, after a trial's tuning, if any.",
)
SIZE: Final = Objective(
    name="size",
    field="size_bytes",
    direction="minimize",
    quantity=BYTES,
    is_default=True,
    ratio="compression",
    better="smaller",
    worse="larger",
    even="the same size",
    best="smallest",
    lowest="smallest file",
    excess="too large",
    axis="size of the packed file",
    limit_help="Largest packed file, such as 100kB, 1.5MB or 64KiB.",
    meaning="bytes of the packed file on disk, which unpacks to a running model; 1 kB = 1000 B.",
)
LATENCY: Final = Objective(
    name="latency",
    field="latency_ms",
    direction="minimize",
    quantity=MILLISECONDS,
    is_default=True,
    ratio="speedup",
    noise=Noise(
        low="latency_low_ms",
        high="latency_high_ms",
        spread="latency_spread_ms",
        baseline="baseline_latency_ms",
    ),
    better="faster",
    worse="slower",
    even="the same speed",
    best="fastest",
    lowest="shortest latency",
    excess="too slow",
    axis="latency, one inference",
    limit_help="Longest inference, such as 2ms or 250us.",
    meaning="median time of one inference of the exported model; spread is its interquartile "
    "range. “Faster” compares with the baseline timed in turns with the candidate; marked ≈ where "
    "intervals do not lie apart by more than the baseline's from itself.",
)
OBJECTIVES: dict[str, Objective] = {row.name: row for row in (ACCURACY, SIZE, LATENCY)}


def all_costs() -> tuple[Objective, ...]:
    """The rows of `OBJECTIVES` that are costs."""
    return tuple(row for row in OBJECTIVES.values() if row.is_cost)


def default_objectives() -> str:
    """The names of what a search looks at unless it is told, as they are typed."""
    return ",".join(row.name for row in OBJECTIVES.values() if row.is_default)


@dataclasses.dataclass(frozen=True, slots=True, init=False)
class Limits:
    """What a point must keep to count: constraints of the search, at most one per objective.

    >>> Limits(max_drop=0.01, max_size_bytes=100_000).bounds[SIZE]
    100000

    Attributes:
        bounds: Objective -> the most its figure may be; for accuracy the most it may lose against
            the baseline, a share in [0, 1]. In the order of `OBJECTIVES`; no entry is no limit.
    """

    bounds: Mapping[Objective, float]

    def __init__(self, **bounds: float | None) -> None:
        """Take limits by the names that `Objective.limit` gives them; None sets no limit.

        Raises:
            InputError: If there is no such limit, or one is outside its range.
        """
        names = {row.limit: row for row in OBJECTIVES.values()}
        for name in bounds:
            if name not in names:
                raise unknown_name("limit", name, names)
        given = {names[name]: value for name, value in bounds.items() if value is not None}
        for row, bound in given.items():
            _check_bound(row, bound)
        ordered = {row: given[row] for row in names.values() if row in given}
        object.__setattr__(self, "bounds", MappingProxyType(ordered))

    def __reduce__(self) -> tuple[object, ...]:
        return (_limits_from, (self.to_json(),))  # mapping proxies cannot be pickled

    def __hash__(self) -> int:
        return hash(tuple(self.bounds.items()))

    def __repr__(self) -> str:
        bounds = (f"{name}={bound!r}" for name, bound in self.to_json().items())
        return f"Limits({', '.join(bounds)})"

    @property
    def is_empty(self) -> bool:
        """Whether nothing is limited."""
        return not self.bounds

    @property
    def max_drop(self) -> float | None:
        """Accuracy that a point may lose."""
        return self.bounds.get(ACCURACY)

    @property
    def costs(self) -> dict[str, float]:
        """Field of `Measurement` -> the most it may be, for costs that are limited."""
        return {row.field: bound for row, bound in self.bounds.items() if row.is_cost}

    def to_json(self) -> dict[str, float]:
        """The limits that are set, by name, for JSON."""
        return {row.limit: bound for row, bound in self.bounds.items()}

    def violations(
        self, figures: Mapping[str, float | None], *, baseline_accuracy: float
    ) -> dict[str, float]:
        """By how much each limit is missed: name -> figure minus limit, <= 0 where it is kept.

        A cost that was not measured keeps no limit: it is missed by the whole limit.

        Args:
            figures: Field of `Measurement` -> what was measured.
            baseline_accuracy: What accuracy is lost against.
        """
        missed: dict[str, float] = {}
        for row, bound in self.bounds.items():
            figure = figures[row.field]
            if not row.is_cost:
                assert figure is not None, f"{row.field} was not measured"
                # accuracies are ratios of counts: a drop of exactly the limit must not fail
                missed[row.limit] = baseline_accuracy - figure - bound - 1e-9
            else:
                missed[row.limit] = (figure if figure is not None else 2.0 * bound) - bound
        return missed


def _limits_from(bounds: Mapping[str, float]) -> Limits:
    return Limits(**bounds)


def _check_bound(row: Objective, bound: float) -> None:
    if not row.is_cost:
        if not 0.0 <= bound <= 1.0:
            raise InputError(
                f"The largest drop in {row.name} must lie in [0, 1], a share, but got {bound:g}.",
                "One point of accuracy is 0.01, 1% or 1pt.",
            )
        return
    is_enough = bound >= 1 if row.quantity.is_whole else bound > 0
    if not (is_enough and bound < math.inf):
        raise InputError(
            f"The limit on the {row.name} must be {row.quantity.least}, but got {bound:g}."
        )


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
            f"For example: `objectives={default_objectives()}`.",
        )
    return tuple(OBJECTIVES[name] for name in listed)
