"""`autocompress front`: the Pareto front of a run as a table, CSV or JSON."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autocompress.cli.runs import resolve_run, results_option
from autocompress.errors import InputError, NoPointError

if TYPE_CHECKING:  # pandas and rich take a while: `--help` must not wait for them
    from rich.table import Table

    from autocompress.run_record import RunRecord, TrialRecord

_PLAIN_WIDTH = 80


@click.command(short_help="Print the Pareto front of a run.")
@click.argument("run", required=False)
@click.option("--csv", "as_csv", is_flag=True, help="CSV on stdout.")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
@click.option("--all", "show_all", is_flag=True, help="Every trial, not only the front.")
@results_option
def command(run: str | None, as_csv: bool, as_json: bool, show_all: bool, results: Path) -> None:
    """Print the Pareto front of RUN (the newest run if none is named).

    The table is most accurate first. `--json` prints an object with `run`, `baseline`, `controls`,
    `points`, `refined` (refined trials, which are on no front) and `search_gain` (search against
    controls, over the run's repeats with other seeds), and with `--all` also `trials`. Exit code 4
    if no trial has finished. A front that is empty because nothing keeps the run's limits is said
    to be so; that is no error.
    """
    from autocompress.search.records import load_run

    if as_csv and as_json:
        raise InputError("`--csv` and `--json` exclude each other, but both were given.")
    record = load_run(resolve_run(run, results))
    require_a_point(record)
    if as_json:
        click.echo(_json_text(record, show_all))
    elif as_csv:
        from autocompress.report.tables import csv_text, front_table, trials_table

        click.echo(csv_text(trials_table(record) if show_all else front_table(record)), nl=False)
    else:
        _print_table(record, show_all)


def require_a_point(run: RunRecord) -> None:
    """Refuse a run without any complete trial.

    Raises:
        NoPointError: If no trial of the run is complete; names the commonest reason of failure.
    """
    if run.complete:
        return
    reasons = [t.reason or "no reason recorded" for t in run.trials if t.state == "failed"]
    message = f"Run {run.name!r} must have a finished trial, but has none of {len(run.trials)}."
    if not reasons:
        raise NoPointError(message, "Wait, or run the same search command again.")
    reason = max(set(reasons), key=lambda text: (reasons.count(text), text))
    raise NoPointError(
        message, f"{len(reasons)} failed, {reasons.count(reason)} of them for: {printable(reason)}"
    )


def front_summary(run: RunRecord) -> Table:
    """The front as a rich table that fits 80 columns; a baseline beyond the limits stands above."""
    from autocompress.report.findings import front_with_baseline

    return points_table(run, front_with_baseline(run))


def _json_text(run: RunRecord, show_all: bool) -> str:
    from autocompress.report.search_gain import search_gain
    from autocompress.report.tables import front_json, trial_json
    from autocompress.search.repeats import find_repeats

    gain = search_gain(run, find_repeats(run))
    document: dict[str, Any] = front_json(run)
    document["search_gain"] = None if gain is None else gain.to_json()
    if show_all:
        document["trials"] = [trial_json(run, trial) for trial in run.trials]
    return json.dumps(document, indent=2, allow_nan=False)


def _print_table(run: RunRecord, show_all: bool) -> None:
    from rich.console import Console

    from autocompress.report.limits import nothing_feasible

    width = shutil.get_terminal_size((_PLAIN_WIDTH, 24)).columns if sys.stdout.isatty() else None
    console = Console(width=width or _PLAIN_WIDTH, highlight=False, emoji=False)
    console.print(points_table(run, run.trials) if show_all else front_summary(run))
    if run.refined:
        console.print(points_table(run, run.refined))
    counts = {state: sum(t.state == state for t in run.trials) for state in ("failed", "stopped")}
    failed = f", {counts['failed']} failed" if counts["failed"] else ""
    stopped = f", {counts['stopped']} stopped early" if counts["stopped"] else ""
    click.echo(
        f"{printable(run.name)}: {len(run.front())} of {len(run.complete)} finished trials are on "
        f"the front{failed}{stopped}. Take one: autocompress export --trial N",
        err=True,
    )
    if problem := nothing_feasible(run):
        click.echo(printable(problem), err=True)


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

    from autocompress.report.limits import violation_words

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
