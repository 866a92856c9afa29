"""`autocompress compare`: several runs side by side."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autocompress.cli.front import require_a_point
from autocompress.cli.runs import resolve_run, results_option
from autocompress.errors import one_line
from autocompress.terminal.printing import echo

if TYPE_CHECKING:  # rich takes a while: `--help` must not wait for it
    from collections.abc import Sequence

    from rich.console import Console

    from autocompress.report.compare import Comparison

_PLAIN_WIDTH = 100
# The terminal's tables are plain ASCII.
_ASCII = str.maketrans({"×": "x", "−": "-", "–": "-", "±": "+", "≈": "~", "…": "."})


@click.command(short_help="Put runs side by side: fronts, hypervolumes, options.")
@click.argument("runs", nargs=-1, metavar="RUN_A RUN_B [MORE]...")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the comparison as one HTML file.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout instead of tables.")
@results_option
def command(runs: tuple[str, ...], output: Path | None, as_json: bool, results: Path) -> None:
    """Compare RUN_A, RUN_B and more, by name or folder.

    Hypervolumes, the smallest file and the fastest point at equal loss of accuracy, and everything
    that the runs differ by: options, knobs, versions, hardware. What may not be compared is named,
    with the reason: hypervolumes need the same model, validation data, objectives and limits,
    speedups the same runtime and machine. Exit code 4 if a run has no finished trial.
    """
    from autocompress.report.compare import compare_runs
    from autocompress.report.compare_page import write_comparison
    from autocompress.study.records import load_run

    records = [load_run(resolve_run(run, results)) for run in runs]
    for record in records:
        require_a_point(record)
    comparison = compare_runs(records)
    if as_json:
        echo(json.dumps(comparison.to_json(), indent=2, allow_nan=False))
    else:
        _print_tables(comparison)
    if output is not None:
        write_comparison(comparison, output)
        echo(output, err=as_json)


def _print_tables(comparison: Comparison) -> None:
    from autocompress.objective import all_costs
    from autocompress.report.compare_page import (
        difference_cells,
        drop_cells,
        obstacle_sentences,
        run_cells,
    )
    from autocompress.terminal.printing import make_console

    width = shutil.get_terminal_size((_PLAIN_WIDTH, 24)).columns if sys.stdout.isatty() else None
    console = make_console(width=width or _PLAIN_WIDTH, highlight=False, emoji=False)
    _print_table(console, *run_cells(comparison))
    for cost in all_costs():
        titles, rows = drop_cells(comparison, cost)
        if rows:
            echo(f"{cost.lowest.capitalize()} by allowed loss of accuracy:")
            _print_table(console, titles, rows)
    titles, rows = difference_cells(comparison)
    echo("What differs:" if rows else "Nothing that is recorded differs.")
    if rows:
        _print_table(console, titles[1:], [row[1:] for row in rows])
    for sentence in obstacle_sentences(comparison):
        echo(_plain(sentence), err=True)


def _print_table(console: Console, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for title in titles:
        table.add_column(Text(_plain(title)), overflow="fold")
    for row in rows:
        # Text, not markup: a name such as [red] stays a name.
        table.add_row(*(Text(_plain(cell)) for cell in row))
    console.print(table)


def _plain(text: str) -> str:
    """ASCII signs for typographic ones, and no control characters."""
    return one_line(text.translate(_ASCII))
