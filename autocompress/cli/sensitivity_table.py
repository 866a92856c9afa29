"""The sensitivity table in words, tables and JSON."""

import dataclasses
import math
import time
from collections.abc import Iterator
from typing import Any

from rich import box
from rich.table import Table

from autocompress.errors import one_line
from autocompress.evaluate.additivity import (
    PredictionError,
    WholePlan,
    additivity,
    prediction_errors,
)
from autocompress.evaluate.sensitivity import measure_levels
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.executors.local import LocalExecutor
from autocompress.executors.worker import WorkerSpec
from autocompress.samplers.initial_design import initial_trials
from autocompress.space.prediction import Predictor
from autocompress.space.rules import SpaceRules
from autocompress.space.search_space import Knob
from autocompress.space.sensitivity_table import Figures, MeasuredLevel, score_reliability
from autocompress.study.session import Session, open_session, probe_with, sensitivity_cache
from autocompress.tasks.factory import load_task
from autocompress.tasks.fingerprint import model_fingerprint
from autocompress.terminal.printing import echo_line, make_console
from autocompress.terminal.progress_bar import LiveBar

_SECONDS_BETWEEN_LINES = 10.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sensitivity:
    """What was measured.

    Attributes:
        session: Task, evaluator and space.
        predictor: What the sensitivity table says; holds the table.
        wholes: The controls, beside what the table predicts for them.
    """

    session: Session
    predictor: Predictor
    wholes: tuple[WholePlan, ...]


def measure_sensitivity(
    task: str,
    arguments: dict[str, str],
    rules: SpaceRules,
    *,
    timeout_s: float,
    **settings: Any,
) -> Sensitivity:
    """Measure the sensitivity table and the controls in a worker, with progress on stderr.

    Args:
        task: The task's spec.
        arguments: Arguments of its factory.
        rules: The search space's.
        timeout_s: Seconds one level may take.
        settings: Fields of `EvaluationSettings`.

    Raises:
        InputError: If the task, the space or a setting cannot be used.
        TrialError: If the original model cannot be measured.
    """
    wanted = EvaluationSettings(**settings)
    progress = SensitivityProgress()
    progress.note(f"Loading task {task}")
    session = open_session(load_task(task, arguments), rules, wanted)
    space_found, evaluator = session.built.space, session.evaluator
    model = model_fingerprint(evaluator.model)
    spec = WorkerSpec(task=task, arguments=arguments, settings=evaluator.settings, model=model)
    worker = LocalExecutor(spec, timeout_s)
    probe = probe_with(worker, has_latency=wanted.has_latency)
    cache = sensitivity_cache(session, has_latency=wanted.has_latency)
    try:
        with progress:
            table = measure_levels(
                space_found,
                probe,
                cache,
                on_progress=progress.tell,
            )
            predictor = Predictor(space_found, table)
            progress.note("Measuring the controls, whole plans to hold the table against")
            controls = [seed for seed in initial_trials(space_found) if seed.role == "control"]
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
            self._bar.console.print(one_line(text), highlight=False, soft_wrap=True)
        else:
            echo_line(text, err=True)

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


def sensitivity_json(found: Sensitivity) -> dict[str, Any]:
    """Everything that was measured, as plain containers.

    Returns:
        `table` (see `SensitivityTable.to_json`), `live_levels` (knob -> indices of the levels worth
        proposing), `reliability` (see `score_reliability`) and `additivity`: each whole plan with
        its prediction, and how far off these are.
    """
    predictor = found.predictor
    live = zip(predictor.space.knobs, predictor.live_levels(), strict=True)
    return {
        "table": predictor.table.to_json(),
        "live_levels": {knob.name: list(levels) for knob, levels in live},
        "reliability": score_reliability(predictor.space, predictor.table),
        "additivity": {
            "plans": [
                {
                    **dataclasses.asdict(whole),
                    "figures": whole.figures and whole.figures.to_json(),
                }
                for whole in found.wholes
            ],
            "errors": {
                name: dataclasses.asdict(error)
                for name, error in prediction_errors(found.wholes).items()
            },
        },
    }


def print_sensitivity(found: Sensitivity) -> None:
    """Print a row per level, the controls beside their predictions, and how far off these are."""
    console = make_console(highlight=False)
    table = found.predictor.table
    assert table.baseline.size_bytes is not None
    console.print(
        f"Untouched: {table.baseline.size_bytes:,} bytes packed. Of each level alone: divergence "
        "from the model before any training, in nats; bytes of the file; "
        "latency over the model's. What another level beats is dropped.\n"
    )
    for kind in dict.fromkeys(knob.kind for knob in found.predictor.space.knobs):
        console.print(_levels_table(found, kind))
    for option in table.options:
        if option.reason is not None:
            failed = f"Failed: {option.knob} = {_value(found, option)}: {option.reason}"
            console.print(failed, soft_wrap=True)
    if found.wholes:
        console.print(_wholes_table(found))
    for line in _error_lines(found):
        console.print(line, soft_wrap=True)
    reliability = score_reliability(found.predictor.space, table)
    if reliability is not None:
        console.print(
            f"Divergences repeat with a reliability of {reliability:.2f} between levels of equal "
            "strength (split halves of the examples; 1 is exact, 0 is chance)",
            soft_wrap=True,
        )
    n_live = sum(len(levels) - 1 for levels in found.predictor.live_levels())
    console.print(
        f"{n_live} of {len(table.options)} levels are worth searching; "
        f"measuring them took {table.seconds:.0f} s"
    )


def _levels_table(found: Sensitivity, kind: str) -> Table:
    """A row per level of all knobs of a kind, each knob named once."""
    predictor, has_latency = found.predictor, found.predictor.has_latency
    latency = ("latency",) if has_latency else ()
    table = _table(kind, "knob", "level", "divergence", "bytes", "change", *latency, "")
    options = {(option.knob, option.level): option for option in predictor.table.options}
    for knob, live in zip(predictor.space.knobs, predictor.live_levels(), strict=True):
        if knob.kind != kind:
            continue
        label = knob.label
        before = context = predictor.table.contexts.get(knob.name)
        if context is not None:
            cells = _figures(context, predictor.table.baseline, has_latency)
            table.add_row(label, _level(knob, 0), *cells, "in context")
            label = ""
        for level in range(1, len(knob.levels)):
            option = options[knob.name, level]
            cells = _figures(option.figures, before or predictor.table.baseline, has_latency)
            table.add_row(label, _level(knob, level), *cells, _note(option, is_live=level in live))
            label = ""
    return table


def _note(option: MeasuredLevel, *, is_live: bool) -> str:
    if option.figures is None:
        return "failed"
    words = ["estimated"] * option.is_estimated + ["dropped"] * (not is_live)
    return ", ".join(words)


def _figures(figures: Figures | None, before: Figures, has_latency: bool) -> Iterator[str]:
    """Divergence, bytes, their change against what the level was measured in, and latency."""
    if figures is None:
        yield from [""] * (3 + has_latency)
        return
    assert figures.size_bytes is not None
    assert before.size_bytes is not None
    yield f"{figures.divergence:.2g}"
    yield f"{figures.size_bytes:,}"
    yield f"{100 * (figures.size_bytes / before.size_bytes - 1):+.1f} %"
    if has_latency:
        yield f"{figures.latency_ratio:.3f} x"


def _wholes_table(found: Sensitivity) -> Table:
    has_latency = found.predictor.has_latency
    table = _table(
        "Whole plans: predicted from their levels / measured",
        *("plan", "divergence", "bytes"),
        *(("latency",) if has_latency else ()),
    )
    for whole in found.wholes:
        table.add_row(whole.label, *_whole_cells(whole, has_latency))
    return table


def _whole_cells(whole: WholePlan, has_latency: bool) -> Iterator[str]:
    figures = whole.figures
    if figures is None:
        yield f"failed ({whole.reason})"
        return
    yield f"{whole.est_divergence:.2g} / {figures.divergence:.2g}"
    yield f"{whole.est_size_bytes:,.0f} / {figures.size_bytes:,}"
    if has_latency:
        yield f"{whole.est_latency_ratio:.3f} x / {figures.latency_ratio:.3f} x"


def _error_lines(found: Sensitivity) -> Iterator[str]:
    errors = prediction_errors(found.wholes)
    for name, what in (("size", "bytes"), ("latency", "latency")):
        if name in errors:
            error = errors[name]
            yield (
                f"Predicted {what}: off by {100 * error.median:.1f} % in the median, "
                f"{100 * error.worst:.1f} % at worst, over {_plans(error)}"
            )
    if "log_divergence" in errors:
        error = errors["log_divergence"]
        yield (
            f"Predicted divergence: off by a factor of {math.exp(error.median):.2f} in the median, "
            f"{math.exp(error.worst):.2f} at worst, over {_plans(error)}"
        )


def _plans(error: PredictionError) -> str:
    return "1 plan" if error.n_plans == 1 else f"{error.n_plans} plans"


def _value(found: Sensitivity, option: MeasuredLevel) -> str:
    knobs = {knob.name: knob for knob in found.predictor.space.knobs}
    return _level(knobs[option.knob], option.level)


def _level(knob: Knob, level: int) -> str:
    value = knob.levels[level]
    return value or "-" if isinstance(value, str) else f"{value:g}"


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=title,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        pad_edge=False,
        padding=(0, 1),
    )
    for column in columns:
        is_text = column in ("knob", "plan", "")
        table.add_column(column, justify="left" if is_text else "right", overflow="fold")
    return table
