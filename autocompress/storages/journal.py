"""The journal of a study: what it holds, once more, in lines of JSON that are only appended to."""

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.trial import FrozenTrial, TrialState

from autocompress.errors import StudyMismatchError

_NAME: Final = "trials.jsonl"
_DIGEST: Final = "digest"
_FIXED: Final = ("format", "knobs", "methods", "objectives", "identity", "option_table")
_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class JournalContent:
    """What a journal says.

    Attributes:
        attributes: Of the study, as they were last.
        trials: Number -> the last that was written of that trial, as `trial_line` gives it.
        n_damaged: Lines that cannot be read.
    """

    attributes: Mapping[str, Any]
    trials: Mapping[int, Mapping[str, Any]]
    n_damaged: int

    @property
    def n_finished(self) -> int:
        """Trials that are complete, failed or stopped."""
        return sum(TrialState[trial["state"]].is_finished() for trial in self.trials.values())

    def differences(
        self, trials: Sequence[FrozenTrial], attributes: Mapping[str, Any]
    ) -> list[str]:
        """What a study says differently, in words: finished trials, and what never changes.

        A driver that died between writing the two leaves the journal behind, not different. Its
        lines carry a digest, so that it is the study that is wrong.

        Args:
            trials: What the study holds.
            attributes: What it says about itself.
        """
        found = [
            f"its {key}"
            for key in _FIXED
            if key in self.attributes
            and key in attributes
            and self.attributes[key] != attributes[key]
        ]
        for trial in trials:
            known = self.trials.get(trial.number)
            if (
                known is not None
                and TrialState[known["state"]].is_finished()
                and known != json.loads(json.dumps(trial_line(trial)))
            ):
                found.append(f"trial {trial.number}")
        return found


def journal_path(folder: Path) -> Path:
    """Where the journal of a run lies."""
    return folder / _NAME


def read_journal(folder: Path) -> JournalContent:
    """Read a run's journal; lines that a crash or a damaged disk has spoilt are only counted.

    Raises:
        OSError: If there is none, or it cannot be read.
    """
    attributes: dict[str, Any] = {}
    trials: dict[int, dict[str, Any]] = {}
    n_damaged = 0
    lines = journal_path(folder).read_bytes().splitlines()
    for line in lines:
        try:
            content = json.loads(line)
            # lines of version 0.1 have none
            if content.pop(_DIGEST, None) not in (None, _digest(content)):
                raise ValueError("a bit has flipped")
            if "attribute" in content:
                attributes[content["attribute"]] = content["value"]
            else:
                TrialState[content["state"]]
                if not 0 <= content["number"] < len(lines):
                    raise ValueError("a trial has at least one line")
                trials[int(content["number"])] = content
        except (KeyError, TypeError, ValueError, RecursionError):
            n_damaged += 1
    return JournalContent(attributes=attributes, trials=trials, n_damaged=n_damaged)


class Journal:
    """The journal of a run that is being driven.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = journal_path(folder)
        self._states: dict[int, str] = {}

    def check(
        self, trials: Sequence[FrozenTrial], attributes: Mapping[str, Any] | None = None
    ) -> None:
        """Refuse a study that has lost trials, before others take their numbers, or is damaged.

        Args:
            trials: What the study holds.
            attributes: What it says about itself; None to compare no attribute.

        Raises:
            StudyMismatchError: If the journal knows more finished trials than are finished there,
                or says something else of one.
        """
        known, folder = self._known(), self._path.parent
        n_finished = sum(trial.state.is_finished() for trial in trials)
        if known.n_finished > n_finished:
            raise StudyMismatchError(
                f"The study in {folder} holds {n_finished} finished trials, but its journal knows "
                f"{known.n_finished}.",
                f"Rebuild it (autocompress doctor {folder} --repair), or start anew with `name`.",
            )
        if differing := known.differences(trials, attributes or {}):
            raise StudyMismatchError(
                f"The study in {folder} and its journal say different things of "
                f"{', '.join(differing)}: the study is damaged.",
                f"Rebuild it from the journal: autocompress doctor {folder} --repair.",
            )

    def catch_up(self, study: optuna.Study) -> None:
        """Write what the study has and the journal has not: a driver died between the two.

        Raises:
            OSError: If it cannot be written.
        """
        self._trim()
        known = self._known()
        self._states = {number: trial["state"] for number, trial in known.trials.items()}
        attributes = {k: v for k, v in study.user_attrs.items() if known.attributes.get(k) != v}
        self._append(*({"attribute": key, "value": v} for key, v in attributes.items()))
        trials = study.get_trials(deepcopy=False)
        self._append(*(trial_line(t) for t in trials if self._states.get(t.number) != t.state.name))

    def _known(self) -> JournalContent:
        if self._path.exists():
            return read_journal(self._path.parent)
        return JournalContent(attributes={}, trials={}, n_damaged=0)

    def write_attribute(self, key: str, value: Any) -> None:
        """Append an attribute of the study.

        Raises:
            OSError: If it cannot be written.
        """
        self._append({"attribute": key, "value": value})

    def write_trial(self, trial: FrozenTrial) -> None:
        """Append what a trial is now.

        Raises:
            OSError: If it cannot be written.
        """
        self._append(trial_line(trial))

    def _append(self, *lines: Mapping[str, Any]) -> None:
        if not lines:
            return
        signed = ({**line, _DIGEST: _digest(line)} for line in lines)
        text = "".join(f"{json.dumps(line)}\n" for line in signed)
        with self._path.open("ab") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())

    def _trim(self) -> None:
        """Cut off a last line that was not written to its end."""
        try:
            with self._path.open("rb+") as file:
                content = file.read()
                whole = content.rfind(b"\n") + 1
                if whole == len(content):
                    return
                file.truncate(whole)
        except FileNotFoundError:
            return
        _logger.warning(
            "The last line of %s was cut off by a crash; it is written anew.", self._path
        )


def _digest(line: Mapping[str, Any]) -> str:
    """Of a line without it: 16 hex digits of the sha256 of its canonical JSON."""
    text = json.dumps(line, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def trial_line(trial: FrozenTrial) -> dict[str, Any]:
    """All there is to a trial, as JSON."""
    return {
        "number": trial.number,
        "state": trial.state.name,
        "levels": dict(trial.params),
        "values": trial.values,
        "constraints": dict(trial.constraints),
        "attributes": dict(trial.user_attrs),
    }
