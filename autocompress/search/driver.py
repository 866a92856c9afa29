"""The search: propose, evaluate, tell, until a stop rule ends it."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Set
from pathlib import Path

from autocompress.errors import AllTrialsFailedError, TrialError, unknown_name
from autocompress.evaluate.dominance import HopelessError
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.search.executors.job import EvaluationJob, Executor
from autocompress.search.executors.retrying import RetryingExecutor
from autocompress.search.pending import Job
from autocompress.search.rivals import rivals_of
from autocompress.search.sampler import check_sampler, derive_seed
from autocompress.search.stop_rules import Ending, StopRules
from autocompress.search.strategy import MeasureTable, Strategy
from autocompress.search.study import Study

PARTS = ("table", "seeds", "surrogate", "ladder")
"""Parts of the search that can be left out, to see what they are worth."""

_MAX_EQUAL_FAILURES = 5
_MAX_ATTEMPTS = 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """What a search tells whoever shows its progress.

    Attributes:
        on_start: Called with a trial's number and label before it is evaluated.
        on_stage: Called with the stage of the running trial and the share of it that is done.
        on_finish: Called with each finished trial and the run so far.
        on_end: Called once, with why the search ended, unless an error ended it.
    """

    on_start: Callable[[int, str], None] = lambda number, label: None
    on_stage: Callable[[str, float], None] = lambda stage, share: None
    on_finish: Callable[[TrialRecord, RunRecord], None] = lambda trial, run: None
    on_end: Callable[[Ending], None] = lambda ending: None


def run_search(
    study: Study,
    executor: Executor,
    *,
    budget: int,
    sampler: str,
    run_seed: int,
    until_stalled: int | None = None,
    timeout_s: float | None = None,
    without: Set[str] = frozenset(),
    measure_table: MeasureTable | None = None,
    n_shortlisted: int = 4,
    listener: Listener | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> RunRecord:
    """Evaluate trials until the study holds `budget` finished ones, or another rule ends it.

    Continues where an earlier session ended: trials it left running are evaluated again, with the
    same plan and seed; one that is interrupted twice is given up as failed. Limits and fidelity are
    the study's.

    Args:
        study: Opened study.
        executor: Evaluates candidates.
        budget: Finished trials the study shall hold, baseline and controls included, >= 1.
        sampler: Name in `sampler.SAMPLERS`.
        run_seed: Seed of the run.
        until_stalled: So many searched trials without a better front end the search; None for no
            such rule. A stalled study stays so: it takes another rule to go on.
        timeout_s: Seconds after which no further trial is started; None for no such rule.
        without: Names in `PARTS` of what to leave out. Proposals and outcomes depend on it: it
            belongs into the study's identity.
        measure_table: Measures the option table with the probe it is given, once the baseline is
            measured and if anything needs it; None to do without.
        n_shortlisted: Plans that the guided sampler looks at at once before one is tuned, >= 1.
        listener: Told about progress.
        clock: Seconds since whenever.

    Returns:
        The run as it is now.

    Raises:
        InputError: If an argument is out of range or a name unknown.
        AllTrialsFailedError: If the baseline fails, or trial after trial for the same reason.
    """
    check_sampler(sampler)
    check_parts(without)
    rules = StopRules(budget=budget, until_stalled=until_stalled, timeout_s=timeout_s)
    listener, began = listener or Listener(), clock()
    executor = RetryingExecutor(executor)
    failures: list[str] = []
    waiting = study.interrupted()
    run = study.record()
    _check_baseline(run)
    strategy = Strategy(
        study,
        executor,
        sampler=sampler,
        run_seed=run_seed,
        without=without,
        measure_table=measure_table,
        n_shortlisted=n_shortlisted,
    )
    while (ending := rules.ending(run, clock() - began)) is None:
        if not waiting and strategy.prepare():
            continue
        job = waiting.pop(0) if waiting else strategy.next_job()
        if job is None:
            ending = "exhausted"
            break
        listener.on_start(job.number, job.label)
        evaluation = _evaluation(study, job, run_seed, has_ladder="ladder" not in without)
        reason = _evaluate(study, executor, job, evaluation, listener)
        run = study.record()
        if reason is not None:
            failures.append(reason)
        elif run.trials[job.number].state == "complete":  # one that was stopped proves nothing
            failures.clear()
        _drop_weights(run)
        listener.on_finish(run.trials[job.number], run)
        _stop_if_hopeless(run, job, failures)
    listener.on_end(ending)
    return run


def check_parts(names: Set[str]) -> None:
    """Raise an InputError unless all names are in `PARTS`."""
    for name in sorted(names):
        if name not in PARTS:
            raise unknown_name("part of the search", name, PARTS)


def weights_path(folder: Path, number: int) -> Path:
    """Where a trial's tuned weights are kept while it is on the front."""
    return folder / "candidates" / f"trial_{number:05d}.safetensors"


def trial_seed(run_seed: int, number: int) -> int:
    """Seed of everything random in a trial: the same in a resumed run as in an unbroken one."""
    return derive_seed(run_seed, "trial", number)


def _evaluation(study: Study, job: Job, run_seed: int, *, has_ladder: bool) -> EvaluationJob:
    """What an executor needs for a trial; rivals for those that the search proposed and tunes."""
    run = study.record()
    is_screened = has_ladder and job.fidelity > 0 and run.trials[job.number].role == "search"
    return EvaluationJob(
        plan=study.space.decode(job.levels),
        seed=trial_seed(run_seed, job.number),
        fidelity=job.fidelity,
        keep=weights_path(study.folder, job.number),
        rivals=rivals_of(run, job.number) if is_screened else None,
    )


def _evaluate(
    study: Study, executor: Executor, job: Job, evaluation: EvaluationJob, listener: Listener
) -> str | None:
    """Evaluate a trial and write its result; returns the reason if it failed."""
    if job.attempts > _MAX_ATTEMPTS:
        study.fail(job, f"interrupted: the search died {_MAX_ATTEMPTS} times during this trial")
        return "interrupted"
    try:
        study.complete(job, executor.run(evaluation, listener.on_stage))
    except HopelessError as error:
        study.stop(job, error.message, error.figures)
        return None
    except TrialError as error:
        study.fail(job, f"{error.reason}: {error.message}")
        return error.reason
    except (KeyboardInterrupt, SystemExit, Exception):  # whatever it was, it was not the trial
        study.give_back(job)
        raise
    return None


def _drop_weights(run: RunRecord) -> None:
    """Delete the weights of trials that are not on the front."""
    kept = {weights_path(run.folder, trial.number) for trial in run.front()}
    for path in (run.folder / "candidates").glob("trial_*.safetensors"):
        if path not in kept and path.stem.removeprefix("trial_").isdecimal():
            with contextlib.suppress(OSError):
                path.unlink()


def _check_baseline(run: RunRecord) -> None:
    if run.trials and run.trials[0].state == "failed":
        raise AllTrialsFailedError(
            f"The untouched model could not be measured: {run.trials[0].reason}",
            "Nothing can be compared without it: fix the cause and start anew with --run NAME.",
        )


def _stop_if_hopeless(run: RunRecord, job: Job, failures: list[str]) -> None:
    _check_baseline(run)
    trial = run.trials[job.number]
    recent = failures[-_MAX_EQUAL_FAILURES:]
    if len(recent) == _MAX_EQUAL_FAILURES and len(set(recent)) == 1:
        raise AllTrialsFailedError(
            f"{_MAX_EQUAL_FAILURES} trials in a row failed; the last one: {trial.reason}",
            "Fix the cause and repeat the command: it continues with the next trial.",
        )
