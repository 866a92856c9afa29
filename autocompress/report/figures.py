"""The pictures of a run, each under the name it has on the page."""

import plotly.graph_objects as go

from autocompress.objective import OBJECTIVES
from autocompress.report.choices_figure import choices_figure
from autocompress.report.findings import cost_of
from autocompress.report.front_figure import front_figure
from autocompress.report.hypervolume_figure import hypervolume_figure
from autocompress.report.tables import hypervolume_history
from autocompress.run_record import RunRecord

__all__ = ["choices_figure", "front_figure", "hypervolume_figure", "run_figures"]


def run_figures(run: RunRecord) -> dict[str, go.Figure]:
    """Every picture this run has data for: `size`, `latency`, `hypervolume`, `choices`.

    A cost that no finished trial has measured gets no picture; a run without any finished trial has
    none at all.
    """
    figures: dict[str, go.Figure] = {}
    for cost in ("size", "latency"):
        if any(cost_of(t, OBJECTIVES[cost]) is not None for t in run.complete):
            figures[cost] = front_figure(run, cost)
    if len(hypervolume_history(run)) > 1:
        figures["hypervolume"] = hypervolume_figure(run)
    if any(trial.role != "baseline" for trial in run.front()):
        figures["choices"] = choices_figure(run)
    return figures
