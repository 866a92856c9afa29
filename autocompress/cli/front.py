"""`autocompress front`: the Pareto front of a run as a table, CSV or JSON."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autocompress.cli.runs import resolve_run, results_option
from autocompress.errors import InputError, NoPointError, one_line
from autocompress.terminal.printing import echo
from autocompress.terminal.tables import front_summary, points_table

if TYPE_CHECKING:  # pandas takes a while: `--help` must not wait for it
    from autocompress.run_record import RunRecord

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
    from autocompress.study.records import load_run

    if as_csv and as_json:
        raise InputError("`--csv` and `--json` exclude each other, but both were given.")
    record = load_run(resolve_run(run, results))
    require_a_point(record)
    if as_json:
        echo(_json_text(record, show_all))
    elif as_csv:
        from autocompress.report.tables import csv_text, front_table, trials_table

        echo(csv_text(trials_table(record) if show_all else front_table(record)), nl=False)
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
        message, f"{len(reasons)} failed, {reasons.count(reason)} of them for: {one_line(reason)}"
    )


def _json_text(run: RunRecord, show_all: bool) -> str:
    from autocompress.report.search_gain import search_gain
    from autocompress.report.tables import front_json, trial_json
    from autocompress.runs.repeats import find_repeats

    gain = search_gain(run, find_repeats(run))
    document: dict[str, Any] = front_json(run)
    document["search_gain"] = None if gain is None else gain.to_json()
    if show_all:
        document["trials"] = [trial_json(run, trial) for trial in run.trials]
    return json.dumps(document, indent=2, allow_nan=False)


def _print_table(run: RunRecord, show_all: bool) -> None:
    from autocompress.report.wording import nothing_feasible
    from autocompress.terminal.printing import make_console

    width = shutil.get_terminal_size((_PLAIN_WIDTH, 24)).columns if sys.stdout.isatty() else None
    console = make_console(width=width or _PLAIN_WIDTH, highlight=False, emoji=False)
    console.print(points_table(run, run.trials) if show_all else front_summary(run))
    if run.refined:
        console.print(points_table(run, run.refined))
    counts = {state: sum(t.state == state for t in run.trials) for state in ("failed", "stopped")}
    failed = f", {counts['failed']} failed" if counts["failed"] else ""
    stopped = f", {counts['stopped']} stopped early" if counts["stopped"] else ""
    echo(
        f"{one_line(run.name)}: {len(run.front())} of {len(run.complete)} finished trials are on "
        f"the front{failed}{stopped}. Take one: autocompress export --trial N",
        err=True,
    )
    if problem := nothing_feasible(run):
        echo(one_line(problem), err=True)
