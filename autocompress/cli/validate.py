"""`autocompress validate`: does the proxy rank candidates as full training does?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from autocompress.cli.options import json_option, print_json
from autocompress.cli.runs import load_trusted, results_option, trust_option
from autocompress.errors import NoPointError

if TYPE_CHECKING:  # scipy and rich take a while: `--help` must not wait for them
    from autocompress.runs.validate.validation import Validation


@click.command(short_help="Compare the proxy's ranking with that of full training.")
@click.argument("run", required=False)
@click.option(
    "--sample", default=24, show_default=True, help="Trials to train in full, >= 3.", metavar="N"
)
@click.option(
    "--epochs", type=float, help="Epochs of full training; default: 20 times the proxy's."
)
@click.option("--seed", default=0, show_default=True, help="Seed of the full trainings.")
@click.option("--quiet", is_flag=True, help="No progress, only the result.")
@json_option("Print everything as JSON.")
@trust_option
@results_option
def command(
    run: str | None,
    sample: int,
    epochs: float | None,
    seed: int,
    quiet: bool,
    as_json: bool,
    is_trusted: bool,
    results: Path,
) -> None:
    """Re-train a spread sample of RUN's trials in full and compare with the search's figures.

    RUN is the newest run if none is named. The sample goes from the worst to the best trial in even
    steps, tuned controls and members of the front included. Each is trained again from the base
    model with the run's recipe and more epochs. Printed are Kendall's tau-b and Spearman's rho of
    the proxy's ranking against that of full training, over all and over the third that is best
    after full training; trials of equal accuracy are ranked by the divergence of their outputs from
    the base model's on the validation split.

    Every result is kept in validation.json in the run folder: the same command again continues. As
    many epochs as the proxy's show how much of a ranking is chance.
    """
    from autocompress.runs.validate.retrain import validate_run
    from autocompress.terminal.validation_progress import ValidationProgress

    record = load_trusted(run, results, is_trusted=is_trusted)
    progress = ValidationProgress(quiet=quiet)
    try:
        with progress:
            found = validate_run(
                record, n_sample=sample, epochs=epochs, seed=seed, listener=progress.listener
            )
    except KeyboardInterrupt:
        progress.note(f"Stopped. Nothing is lost: the same command continues {record.folder}.")
        raise
    if as_json:
        print_json(found.to_json(), allow_nan=False)
    else:
        _print(found)
    if not found.done:
        raise NoPointError(
            f"None of the {len(found.retrainings)} trials could be trained in full.",
            f"The first reason: {found.retrainings[0].reason}",
        )


def _print(found: Validation) -> None:
    from autocompress.cli.validation_table import agreement_table, sentences, trials_table
    from autocompress.terminal.printing import make_console

    console = make_console(highlight=False, emoji=False)
    console.print(trials_table(found))
    console.print(agreement_table(found))
    for line in sentences(found):
        console.print(line, soft_wrap=not console.is_terminal)
