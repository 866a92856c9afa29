"""Measure the option table of a task for `autocompress analyze --sensitivity`."""

import dataclasses
import time
from typing import Any

import click

from autocompress.analysis.fingerprint import model_fingerprint
from autocompress.cli.live_bar import LiveBar
from autocompress.evaluate.additivity import WholePlan, additivity
from autocompress.evaluate.sensitivity import measure_options
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.search.executors.local import LocalExecutor
from autocompress.search.executors.worker import WorkerSpec
from autocompress.search.options import option_cache, probe_with
from autocompress.search.seeding import make_seeds
from autocompress.search.session import Session, open_session
from autocompress.space.prediction import Predictor
from autocompress.space.targets import Target
from autocompress.tasks.factory import load_task

_SECONDS_BETWEEN_LINES = 10.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sensitivity:
    """What was measured.

    Attributes:
        session: Task, evaluator and space.
        predictor: What the option table says; holds the table.
        wholes: The controls, beside what the table predicts for them.
    """

    session: Session
    predictor: Predictor
    wholes: tuple[WholePlan, ...]


def measure_sensitivity(
    task: str,
    arguments: dict[str, str],
    space: str,
    *,
    target: Target | None,
    timeout_s: float,
    **settings: Any,
) -> Sensitivity:
    """Measure the option table and the controls in a worker, with progress on stderr.

    Args:
        task: The task's spec.
        arguments: Arguments of its factory.
        space: Search-space file or name.
        target: What the device supports; None for everything.
        timeout_s: Seconds one level may take.
        settings: Fields of `EvaluationSettings`.

    Raises:
        InputError: If the task, the space or a setting cannot be used.
        TrialError: If the untouched model cannot be measured.
    """
    wanted = EvaluationSettings(**settings)
    progress = SensitivityProgress()
    progress.note(f"Loading task {task}")
    session = open_session(load_task(task, arguments), space, wanted, target)
    space_found, evaluator = session.built.space, session.evaluator
    model = model_fingerprint(evaluator.model)
    spec = WorkerSpec(task=task, arguments=arguments, settings=evaluator.settings, model=model)
    worker = LocalExecutor(spec, timeout_s)
    probe = probe_with(worker, has_latency=wanted.has_latency)
    cache = option_cache(session, has_latency=wanted.has_latency)
    try:
        with progress:
            table = measure_options(
                space_found,
                probe,
                cache,
                on_progress=progress.tell,
            )
            predictor = Predictor(space_found, table)
            progress.note("Measuring the controls, whole plans to hold the table against")
            controls = [seed for seed in make_seeds(space_found) if seed.role == "control"]
            plans = {seed.label: space_found.decode(seed.levels) for seed in controls}
            wholes = additivity(predictor, plans, probe, cache)
    except KeyboardInterrupt:
        progress.note("Stopped. Nothing is lost: the same command continues.")
        raise
    finally:
        worker.close()
    return Sensitivity(session=session, predictor=predictor, wholes=wholes)


class SensitivityProgress(LiveBar):
    """Shows how far a table is, on stderr: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        super().__init__("Measuring levels", None, quiet=False)
        self._n_before = 0
        self._started = self._said = 0.0

    def note(self, text: str) -> None:
        """Say something in passing."""
        if self._is_live:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(text, err=True)

    def tell(self, n_known: int, n_plans: int, label: str) -> None:
        """Take note of a plan that was measured; an empty label begins."""
        now = time.monotonic()
        if not label:
            self._n_before, self._said = n_known + 1, now
            known = f", {n_known} of them known already" if n_known else ""
            self.note(f"Measuring {n_plans} plans{known}")
        if n_known <= self._n_before:
            self._started = now
        left = self._left(n_known, n_plans, now - self._started)
        self._bar.update(self._task, total=n_plans, completed=n_known, stage=left)
        is_due = now - self._said >= _SECONDS_BETWEEN_LINES or n_known == n_plans
        if label and is_due and not self._is_live:
            self._said = now
            self.note(f"[{n_known}/{n_plans}] {label}{left and f', {left}'}")

    def _left(self, n_known: int, n_plans: int, seconds: float) -> str:
        """Time left, to judge by all plans but the first, before which the worker starts."""
        n_measured = n_known - self._n_before
        if n_measured < 1 or n_known == n_plans:
            return ""
        left_s = seconds / n_measured * (n_plans - n_known)
        return f"about {left_s / 60:.0f} min left" if left_s >= 60 else f"about {left_s:.0f} s left"
