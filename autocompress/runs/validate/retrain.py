"""Re-train a sample of a run's trials in full, one by one, and keep every result.

Reads the study and never writes it; results go to `validation.json` in the run folder.
"""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from autocompress.environment import processor_name
from autocompress.errors import InputError, TrialError
from autocompress.evaluate.evaluator import Evaluator
from autocompress.executors.inline import attempted
from autocompress.measurement import Measurement
from autocompress.plan import CompressionPlan
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.runs.validate.validation import (
    LEAST_CANDIDATES,
    Retraining,
    Validation,
    rank_measurements,
)
from autocompress.samplers.propose import derive_seed
from autocompress.study.result_files import validation_file
from autocompress.study.session import reopen


def validatable(run: RunRecord) -> tuple[TrialRecord, ...]:
    """Trials that the proxy judged: of the run's fidelity, and not the original model."""
    return tuple(
        trial
        for trial in run.comparable
        if trial.role != "baseline" and trial.plan.effective != CompressionPlan()
    )


def spread_sample(
    trials: Sequence[TrialRecord], n: int, *, front: Collection[int] = ()
) -> tuple[TrialRecord, ...]:
    """Choose trials from the worst to the best, evenly over their places in the proxy's ranking.

    The worst and the best come first, then members of the front (no more than half the sample,
    evenly spaced among themselves, or there would be no spread), then what fills the widest gaps
    best. Nothing is drawn by chance: equal trials give equal samples.

    Args:
        trials: Complete trials, sorted by accuracy and, where that is equal, by divergence.
        n: Size of the sample, >= 3; all trials if there are no more.
        front: Numbers of the front's members.

    Returns:
        The sample, in order of trial numbers.
    """
    assert n >= 3, n
    ranks = rank_measurements([t.measurement for t in trials if t.measurement is not None])
    order = sorted(zip(ranks, trials, strict=True), key=lambda pair: (pair[0], -pair[1].number))
    if n >= len(order):
        places = list(range(len(order)))
    else:
        members = [i for i, (_, trial) in enumerate(order) if trial.number in front]
        first = {0, len(order) - 1, *_evenly(members, n // 2)}
        places = _fill_gaps(sorted(first), n)
    return tuple(sorted((order[i][1] for i in places), key=lambda trial: trial.number))


def _evenly(places: list[int], n: int) -> list[int]:
    if len(places) <= n:
        return places
    return [places[round(i * (len(places) - 1) / max(n - 1, 1))] for i in range(n)]


def _fill_gaps(places: list[int], n: int) -> list[int]:
    """Add places between the first and the last, each where it shortens the widest step."""
    gaps = [(low, high, 0) for low, high in itertools.pairwise(places)]
    for _ in range(n - len(places)):
        free = [i for i, (low, high, n_inside) in enumerate(gaps) if high - low - 1 > n_inside]
        widest = max(free, key=lambda i: ((gaps[i][1] - gaps[i][0]) / (gaps[i][2] + 1), -i))
        low, high, n_inside = gaps[widest]
        gaps[widest] = (low, high, n_inside + 1)
    inside = [
        low + step * (high - low) // (n_inside + 1)
        for low, high, n_inside in gaps
        for step in range(1, n_inside + 1)
    ]
    return sorted([*places, *inside])


EPOCHS_FACTOR: Final = 20.0
"""Full training is so many times as long as the proxy where nothing else is asked for."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RetrainListener:
    """What a validation tells whoever shows its progress.

    Attributes:
        on_begin: Called once with the trials that are not trained in full yet, the size of the
            sample, and the epochs of full training over the proxy's (None if that trains nothing).
        on_start: Called with each trial before it is trained.
        on_stage: Called with the stage of the running trial and the share of it that is done.
        on_finish: Called with each result.
    """

    on_begin: Callable[[tuple[TrialRecord, ...], int, float | None], None] = (
        lambda missing, n_sample, ratio: None
    )
    on_start: Callable[[TrialRecord], None] = lambda trial: None
    on_stage: Callable[[str, float], None] = lambda stage, share: None
    on_finish: Callable[[Retraining], None] = lambda result: None


def validate_run(
    run: RunRecord,
    *,
    n_sample: int = 24,
    epochs: float | None = None,
    seed: int = 0,
    listener: RetrainListener | None = None,
) -> Validation:
    """Re-train a spread sample of a run's trials in full and compare.

    Each starts again from the base model, with the run's recipe but more epochs, and with batches
    and augmentation of its own, so that the proxy's luck is not repeated. Each result is written
    at once: a validation that was stopped goes on where it was.

    Args:
        run: The run; its task is loaded again and must be unchanged.
        n_sample: Size of the sample; see `spread_sample`.
        epochs: Epochs of full training; 20 times the recipe's if None.
        seed: What batches and augmentation are derived from.
        listener: Told about progress.

    Raises:
        InputError: If the sample or the epochs are too small, the run has too few trials,
            or its `validation.json` is damaged or cannot be written.
        StudyMismatchError: If the task's model or data have changed since.
        RunLockedError: If another process validates this run.
    """
    trials = validatable(run)
    recipe_epochs = float(run.info["recipe"]["epochs"])
    proxy_epochs = recipe_epochs if run.fidelity > 0 else 0.0
    epochs = EPOCHS_FACTOR * recipe_epochs if epochs is None else epochs
    _check(run, n_trials=len(trials), n_sample=n_sample, epochs=epochs, proxy_epochs=proxy_epochs)
    sample = spread_sample(trials, n_sample, front={t.number for t in run.front()})
    with validation_file(run.folder).locked():
        entries = _train_missing(run, sample, epochs, seed, listener or RetrainListener())
    return Validation(
        run=run.name,
        n_candidates=len(trials),
        proxy_epochs=proxy_epochs,
        epochs=epochs,
        seed=seed,
        retrainings=tuple(_retraining(run, trial, entries[trial.number]) for trial in sample),
    )


def _train_missing(
    run: RunRecord,
    sample: tuple[TrialRecord, ...],
    epochs: float,
    seed: int,
    listener: RetrainListener,
) -> dict[int, dict[str, Any]]:
    """Results of a sample by trial number; what is not there yet is trained and written."""
    file = validation_file(run.folder)
    known = file.read()
    keys = {trial.number: _key(run, trial, epochs, seed) for trial in sample}
    missing = tuple(trial for trial in sample if keys[trial.number] not in known)
    ratio = epochs / float(run.info["recipe"]["epochs"]) if run.fidelity > 0 else None
    listener.on_begin(missing, len(sample), ratio)
    evaluator = _full_evaluator(run, epochs) if missing else None
    for trial in missing:
        assert evaluator is not None
        listener.on_start(trial)
        key = keys[trial.number]
        known[key] = {
            "key": key,
            "trial": trial.number,
            "plan_digest": trial.plan.digest,
            "epochs": epochs,
            "seed": seed,
            "processor": processor_name(),
            **_train(evaluator, trial, seed, listener),
        }
        file.write(known)
        listener.on_finish(_retraining(run, trial, known[key]))
    return {number: known[key] for number, key in keys.items()}


def _check(
    run: RunRecord, *, n_trials: int, n_sample: int, epochs: float, proxy_epochs: float
) -> None:
    if n_sample < LEAST_CANDIDATES:
        raise InputError(f"`sample` must be at least {LEAST_CANDIDATES}, but got {n_sample}.")
    if not max(proxy_epochs, 1e-9) <= epochs < float("inf"):
        least = f"at least the proxy's {proxy_epochs:g}" if proxy_epochs else "positive"
        raise InputError(
            f"`epochs` must be {least}, but got {epochs:g}.",
            f"The default is {EPOCHS_FACTOR:g} times the recipe's.",
        )
    if n_trials < LEAST_CANDIDATES:
        raise InputError(
            f"Run {run.name!r} must have at least {LEAST_CANDIDATES} measured trials besides "
            f"the baseline to compare rankings, but has {n_trials}.",
            "Continue its search with a larger `budget`.",
        )


def _full_evaluator(run: RunRecord, epochs: float) -> Evaluator:
    """The run's evaluator with more epochs; the latency of a plan does not depend on them."""
    prepared, proxy = reopen(run)
    settings = dataclasses.replace(proxy.settings, proxy_epochs=epochs, has_latency=False)
    return Evaluator(prepared, settings)


def _train(
    evaluator: Evaluator, trial: TrialRecord, seed: int, listener: RetrainListener
) -> dict[str, Any]:
    """Measurement of a trial after full training, or the reason why there is none."""
    try:
        measurement = attempted(
            lambda: evaluator.evaluate(
                trial.plan,
                seed=derive_seed(seed, "validate", trial.number),
                fidelity=2,
                on_stage=listener.on_stage,
            )
        )
    except TrialError as error:
        return {"measurement": None, "reason": f"{error.reason}: {error.message}"}
    return {"measurement": measurement.to_json(), "reason": None}


def _key(run: RunRecord, trial: TrialRecord, epochs: float, seed: int) -> str:
    """Equal for re-trainings that give the same result."""
    parts = {
        "model": run.info["model"],
        "data": run.info["data"],
        "settings": run.info["settings"],
        "recipe": {**run.info["recipe"], "epochs": epochs},
        "seed": seed,
        "trial": trial.number,
        "plan": trial.plan.digest,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _retraining(run: RunRecord, trial: TrialRecord, entry: Mapping[str, Any]) -> Retraining:
    full = entry["measurement"]
    return Retraining(
        trial=trial,
        full=None if full is None else Measurement.from_json(full),
        reason=entry["reason"],
        is_same_machine=entry["processor"] == run.info["machine"]["processor"],
    )
