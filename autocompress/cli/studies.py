"""`autocompress studies`: the runs there are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from autocompress.cli.runs import results_option
from autocompress.terminal.printing import echo


@click.command(short_help="List the runs there are.")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
@results_option
def command(as_json: bool, results: Path) -> None:
    """List the runs in the results folder: task, trials, points on the front, and who drives it."""
    from autocompress.storages.open_storage import run_folders

    rows = [_row(folder) for folder in run_folders(results)]
    if as_json:
        echo(json.dumps(rows, indent=2))
        return
    if not rows:
        echo(f"There is no run in {results} yet.", err=True)
        return
    from rich.table import Table

    from autocompress.terminal.printing import make_console

    table = Table(box=None, pad_edge=False)
    for title in ("run", "task", "finished", "budget", "front", "sampler", "seed", "state"):
        is_count = title in ("finished", "budget", "front", "seed")
        table.add_column(title, justify="right" if is_count else "left")
    for row in rows:
        shown = ("" if value is None else str(value) for value in row.values())
        table.add_row(*shown)
    make_console(highlight=False).print(table)


def _row(folder: Path) -> dict[str, Any]:
    from autocompress.errors import AutocompressError, one_line
    from autocompress.storages.open_storage import drivers_of
    from autocompress.study.records import load_run

    row = dict.fromkeys(("run", "task", "finished", "budget", "front", "sampler", "seed", "state"))
    drivers = drivers_of(folder)
    try:
        run = load_run(folder)
    except AutocompressError:
        state = f"unreadable: autocompress doctor {folder}"
        return {**row, "run": one_line(folder.name), "state": one_line(state)}
    options = run.info.get("options")
    budget = options.get("budget") if isinstance(options, dict) else None
    budget = budget if isinstance(budget, int) else None
    is_done = budget is not None and run.n_finished >= budget
    return {
        "run": run.name,
        "task": run.info["task_name"],
        "finished": run.n_finished,
        "budget": budget,
        "front": len(run.front()),
        "sampler": run.info["sampler"],
        "seed": run.info["seed"],
        "state": "driven by " + ", ".join(drivers) if drivers else "done" if is_done else "waits",
    }
