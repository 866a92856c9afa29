"""`autocompress refine`: the full recipe for the points that matter."""

from __future__ import annotations

from pathlib import Path

import click

from autocompress.cli.options import json_option, print_json
from autocompress.cli.runs import load_trusted, results_option, trust_option
from autocompress.errors import InputError
from autocompress.quantities import parse_seconds


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
    from autocompress.report.tables import trial_json
    from autocompress.tasks.factory import load_teacher
    from autocompress.terminal.refine_progress import refine_points
    from autocompress.terminal.tables import points_table
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
        from autocompress.terminal.printing import make_console

        make_console(highlight=False, emoji=False).print(points_table(record, refined))
