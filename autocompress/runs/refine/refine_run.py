"""Refine trials of a run, one by one, and keep every result.

Reads the study and never writes it; results go to `refinements.json`, weights to `refined/`.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from autocompress.errors import InputError, NoPointError, TrialError
from autocompress.evaluate.evaluator import Evaluator
from autocompress.executors.inline import attempted
from autocompress.measurement import Measurement
from autocompress.plan import CompressionPlan
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.runs.refine.training import Epoch, Refinement, refine
from autocompress.samplers.propose import derive_seed
from autocompress.study.result_files import (
    Results,
    refined_trials,
    refinement_path,
    refinements_file,
)
from autocompress.study.session import comparable, reopen
from autocompress.tasks.fingerprint import model_fingerprint
from autocompress.tasks.recipe_inputs import check_teachers_fit
from autocompress.train.features import find_taps
from autocompress.train.recipe import Recipe, check_recipe

_DEFAULT_EPOCHS = 30.0
_DEFAULT_FEATURES = "similarity"
_ENTROPY_STRENGTH = 0.3
# Of the loss of accuracy by the proxy; on a CIFAR-10 ResNet-20 two to three epochs brought 30, 65
# and 52 % back at rate penalties of 0.03, 0.055 and 0.1, one run each.
_REGAINED = 0.5
_OF_THE_BUILD = ("penalty", "penalty_strength", "prune_steps", "rewind", "rounding")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RefineListener:
    """What a refinement tells whoever shows its progress.

    Attributes:
        on_begin: Called once with the trials that are not refined yet, and those asked for.
        on_start: Called with each trial before it is refined.
        on_stage: Called with the stage of the running trial and the share of it that is done.
        on_epoch: Called after each epoch.
        on_finish: Called with each trial, its refined measurement, or the reason why there is none.
    """

    on_begin: Callable[[tuple[TrialRecord, ...], tuple[TrialRecord, ...]], None] = (
        lambda missing, wanted: None
    )
    on_start: Callable[[TrialRecord], None] = lambda trial: None
    on_stage: Callable[[str, float], None] = lambda stage, share: None
    on_epoch: Callable[[Epoch], None] = lambda epoch: None
    on_finish: Callable[[TrialRecord, Measurement | None, str | None], None] = (
        lambda trial, measurement, reason: None
    )


def choose_trials(run: RunRecord, *, numbers: tuple[int, ...], top: int) -> tuple[TrialRecord, ...]:
    """The trials that shall be refined.

    Args:
        run: The run.
        numbers: Of complete trials; front members or not.
        top: How many front members beside them: those that together will dominate most, found
            greedily; refining gives half of what they lost back. The original model is not one of
            them.

    Raises:
        InputError: If there is no such trial, or nothing to refine in it.
        NoPointError: If `top` is asked for and the front has no compressed point.
    """
    chosen = [_refinable(run, number) for number in dict.fromkeys(numbers)]
    left = [t for t in run.front() if not _is_untouched(t) and t.number not in numbers]
    if top and not left and not chosen:
        raise NoPointError(
            f"No compressed point of {run.name!r} is on the front.", "Search longer, or `trial=N`."
        )
    picked: list[TrialRecord] = []
    while left and len(picked) < top:
        best = max(left, key=lambda t: run.hypervolume(_as_refined(run, (*picked, t))))
        picked.append(best)
        left.remove(best)
    return (*chosen, *sorted(picked, key=lambda t: t.number))


def _as_refined(run: RunRecord, trials: tuple[TrialRecord, ...]) -> tuple[TrialRecord, ...]:
    """Trials as refining is expected to leave them."""
    assert run.baseline is not None
    assert run.baseline.measurement is not None
    base = run.baseline.measurement.accuracy
    expected = []
    for trial in trials:
        assert trial.measurement is not None
        lost = max(base - trial.measurement.accuracy, 0.0)
        accuracy = trial.measurement.accuracy + _REGAINED * lost
        measurement = dataclasses.replace(trial.measurement, accuracy=accuracy)
        expected.append(dataclasses.replace(trial, measurement=measurement))
    return tuple(expected)


def refine_run(
    run: RunRecord,
    trials: tuple[TrialRecord, ...],
    *,
    fields: Mapping[str, Any],
    patience: int = 10,
    minutes: float | None = None,
    teacher: nn.Module | None = None,
    seed: int = 0,
    listener: RefineListener | None = None,
) -> tuple[TrialRecord, ...]:
    """Train trials with the full recipe; see `evaluate.refine`.

    Each starts again from the base model. Results are written at once; a refinement that was killed
    goes on after its last whole epoch.

    Args:
        run: The run; its task is loaded again and must be unchanged.
        trials: Complete trials of it.
        fields: Fields of the recipe that differ from the run's: by default 30 epochs, features of
            the last stage matched as well where the base model is the teacher, and a price on
            entropy.
        patience: Epochs without a better val accuracy after which one ends early.
        minutes: Time that the epochs of each may take; None for as many as the recipe has.
        teacher: What to distill from instead of the run's teacher.
        seed: What batches and augmentation are derived from.
        listener: Told about progress.

    Returns:
        The trials with their refined measurements, those that failed left out.

    Raises:
        InputError: If a field cannot be used, or `refinements.json` is damaged or cannot be
            written.
        StudyMismatchError: If the task's model or data have changed since.
        RunLockedError: If another process refines this run.
    """
    listener = listener or RefineListener()
    evaluator = _evaluator(run, teacher)
    recipe = _recipe(evaluator, fields)
    refinement = Refinement(recipe=recipe, patience=patience, minutes=minutes)
    file = refinements_file(run.folder)
    with file.locked():
        known = file.read()
        keys = {t.number: _key(run, t, refinement, teacher, seed) for t in trials}
        missing = tuple(t for t in trials if keys[t.number] not in known)
        for trial in trials:
            if trial not in missing:  # its session may have died before it tidied up
                _remove_leftovers(run, trial, known, keys[trial.number])
        listener.on_begin(missing, trials)
        for trial in missing:
            listener.on_start(trial)
            result = _refine(run, evaluator, trial, refinement, keys[trial.number], seed, listener)
            known = _with(known, result)
            file.write(known)
            _remove_leftovers(run, trial, known, keys[trial.number])
            _tell(listener, trial, result)
        for trial in trials:
            if trial not in missing and known[keys[trial.number]]["reason"] is not None:
                _tell(listener, trial, known[keys[trial.number]])
    done = {known[key]["trial"] for key in keys.values() if known[key]["measurement"] is not None}
    return tuple(t for t in refined_trials(run.folder, run.trials) if t.number in done)


def _with(known: Results, result: dict[str, Any]) -> Results:
    """Results with a new one in place of older ones of its trial.

    One that failed does not push out a measurement: its weights are there still.
    """
    has_failed = result["measurement"] is None
    kept = {
        key: entry
        for key, entry in known.items()
        if entry["trial"] != result["trial"] or (has_failed and entry["measurement"] is not None)
    }
    return {**kept, result["key"]: result}


def _tell(listener: RefineListener, trial: TrialRecord, result: Mapping[str, Any]) -> None:
    measured = result["measurement"]
    listener.on_finish(trial, measured and Measurement.from_json(measured), result["reason"])


def _remove_leftovers(run: RunRecord, trial: TrialRecord, known: Results, key: str) -> None:
    """Remove a finished training's checkpoint, and weights of the trial that no result names."""
    refinement_path(run.folder, trial.number, key, "checkpoint").unlink(missing_ok=True)
    named = {
        refinement_path(run.folder, trial.number, entry["key"], "safetensors")
        for entry in known.values()
        if entry["measurement"] is not None
    }
    every = refinement_path(run.folder, trial.number, "*", "safetensors")
    for path in every.parent.glob(every.name):
        if path not in named:
            path.unlink()


def _refinable(run: RunRecord, number: int) -> TrialRecord:
    if not 0 <= number < len(run.trials):
        raise InputError(
            f"`trial` must be in [0, {len(run.trials) - 1}] for run {run.name!r}, but got {number}."
        )
    trial = run.trials[number]
    if trial.measurement is None or _is_untouched(trial):
        what = "the original model" if _is_untouched(trial) else trial.state
        raise InputError(f"Trial {number} of {run.name!r} cannot be refined: it is {what}.")
    return trial


def _is_untouched(trial: TrialRecord) -> bool:
    return trial.role == "baseline" or trial.plan.effective == CompressionPlan()


def _evaluator(run: RunRecord, teacher: nn.Module | None) -> Evaluator:
    prepared, evaluator = reopen(run)
    if teacher is None:
        return evaluator
    inputs = prepared.example_inputs
    check_teachers_fit((teacher,), inputs, evaluator.model(*inputs))
    return Evaluator(dataclasses.replace(prepared, teachers=(teacher,)), evaluator.settings)


def _recipe(evaluator: Evaluator, fields: Mapping[str, Any]) -> Recipe:
    base, prepared = evaluator.recipe, evaluator.prepared
    for name in _OF_THE_BUILD:
        if name in fields:
            raise InputError(
                f"`{name}` says how a candidate is built, which the run has decided, but the "
                "recipe of a refinement sets it.",
                "Search again with it under another `name=NAME`.",
            )
    defaults: dict[str, Any] = {
        "epochs": max(_DEFAULT_EPOCHS, base.epochs),
        "entropy_strength": base.entropy_strength or _ENTROPY_STRENGTH,
    }
    if base.features == "none" and not prepared.teachers and base.distill != "none":
        try:
            find_taps(_DEFAULT_FEATURES, evaluator.model, prepared.example_inputs)
            defaults["features"] = _DEFAULT_FEATURES
        except InputError:
            pass  # a model of one layer has no last stage
    recipe = dataclasses.replace(base, **{**defaults, **fields, "penalty": "none"})
    check_recipe(recipe, prepared)
    return recipe


def _refine(
    run: RunRecord,
    evaluator: Evaluator,
    trial: TrialRecord,
    refinement: Refinement,
    key: str,
    seed: int,
    listener: RefineListener,
) -> dict[str, Any]:
    """One result: a measurement, or the reason why there is none."""
    measured: Measurement | None = None
    epochs: tuple[Epoch, ...] = ()
    reason = None
    try:
        measured, epochs = attempted(
            lambda: refine(
                evaluator,
                trial.plan,
                refinement,
                seed=derive_seed(seed, "refine", trial.number),
                checkpoint=refinement_path(run.folder, trial.number, key, "checkpoint"),
                keep=refinement_path(run.folder, trial.number, key, "safetensors"),
                on_epoch=listener.on_epoch,
                on_stage=listener.on_stage,
            )
        )
        measured = comparable(run, measured)
    except TrialError as error:
        reason = f"{error.reason}: {error.message}"
    return {
        "key": key,
        "trial": trial.number,
        "plan_digest": trial.plan.digest,
        "recipe": dataclasses.asdict(refinement.recipe),
        "seed": seed,
        "epochs": [dataclasses.asdict(epoch) for epoch in epochs],
        "measurement": measured and measured.to_json(),
        "reason": reason,
    }


def _key(
    run: RunRecord,
    trial: TrialRecord,
    refinement: Refinement,
    teacher: nn.Module | None,
    seed: int,
) -> str:
    """Equal for refinements that give the same result."""
    parts = {
        "model": run.info["model"],
        "data": run.info["data"],
        "settings": run.info["settings"],
        "refinement": dataclasses.asdict(refinement),
        "teacher": None if teacher is None else model_fingerprint(teacher),
        "seed": seed,
        "trial": trial.number,
        "plan": trial.plan.digest,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
