"""The pictures of a run, each under the name it has on the page."""

import plotly.graph_objects as go

from autocompress.objective import OBJECTIVES
from autocompress.report.choices_figure import choices_figure
from autocompress.report.cube_figure import cube_figure, has_three_objectives
from autocompress.report.findings import cost_of
from autocompress.report.front_figure import front_figure
from autocompress.report.hypervolume_figure import hypervolume_figure
from autocompress.report.importance_figure import importance_figure, importances
from autocompress.report.sensitivity_figure import sensitivity_figure
from autocompress.report.tables import hypervolume_history
from autocompress.run_record import RunRecord

__all__ = ["choices_figure", "front_figure", "hypervolume_figure", "run_figures"]


def run_figures(run: RunRecord, *, has_texts: bool = True) -> dict[str, go.Figure]:
    """Every picture this run has data for, by name.

    They are `size`, `latency`, `cube` (with three objectives), `hypervolume`, `choices`,
    `sensitivity` (with an option table) and `importance` (with enough trials). A cost that no
    finished trial has measured gets no picture; a run without any finished trial has none at all.

    Args:
        run: Any state of a run.
        has_texts: Whether points carry what a pointer over them shows; the page does without.
    """
    figures: dict[str, go.Figure] = {}
    for cost in ("size", "latency"):
        if any(cost_of(t, OBJECTIVES[cost]) is not None for t in run.complete):
            figures[cost] = front_figure(run, cost, has_texts=has_texts)
    if has_three_objectives(run):
        figures["cube"] = cube_figure(run, has_texts=has_texts)
    if len(hypervolume_history(run)) > 1:
        figures["hypervolume"] = hypervolume_figure(run)
    if any(trial.role != "baseline" for trial in run.front()):
        figures["choices"] = choices_figure(run)
    if run.complete and run.options is not None and any(o.figures for o in run.options.options):
        figures["sensitivity"] = sensitivity_figure(run)
    if found := importances(run):
        figures["importance"] = importance_figure(found)
    return figures
