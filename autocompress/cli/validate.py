"""`autocompress validate`: does the proxy rank candidates as full training does?"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autocompress.cli.options import json_option, print_json
from autocompress.cli.runs import load_trusted, results_option, trust_option
from autocompress.errors import NoPointError
from autocompress.run_record import TrialRecord
from autocompress.runs.validate.retrain import RetrainListener
from autocompress.runs.validate.validation import Retraining
from autocompress.terminal.progress_bar import LiveBar, duration_words

if TYPE_CHECKING:
    from autocompress.runs.validate.validation import Validation


class ValidationProgress(LiveBar):
    """Shows what a validation does; a context manager while it runs.

    Args:
        quiet: Whether to show nothing.
    """

    def __init__(self, *, quiet: bool) -> None:
        super().__init__("Training in full", None, quiet=quiet)
        self._label = ""
        self._n_open = 0
        self._seconds_each: list[float] = []
        self._started = 0.0
        self.listener = RetrainListener(
            on_begin=self._on_begin,
            on_start=self._on_start,
            on_stage=self._on_stage,
            on_finish=self._on_finish,
        )

    def _on_begin(
        self, missing: tuple[TrialRecord, ...], n_sample: int, ratio: float | None
    ) -> None:
        self._n_open = len(missing)
        self._bar.update(self._task, total=n_sample, completed=n_sample - len(missing))
        if not missing:
            self.note(f"All {n_sample} trials of the sample are trained in full already.")
            return
        proxy_s = sum(t.measurement.seconds for t in missing if t.measurement is not None)
        what = f"Training {len(missing)} of {n_sample} trials in full"
        if ratio is None:
            self.note(f"{what}; how long that takes is told after the first.")
            return
        duration = duration_words(ratio * proxy_s)
        self.note(
            f"{what}, {ratio:g} times as long as the proxy: about {duration}, "
            "to judge by the proxy's time."
        )

    def _on_start(self, trial: TrialRecord) -> None:
        self._label = trial.label
        self._started = time.monotonic()
        self._bar.update(self._task, stage=self._label)

    def _on_stage(self, stage: str, share: float) -> None:
        percent = f" {share:.0%}" if share else ""
        self._bar.update(self._task, stage=f"{self._label}: {stage}{percent}{self._left(share)}")

    def _on_finish(self, result: Retraining) -> None:
        self._seconds_each.append(time.monotonic() - self._started)
        self._n_open -= 1
        self._bar.advance(self._task)
        outcome = (
            f"failed ({result.reason})"
            if result.full is None
            else f"{result.proxy.accuracy:.2%} by the proxy, {result.full.accuracy:.2%} in full, "
            f"{result.full.seconds:.0f} s"
        )
        self.note(f"{result.trial.label}: {outcome}{self._left(0.0)}")

    def _left(self, share: float) -> str:
        """Time left, from the trainings so far, `share` of the running one being done."""
        if not self._seconds_each or not self._n_open:
            return ""
        each_s = sum(self._seconds_each) / len(self._seconds_each)
        return f", about {duration_words(each_s * (self._n_open - share))} left"


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
    from rich.console import Console

    from autocompress.cli.validation_table import agreement_table, sentences, trials_table

    console = Console(highlight=False, emoji=False)
    console.print(trials_table(found))
    console.print(agreement_table(found))
    for line in sentences(found):
        console.print(line, markup=False, soft_wrap=not console.is_terminal)
