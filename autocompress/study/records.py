"""Read a study as plain data, without driving it."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from autocompress.errors import InputError, TrialError, one_line
from autocompress.measurement import Measurement
from autocompress.objective import Limits, parse_objectives
from autocompress.plan import CompressionPlan
from autocompress.run_record import RunRecord, State, TrialRecord
from autocompress.space.search_space import Knob, Method, SearchSpace
from autocompress.space.sensitivity_table import SensitivityTable
from autocompress.storages.open_storage import is_on_server, reading_run
from autocompress.storages.sqlite import DAMAGE, unreadable
from autocompress.study.attributes import check_trial, checked_study
from autocompress.study.identity import check_format, current_label
from autocompress.study.result_files import refined_trials, validated_trials

_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
    TrialState.PRUNED: "stopped",
}


def load_run(folder: Path) -> RunRecord:
    """Read a run folder without locking it.

    Raises:
        InputError: If the folder holds no study, or its server cannot be reached.
        StudyMismatchError: If its study is damaged or was not made by this version.
    """
    try:
        with reading_run(folder) as study:
            check_format(folder, study.user_attrs)
            return record_of(folder, study)
    except DAMAGE as error:
        raise unreadable(folder / "study.db", error) from error


def record_of(
    folder: Path, study: optuna.Study, known: dict[int, TrialRecord] | None = None
) -> RunRecord:
    """A run's record from its opened study.

    Args:
        folder: The run folder.
        study: Its study.
        known: Records of finished trials, which change no more: used, and added to.

    Raises:
        StudyMismatchError: If what is kept there makes no sense.
        InputError: If `refinements.json` is damaged.
    """
    try:
        run = _record_of(folder, study, {} if known is None else known)
    except (*DAMAGE, InputError, TrialError) as error:
        raise unreadable(folder / "study.db", error) from error
    return dataclasses.replace(
        run,
        refined=refined_trials(folder, run.trials),
        validated=validated_trials(folder, run.trials),
    )


def knobs_in(attributes: Mapping[str, Any]) -> tuple[Knob, ...]:
    """The knobs that a study says it has."""
    return tuple(
        Knob(**{**k, "targets": tuple(k["targets"]), "levels": tuple(k["levels"])})
        for k in attributes["knobs"]
    )


def space_in(attributes: Mapping[str, Any]) -> SearchSpace:
    """The search space that a study says it has."""
    methods = tuple(Method(**m) for m in attributes.get("methods", ()))
    return SearchSpace(knobs=knobs_in(attributes), methods=methods)


def _record_of(folder: Path, study: optuna.Study, known: dict[int, TrialRecord]) -> RunRecord:
    attributes = checked_study(study.user_attrs)
    identity, table = attributes["identity"], attributes.get("option_table")
    knobs = {knob.name: knob for knob in knobs_in(attributes)}
    every = study.get_trials(deepcopy=False)
    trials = tuple(known.get(trial.number) or _trial_record(trial, knobs) for trial in every)
    known.update((trial.number, trial) for trial in trials if trial.is_finished)
    return RunRecord(
        name=one_line(folder.resolve().name),
        folder=folder,
        objectives=parse_objectives(attributes["objectives"]),
        knobs=tuple(knobs.values()),
        trials=trials,
        info={**attributes["info"], **_said_here(folder), **identity},
        # studies made before there were limits say nothing of them
        limits=Limits(**identity["limits"]),
        fidelity=identity["fidelity"],
        options=None if table is None else _table_of(table, knobs),
    )


def _table_of(table: Mapping[str, Any], knobs: Mapping[str, Knob]) -> SensitivityTable:
    found = SensitivityTable.from_json(table)
    for option in found.options:
        if not 0 < option.level < len(knobs[option.knob].levels):
            msg = f"the sensitivity table has no level {option.level} of {option.knob}"
            raise ValueError(msg)
    return found


def _said_here(folder: Path) -> dict[str, Any]:
    """What a run folder says of a study on a server itself: paths differ between machines."""
    if not is_on_server(folder):
        return {}
    try:
        said = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        return {key: said[key] for key in ("task", "arguments", "options")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _trial_record(trial: FrozenTrial, knobs: Mapping[str, Knob]) -> TrialRecord:
    attributes = trial.user_attrs
    check_trial(attributes)
    for name, level in trial.params.items():
        if not 0 <= level < len(knobs[name].levels):
            msg = f"trial {trial.number} cannot have level {level} of {name}"
            raise ValueError(msg)
    is_complete = trial.state == TrialState.COMPLETE
    return TrialRecord(
        number=trial.number,
        role=attributes["role"],
        label=one_line(current_label(attributes["label"])),
        state=_STATES[trial.state],
        levels=dict(trial.params),
        plan=CompressionPlan.from_json(attributes["plan"]),
        measurement=Measurement.from_json(attributes["measurement"]) if is_complete else None,
        reason=one_line(attributes["reason"]) if attributes.get("reason") else None,
    )
