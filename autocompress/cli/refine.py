"""`autocompress refine`: the full recipe for the points that matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from autocompress.cli.json_output import json_option, print_json
from autocompress.cli.quantities import parse_seconds
from autocompress.cli.runs import load_trusted, results_option, trust_option
from autocompress.errors import InputError, NoPointError


@click.command(short_help="Train chosen points of a run in full.")
@click.argument("run", required=False)
@click.option("--trial", "trials", type=int, multiple=True, help="A trial to refine; repeatable.")
@click.option("--front", is_flag=True, help="Members of the front that dominate most.")
@click.option("--top", default=3, show_default=True, help="How many of them.", metavar="K")
@click.option(
    "--recipe",
    default="",
    help="Settings of the recipe, such as epochs=40,entropy_strength=0.5.",
)
@click.option("--refine-time", metavar="TIME", help="Time for each, such as 30m; sets its epochs.")
@click.option("--patience", default=10, show_default=True, help="Epochs without a better accuracy.")
@click.option("--teacher", metavar="SPEC", help="file.py:function that returns the teacher.")
@click.option("--seed", default=0, show_default=True, help="Seed of the refinements.")
@click.option("--quiet", is_flag=True, help="No progress, only the result.")
@json_option("Print the refined points as JSON.")
@trust_option
@results_option
def command(
    run: str | None,
    trials: tuple[int, ...],
    front: bool,
    top: int,
    recipe: str,
    refine_time: str | None,
    patience: int,
    teacher: str | None,
    seed: int,
    quiet: bool,
    as_json: bool,
    is_trusted: bool,
    results: Path,
) -> None:
    """Train trials of RUN (the newest by default) in full: the weights that `export` ships.

    Each starts again from the base model, with finer grids that get coarser level by level, and is
    distilled from the base model (or --teacher). In the second half what its codes take in the file
    is part of the loss; `entropy_strength` says how much. The best epoch on val is kept. The same
    command again continues after the last whole epoch.
    """
    from autocompress.cli.front import points_table
    from autocompress.report.tables import trial_json
    from autocompress.tasks.factory import load_teacher
    from autocompress.train.presets import parse_recipe

    if not trials and not front:
        raise InputError("Points must be named: --trial N, --front, or both.")
    if top < 1:
        raise InputError(f"`--top` must be at least 1, but got {top}.")
    fields = parse_recipe(recipe)
    if refine_time is not None and "epochs" in fields:
        raise InputError("`--refine-time` sets the epochs, but --recipe sets them as well.")
    seconds = None if refine_time is None else parse_seconds("--refine-time", refine_time)
    record = load_trusted(run, results, is_trusted=is_trusted)
    refined = refine_points(
        record,
        numbers=trials,
        top=top if front else 0,
        quiet=quiet,
        fields=fields,
        minutes=None if seconds is None else seconds / 60.0,
        patience=patience,
        teacher=None if teacher is None else load_teacher(teacher),
        seed=seed,
    )
    if as_json:
        points = [trial_json(record, trial) for trial in refined]
        print_json({"run": record.name, "refined": points}, allow_nan=False)
    else:
        from rich.console import Console

        Console(highlight=False, emoji=False).print(points_table(record, refined))


def refine_points(
    record: Any, *, numbers: tuple[int, ...], top: int, quiet: bool, **how: Any
) -> tuple[Any, ...]:
    """Refine and show progress.

    Raises:
        NoPointError: If every refinement failed.
    """
    from autocompress.cli.refine_progress import RefineProgress
    from autocompress.search.refine_run import choose_trials, refine_run
    from autocompress.search.refined import refinements_file

    chosen = choose_trials(record, numbers=numbers, top=top)
    progress = RefineProgress(quiet=quiet)
    try:
        with progress:
            refined = refine_run(record, chosen, listener=progress.listener, **how)
    except KeyboardInterrupt:
        progress.note(f"Stopped. Nothing is lost: the same command continues {record.folder}.")
        raise
    if not refined:
        named = {trial.number for trial in chosen}
        failed = refinements_file(record.folder).read().values()
        reasons = [e["reason"] for e in failed if e["trial"] in named and e["reason"]]
        raise NoPointError(
            f"None of the {len(chosen)} trials could be refined.", f"The first reason: {reasons[0]}"
        )
    return refined


def refine_best(run: Any, top: int, *, quiet: bool) -> Any:
    """Refine members of the front with the default recipe; the run as it is then."""
    from autocompress.search.records import load_run

    refine_points(run, numbers=(), top=top, quiet=quiet, fields={})
    return load_run(run.folder)
