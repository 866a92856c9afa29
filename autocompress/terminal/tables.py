"""Points of a run as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autocompress.errors import one_line

if TYPE_CHECKING:  # rich takes a while: `--help` must not wait for it
    from rich.table import Table

    from autocompress.objective import Objective
    from autocompress.run_record import RunRecord, TrialRecord


def front_summary(run: RunRecord) -> Table:
    """The front as a rich table that fits 80 columns; a baseline beyond the limits stands above."""
    from autocompress.report.findings import front_with_baseline

    return points_table(run, front_with_baseline(run))


def points_table(run: RunRecord, trials: Sequence[TrialRecord], names: Sequence[str] = ()) -> Table:
    """Some trials of a run as a rich table; refined ones are named so.

    Args:
        run: Whose they are.
        trials: One row each.
        names: What to call them instead of their labels.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from autocompress.report.findings import cost_of
    from autocompress.report.wording import violation_words

    costs = [c for c in run.shown_costs if any(cost_of(t, c) is not None for t in trials)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("what", overflow="fold", min_width=10)
    titles = ["accuracy", "change"]
    for cost in costs:
        titles.append(cost.name if cost.quantity.is_whole else cost.unit)
        titles += [cost.better] if cost.ratio else []
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    on_front = {t.number for t in run.front()}
    for trial, name in zip(trials, names or [trial.label for trial in trials], strict=True):
        is_strong = trial.number in on_front and len(trials) > len(on_front)
        cells = _figures(run, trial, costs)
        # Text, not markup: a name such as [red] stays a name.
        what = Text(one_line(", ".join([name, *violation_words(run, trial)])))
        table.add_row(str(trial.number), what, *cells, style="bold" if is_strong else None)
    return table


def _figures(run: RunRecord, trial: TrialRecord, costs: Sequence[Objective]) -> list[str]:
    """Accuracy, change, and every cost with its ratio: plain ASCII, for any terminal."""
    from autocompress.quantities import format_share
    from autocompress.report.findings import accuracy_change, cost_of, gain, is_level_with_baseline

    change = accuracy_change(run, trial)
    cells = [
        trial.state if trial.measurement is None else format_share(trial.measurement.accuracy),
        "-" if change is None else f"{100 * change:+.2f} pt",
    ]
    for cost in costs:
        value, ratio = cost_of(trial, cost), gain(run, trial, cost)
        write = cost.quantity.write if cost.quantity.is_whole else cost.quantity.write_number
        cells.append("-" if value is None else write(value))
        sign = "~" if ratio is not None and is_level_with_baseline(run, trial, cost) else ""
        if cost.ratio:
            cells.append("-" if ratio is None else f"{sign}{ratio:.2f}x")
    return cells
