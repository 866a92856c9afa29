"""Points of a run as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # rich takes a while: `--help` must not wait for it
    from rich.table import Table

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

    from autocompress.report.wording import violation_words

    has_latency = any(t.measurement and t.measurement.latency_ms is not None for t in trials)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("what", overflow="fold", min_width=10)
    titles = ["accuracy", "change", "size", "smaller"] + ["ms", "faster"] * has_latency
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    on_front = {t.number for t in run.front()}
    for trial, name in zip(trials, names or [trial.label for trial in trials], strict=True):
        is_strong = trial.number in on_front and len(trials) > len(on_front)
        cells = _figures(run, trial)[: len(titles)]
        # Text, not markup: a name such as [red] stays a name.
        what = Text(printable(", ".join([name, *violation_words(run, trial)])))
        table.add_row(str(trial.number), what, *cells, style="bold" if is_strong else None)
    return table


def _figures(run: RunRecord, trial: TrialRecord) -> list[str]:
    """Accuracy, change, size, ratio, milliseconds, ratio: plain ASCII, for any terminal."""
    from autocompress.objective import OBJECTIVES
    from autocompress.report.findings import accuracy_change, differs_from_baseline, gain
    from autocompress.report.wording import format_ms, format_size

    figures = trial.measurement
    if figures is None:
        return [trial.state, "-", "-", "-", "-", "-"]
    change = accuracy_change(run, trial)
    ratios = [gain(run, trial, OBJECTIVES[cost]) for cost in ("size", "latency")]
    smaller, faster = ("-" if r is None else f"{r:.2f}x" for r in ratios)
    if ratios[1] is not None and trial is not run.baseline:
        faster = faster if differs_from_baseline(run, trial) else f"~{faster}"
    return [
        f"{100 * figures.accuracy:.2f} %",
        "-" if change is None else f"{100 * change:+.2f} pt",
        format_size(figures.size_bytes),
        smaller,
        "-" if figures.latency_ms is None else format_ms(figures.latency_ms),
        faster,
    ]


def printable(text: str) -> str:
    """The text without control characters: a name must not steer the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)
