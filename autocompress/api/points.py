"""Points of a run, as a sequence and as a table."""

import dataclasses
import html
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

from autocompress.plan import CompressionPlan
from autocompress.run_record import RunRecord, TrialRecord

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


_TITLES = {
    "trial": "trial",
    "label": "what",
    "accuracy": "accuracy",
    "size_bytes": "size",
    "compression": "smaller",
    "latency_ms": "ms",
    "speedup": "faster",
}


def points_html(table: "pd.DataFrame") -> str:
    """A small HTML table of points; nothing in it is taken for markup."""
    from autocompress.quantities import format_size

    def cell(name: str, value: Any) -> str:
        if value is None or value != value or str(value) == "<NA>":
            return "-"
        words = {
            "accuracy": lambda: f"{100 * value:.2f} %",
            "size_bytes": lambda: format_size(value),
            "compression": lambda: f"{value:.2f}x",
            "speedup": lambda: f"{value:.2f}x",
            "latency_ms": lambda: f"{value:.3f}",
        }
        return html.escape(words.get(name, lambda: str(value))())

    head = "".join(f"<th>{_TITLES[name]}</th>" for name in table.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{cell(name, row[name])}</td>" for name in table.columns) + "</tr>"
        for _, row in table.iterrows()
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def figure_html(figure: "go.Figure") -> str:
    """A figure in the form that plotly's renderer gives it; empty where that is no HTML.

    With the renderer `png` or `svg` it is a picture, which keeps stored notebooks small.
    """
    bundle = figure._repr_mimebundle_() or {}
    if isinstance(bundle, tuple):
        bundle = bundle[0]
    if "text/html" in bundle:
        return str(bundle["text/html"])
    if "image/svg+xml" in bundle:
        return str(bundle["image/svg+xml"])
    for kind in ("image/png", "image/jpeg"):
        if kind in bundle:
            title = re.sub("<[^>]*>", "", str(figure.layout.title.text or ""))
            return f'<img alt="{title}" src="data:{kind};base64,{bundle[kind]}">'
    return ""


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
        compression: How many times smaller than the original model's.
        latency_ms: Of one inference.
        speedup: How many times faster than the original model.
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

        return points_html(self.to_pandas()[list(_SHOWN)])


def point_of(run: RunRecord, trial: TrialRecord) -> Point:
    """A trial of a run as a point."""
    from autocompress.report.tables import trial_json

    known: dict[str, Any] = trial_json(run, trial)
    names = {field.name for field in dataclasses.fields(Point)} - {"record"}
    return Point(**{name: known[name] for name in names}, record=trial)
