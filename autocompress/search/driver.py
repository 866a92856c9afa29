"""The search: propose, evaluate, tell, until a stop rule ends it."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Set
from pathlib import Path
from typing import Self

from autocompress.errors import AllTrialsFailedError, TrialError, unknown_name
from autocompress.evaluate.dominance import HopelessError
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.search.executors.job import EvaluationJob, Executor, OnStage, Outcome
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
        on_stage: Called with the number of a running trial, its stage and the share of it that is
            done.
        on_finish: Called with each finished trial and the run so far.
        on_end: Called once, with why the search ended, unless an error ended it.
    """

    on_start: Callable[[int, str], None] = lambda number, label: None
    on_stage: OnStage = lambda number, stage, share: None
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
    same plan and seed; one in which the driver was killed twice is given up as failed. Limits and
    fidelity are the study's. As many trials are under way as the executor has slots; a proposal
    knows which they are, but not what becomes of them.

    Args:
        study: Opened study.
        executor: Evaluates candidates; closed if it is left in the middle of one.
        budget: Finished trials the study shall hold, baseline and controls included, >= 1.
        sampler: Name in `sampler.SAMPLERS`.
        run_seed: Seed of the run.
        until_stalled: So many searched trials without a better front end the search; None for no
            such rule. A stalled study stays so: it takes another rule to go on.
        timeout_s: Seconds after which no trial is started, and those under way are left to
            the next session if the executor can; None for no such rule.
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
    waiting = study.interrupted()
    trials = _Trials(
        study,
        RetryingExecutor(executor),
        listener,
        run_seed=run_seed,
        has_ladder="ladder" not in without,
    )
    strategy = Strategy(
        study,
        trials.executor,
        sampler=sampler,
        run_seed=run_seed,
        without=without,
        measure_table=measure_table,
        n_shortlisted=n_shortlisted,
    )
    with trials:
        while True:
            ending = rules.ending(trials.run, clock() - began)
            if ending is None and trials.has_room(budget):
                if not waiting and strategy.prepare():
                    continue
                job = study.begin_again(waiting.pop(0)) if waiting else strategy.next_job()
                if job is not None:
                    trials.start(job)
                    continue
                if not trials.running:
                    ending = "exhausted"
            if not trials.running:
                break
            if not trials.finish_one(rules.left_s(clock() - began)):
                ending = "timeout"
                break
    assert ending is not None
    listener.on_end(ending)
    return trials.run


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


class _Trials:
    """The trials under way; a context manager that leaves none at work behind.

    Args:
        study: Opened study.
        executor: Evaluates candidates.
        listener: Told about progress.
        run_seed: Seed of the run.
        has_ladder: Whether what has no chance is not tuned.

    Attributes:
        run: The run so far.
        running: Number -> trial under way.

    Raises:
        AllTrialsFailedError: If the baseline has failed in an earlier session.
    """

    def __init__(
        self,
        study: Study,
        executor: Executor,
        listener: Listener,
        *,
        run_seed: int,
        has_ladder: bool,
    ) -> None:
        self.executor = executor
        self.run = study.record()
        self.running: dict[int, Job] = {}
        self._study = study
        self._listener = listener
        self._run_seed = run_seed
        self._has_ladder = has_ladder
        self._failures: list[str] = []
        _check_baseline(self.run)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Leave what runs: the next session begins it again."""
        if self.running:
            self.executor.close()

    def has_room(self, budget: int) -> bool:
        """Whether another trial fits beside those that run, and into the budget."""
        n_started = self.run.n_finished + len(self.running)
        return len(self.running) < self.executor.n_slots and n_started < budget

    def start(self, job: Job) -> None:
        """Start a trial, unless it has brought the search down too often."""
        self._listener.on_start(job.number, job.label)
        if job.attempts > _MAX_ATTEMPTS:
            died = f"interrupted: the search died {_MAX_ATTEMPTS} times during this trial"
            self._study.fail(job, died)
            self._count(job, "interrupted")
            return
        self.running[job.number] = job
        self.executor.submit(job.number, self._evaluation(job))

    def finish_one(self, timeout_s: float | None) -> bool:
        """Wait for a trial to end and write its result; False if none has in time.

        Raises:
            AllTrialsFailedError: If the baseline failed, or trial after trial for the same reason.
        """
        outcome = self.executor.wait(self._listener.on_stage, timeout_s)
        if outcome is None:
            return False
        job = self.running[outcome.number]
        reason = self._write(job, outcome)
        del self.running[outcome.number]
        self._count(job, reason)
        return True

    def _evaluation(self, job: Job) -> EvaluationJob:
        """What an executor needs; rivals for what the search proposed and tunes."""
        run = self._study.record()
        is_searched = run.trials[job.number].role == "search"
        is_screened = self._has_ladder and job.fidelity > 0 and is_searched
        return EvaluationJob(
            plan=self._study.space.decode(job.levels),
            seed=trial_seed(self._run_seed, job.number),
            fidelity=job.fidelity,
            keep=weights_path(self._study.folder, job.number),
            rivals=rivals_of(run, job.number) if is_screened else None,
        )

    def _write(self, job: Job, outcome: Outcome) -> str | None:
        """Write a result; returns the reason if the trial failed."""
        try:
            self._study.complete(job, outcome.measurement())
        except HopelessError as error:
            self._study.stop(job, error.message, error.figures)
        except TrialError as error:
            self._study.fail(job, f"{error.reason}: {error.message}")
            return error.reason
        return None

    def _count(self, job: Job, reason: str | None) -> None:
        """Take note of a finished trial, and raise if it shows that no other will succeed."""
        self.run = self._study.record()
        trial = self.run.trials[job.number]
        if reason is not None:
            self._failures.append(reason)
        elif trial.state == "complete":  # one that was stopped proves nothing
            self._failures.clear()
        _drop_weights(self.run)
        self._listener.on_finish(trial, self.run)
        _check_baseline(self.run)
        recent = self._failures[-_MAX_EQUAL_FAILURES:]
        if len(recent) == _MAX_EQUAL_FAILURES and len(set(recent)) == 1:
            raise AllTrialsFailedError(
                f"{_MAX_EQUAL_FAILURES} trials in a row failed; the last one: {trial.reason}",
                "Fix the cause and repeat the command: it continues with the next trial.",
            )


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
