"""The search: propose, evaluate, tell, until the budget is used."""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path

from autocompress.errors import AllTrialsFailedError, InputError, TrialError
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.search.executors.job import EvaluationJob, Executor
from autocompress.search.sampler import check_sampler, derive_seed, propose_levels
from autocompress.search.seeding import make_seeds
from autocompress.search.study import Job, Study

_MAX_EQUAL_FAILURES = 5
_MAX_ATTEMPTS = 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """What a search tells whoever shows its progress.

    Attributes:
        on_start: Called with a trial's number and label before it is evaluated.
        on_stage: Called with the stage of the running trial and the share of it that is done.
        on_finish: Called with each finished trial and the run so far.
    """

    on_start: Callable[[int, str], None] = lambda number, label: None
    on_stage: Callable[[str, float], None] = lambda stage, share: None
    on_finish: Callable[[TrialRecord, RunRecord], None] = lambda trial, run: None


def run_search(
    study: Study,
    executor: Executor,
    *,
    budget: int,
    sampler: str,
    run_seed: int,
    listener: Listener | None = None,
) -> RunRecord:
    """Evaluate trials until the study holds exactly `budget` finished ones.

    Continues where an earlier session ended: trials it left running are evaluated again, with the
    same plan and seed; one that is interrupted twice is given up as failed.

    Args:
        study: Opened study.
        executor: Evaluates candidates.
        budget: Finished trials the study shall hold, baseline and controls included, >= 1.
        sampler: Name in `sampler.SAMPLERS`.
        run_seed: Seed of the run.
        listener: Told about progress.

    Returns:
        The run as it is now; with fewer trials than `budget` only if the space is exhausted.

    Raises:
        InputError: If the budget is not positive or the sampler unknown.
        AllTrialsFailedError: If the baseline fails, or trial after trial for the same reason.
    """
    check_sampler(sampler)
    if budget < 1:
        raise InputError(f"`--budget` must be at least 1, but got {budget}.")
    listener = listener or Listener()
    failures: list[str] = []
    waiting = study.interrupted()
    _check_baseline(study.record())
    while study.n_finished() < budget:
        job = waiting.pop(0) if waiting else _next_job(study, sampler, run_seed)
        if job is None:
            break
        listener.on_start(job.number, job.label)
        reason = _evaluate(study, executor, job, run_seed, listener)
        failures = [*failures, reason] if reason else []
        run = study.record()
        _drop_weights(run)
        listener.on_finish(run.trials[job.number], run)
        _stop_if_hopeless(run, job, failures)
    return study.record()


def weights_path(folder: Path, number: int) -> Path:
    """Where a trial's tuned weights are kept while it is on the front."""
    return folder / "candidates" / f"trial_{number:05d}.safetensors"


def _next_job(study: Study, sampler: str, run_seed: int) -> Job | None:
    number = study.n_finished()
    seeds = make_seeds(study.space)
    if number < len(seeds):
        seed = seeds[number]
        return study.add(seed.levels, seed.role, seed.label, seed.fidelity)
    levels = propose_levels(
        study.space,
        sampler,
        study.directions,
        study.finished(),
        run_seed=run_seed,
        number=number,
        failed=study.failed(),
    )
    return None if levels is None else study.add(levels, "search", f"trial {number}", 1)


def _evaluate(
    study: Study, executor: Executor, job: Job, run_seed: int, listener: Listener
) -> str | None:
    """Evaluate a trial and write its result; returns the reason if it failed."""
    if job.attempts > _MAX_ATTEMPTS:
        study.fail(job, f"interrupted: the search died {_MAX_ATTEMPTS} times during this trial")
        return "interrupted"
    evaluation = EvaluationJob(
        plan=study.space.decode(job.levels),
        seed=trial_seed(run_seed, job.number),
        fidelity=job.fidelity,
        keep=weights_path(study.folder, job.number),
    )
    try:
        study.complete(job, executor.run(evaluation, listener.on_stage))
    except TrialError as error:
        study.fail(job, f"{error.reason}: {error.message}")
        return error.reason
    except (KeyboardInterrupt, SystemExit, Exception):  # whatever it was, it was not the trial
        study.give_back(job)
        raise
    return None


def trial_seed(run_seed: int, number: int) -> int:
    """Seed of everything random in a trial: the same in a resumed run as in an unbroken one."""
    return derive_seed(run_seed, "trial", number)


def _drop_weights(run: RunRecord) -> None:
    """Delete the weights of trials that are not on the front."""
    kept = {weights_path(run.folder, trial.number) for trial in run.front()}
    for path in (run.folder / "candidates").glob("*.safetensors"):
        if path not in kept:
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
