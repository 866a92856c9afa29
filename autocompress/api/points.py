"""Points of a run, as a sequence and as a table."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

from autocompress.plan import CompressionPlan
from autocompress.run_record import RunRecord, TrialRecord

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = ("trial", "label", "accuracy", "size_bytes", "compression", "latency_ms", "speedup")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One trial and what came out; what was not measured is None.

    Attributes:
        trial: Its number.
        label: What tables call it.
        role: `baseline`, `control` or `search`.
        state: `complete`, `failed`, `stopped` or `running`.
        accuracy: On val.
        size_bytes: Of the packed file.
        compression: How many times smaller than the untouched model's.
        latency_ms: Of one inference.
        speedup: How many times faster than the untouched model.
        reason: Why it failed or was stopped.
        record: Everything that is known of it.
    """

    trial: int
    label: str
    role: str
    state: str
    accuracy: float | None
    size_bytes: int | None
    compression: float | None
    latency_ms: float | None
    speedup: float | None
    reason: str | None
    record: TrialRecord = dataclasses.field(repr=False)

    @property
    def plan(self) -> CompressionPlan:
        """What was done to the model."""
        return self.record.plan


class Points(Sequence[Point]):
    """Some trials of a run, in order.

    Args:
        run: The run.
        trials: Some of its trials.
    """

    def __init__(self, run: RunRecord, trials: Sequence[TrialRecord]) -> None:
        self._run = run
        self._points = tuple(point_of(run, trial) for trial in trials)

    def __len__(self) -> int:
        return len(self._points)

    @overload
    def __getitem__(self, index: int) -> Point: ...
    @overload
    def __getitem__(self, index: slice) -> "Points": ...
    def __getitem__(self, index: int | slice) -> "Point | Points":
        if isinstance(index, slice):
            return Points(self._run, [point.record for point in self._points[index]])
        return self._points[index]

    def to_pandas(self) -> "pd.DataFrame":
        """A row for each point, with the columns of `trials.csv`."""
        from autocompress.report.tables import table_of

        return table_of(self._run, tuple(point.record for point in self._points))

    def __repr__(self) -> str:
        if not self._points:
            return "Points()"
        table = self.to_pandas()[list(_SHOWN)]
        return str(table.to_string(index=False))

    def _repr_html_(self) -> str:
        from autocompress.api.notebook import points_html

        return points_html(self.to_pandas()[list(_SHOWN)])


def point_of(run: RunRecord, trial: TrialRecord) -> Point:
    """A trial of a run as a point."""
    from autocompress.report.tables import trial_json

    known: dict[str, Any] = trial_json(run, trial)
    names = {field.name for field in dataclasses.fields(Point)} - {"record"}
    return Point(**{name: known[name] for name in names}, record=trial)
