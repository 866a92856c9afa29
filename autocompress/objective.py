"""An objective: which measured figure the search looks at, and in which direction it is better."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from autocompress.errors import InputError, unknown_name

Direction = Literal["maximize", "minimize"]


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
            f"`--objectives` must hold accuracy and a cost, but got {','.join(listed)!r}.",
            "For example: --objectives accuracy,size,latency.",
        )
    return tuple(OBJECTIVES[name] for name in listed)
