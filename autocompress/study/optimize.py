"""The search: propose, evaluate, tell, until a stop rule ends it."""

import time
from collections.abc import Callable, Set

from autocompress.errors import unknown_name
from autocompress.executors.job import Executor
from autocompress.executors.retrying import RetryingExecutor
from autocompress.run_record import RunRecord
from autocompress.samplers.propose import check_sampler
from autocompress.study.listener import Listener
from autocompress.study.running_trials import RunningTrials
from autocompress.study.stop_rules import StopRules
from autocompress.study.strategy import SearchMethod, Strategy
from autocompress.study.study import Study

PARTS = ("sensitivity_table", "initial_design", "surrogate", "early_stopping")
"""Parts of the search that can be left out, to see what they are worth."""

_POLL_S = 1.0
_LOOK_ROUND_S = 10.0


def run_search(
    study: Study,
    executor: Executor,
    method: SearchMethod,
    rules: StopRules,
    *,
    listener: Listener | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> RunRecord:
    """Evaluate trials until the study holds the budget of finished ones, or another rule ends it.

    Continues where an earlier session ended: trials it left running are evaluated again, with the
    same plan and seed; one in which the driver was killed twice is given up as failed. Limits and
    fidelity are the study's. As many trials are under way as the executor has slots; a proposal
    knows which they are, but not what becomes of them. Where several drivers share a study all stay
    until its budget is used up, and take over what one that dies has left.

    Args:
        study: Opened study.
        executor: Evaluates candidates; closed if it is left in the middle of one.
        method: How plans are found.
        rules: What ends the search. A stalled study stays so: it takes another rule to go on. When
            time is up, running trials are left to the next session if the executor can.
        listener: Told about progress.
        clock: Seconds since whenever.

    Returns:
        The run as it is now.

    Raises:
        InputError: If an argument is out of range or a name unknown.
        AllTrialsFailedError: If the baseline fails, or trial after trial for the same reason.
    """
    check_sampler(method.sampler)
    check_parts(method.without)
    listener, began = listener or Listener(), clock()
    waiting = study.interrupted()
    trials = RunningTrials(
        study,
        RetryingExecutor(executor),
        listener,
        run_seed=method.run_seed,
        is_stopping_early="early_stopping" not in method.without,
    )
    strategy = Strategy(study, trials.executor, method)
    with trials:
        while True:
            if study.is_shared:
                waiting = study.interrupted()
                trials.refresh()
            ending = rules.ending(trials.run, clock() - began)
            if ending is None and trials.has_room(rules.budget, len(waiting)):
                if not waiting and strategy.prepare():
                    if strategy.is_waiting:
                        listener.on_wait(0)
                    continue
                job = (
                    study.begin_again(waiting.pop(0))
                    if waiting
                    else strategy.next_job(rules.budget)
                )
                if job is not None:
                    trials.start(job)
                    continue
            if trials.running:
                left_s = rules.left_s(clock() - began)
                patience = _patience(left_s, study)
                if trials.finish_one(patience) or patience != left_s:
                    continue
                ending = "timeout"
                break
            elsewhere = study.running_elsewhere()
            if ending is None and study.is_shared and (elsewhere or trials.has_moved()):
                if not trials.has_moved():
                    listener.on_wait(len(elsewhere))
                    time.sleep(_POLL_S)
                continue
            ending = ending or "exhausted"
            break
    assert ending is not None
    listener.on_end(ending)
    return trials.run


def _patience(left_s: float | None, study: Study) -> float | None:
    """Seconds to wait for a trial before looking round; None for as long as it takes."""
    if not study.is_shared:
        return left_s
    return _LOOK_ROUND_S if left_s is None else min(left_s, _LOOK_ROUND_S)


def check_parts(names: Set[str]) -> None:
    """Raise an InputError unless all names are in `PARTS`."""
    for name in sorted(names):
        if name not in PARTS:
            raise unknown_name("part of the search", name, PARTS)
