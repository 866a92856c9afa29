"""`autocompress doctor`: what is wrong with a run folder, and mending it."""

from pathlib import Path

import click

from autocompress.cli.runs import results_option
from autocompress.terminal.printing import echo_line


@click.command(short_help="Check a run folder, and repair what can be repaired.")
@click.argument("run")
@click.option("--repair", "is_repairing", is_flag=True, help="Do what can be done.")
@results_option
def command(run: str, is_repairing: bool, results: Path) -> None:
    """Check the folder of RUN: its study, the journal of it, weights, and what a crash has left.

    A study that is damaged, or that lacks trials its journal knows, can be rebuilt; the old file
    stays beside it. Exit code 3 if something is left to be done.
    """
    from autocompress.runs.doctor import examine, repair

    folder = results / run if (results / run).is_dir() else Path(run)
    findings = repair(folder) if is_repairing else examine(folder)
    for finding in findings:
        remedy = finding.remedy and f" (--repair: {finding.remedy})"
        echo_line(f"{'ok ' if finding.is_sound else 'BAD'}  {finding.what}{remedy}")
    if not all(finding.is_sound for finding in findings):
        raise click.exceptions.Exit(3)
