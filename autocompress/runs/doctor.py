"""What is wrong with a run folder, and what can be done about it."""

import dataclasses
import datetime
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from autocompress.errors import (
    AutocompressError,
    InputError,
    RunLockedError,
    StudyMismatchError,
    first_line,
)
from autocompress.evaluate.candidate_file import check_candidate_file
from autocompress.objective import parse_objectives
from autocompress.plan import CompressionPlan
from autocompress.run_record import RunRecord
from autocompress.samplers.propose import distributions_of
from autocompress.space.search_space import SearchSpace
from autocompress.storages.journal import JournalContent, journal_path, read_journal
from autocompress.storages.open_storage import drivers_of, is_on_server, is_run
from autocompress.storages.own_files import check_own_files
from autocompress.storages.run_lock import RunLock
from autocompress.storages.sqlite import (
    DAMAGE,
    DATABASE_ERRORS,
    STUDY,
    connected_to_read,
    open_storage,
    read_identity,
    reading,
)
from autocompress.study.identity import check_format
from autocompress.study.records import knobs_in, load_run
from autocompress.study.running_trials import weights_path

_ATTRIBUTES = ("format", "knobs", "methods", "objectives", "info", "identity")
_DRAFTS = (".*.tmp", "candidates/.*.tmp", "refined/.*.tmp")
_IDLE_S = 3600.0
_UNTOUCHABLE = ("locked", "unable to open", "readonly", "denied")  # what is not damage


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: What was looked at, and how it is.
        is_sound: Whether nothing needs to be done.
        remedy: What `repair` does about it; empty if there is nothing it can do.
    """

    what: str
    is_sound: bool = True
    remedy: str = ""


def examine(folder: Path) -> list[Finding]:
    """Look at everything a run folder holds; nothing is changed.

    Args:
        folder: The run folder.

    Raises:
        InputError: If it holds neither a study nor a journal of one, or links lead out of it.
    """
    check_own_files(folder)
    if not is_run(folder) and not journal_path(folder).exists():
        raise InputError(f"The folder {folder} holds no run: neither study.db nor trials.jsonl.")
    journal, journal_finding = _journal(folder)
    run, study_findings = _study(folder, journal)
    findings = [*study_findings, journal_finding]
    if run is not None:
        findings += _weights(run)
    if drivers := drivers_of(folder):  # whose drafts are no leftovers
        return [*findings, Finding(what=f"driven by {', '.join(drivers)} at the moment")]
    drafts = [
        Finding(what=f"{draft.name}: left by a crash", is_sound=False, remedy="delete it")
        for draft in sorted(_drafts(folder))
    ]
    return [*findings, *drafts, *_replaced_bundles(folder)]


def repair(folder: Path) -> list[Finding]:
    """Do what can be done about what `examine` finds, and look again.

    A damaged study is kept under another name.

    Args:
        folder: The run folder.

    Raises:
        InputError: If it holds no run, or cannot be written.
        RunLockedError: If another process drives the run.
    """
    examine(folder)
    if is_on_server(folder) and (drivers := drivers_of(folder)):
        raise RunLockedError(f"The run {folder} is driven by {', '.join(drivers)} at the moment.")
    lock = RunLock(folder)
    lock.acquire()
    try:
        journal, _ = _journal(folder)
        run, findings = _study(folder, journal)
        if any(finding.remedy for finding in findings):
            assert journal is not None
            try:
                _rebuild(folder, journal)
            except DATABASE_ERRORS as error:
                cause = first_line(error.__cause__ or error)
                raise AutocompressError(f"The study cannot be rebuilt: {cause}.") from error
            except (KeyError, TypeError, ValueError) as error:
                raise StudyMismatchError(
                    f"The journal {journal_path(folder)} makes no sense: {first_line(error)}.",
                    "Restore the folder from a backup, or start a new run with `name=NAME`.",
                ) from error
            run = load_run(folder)
        if run is not None:
            for weights, _ in _damaged_weights(run):
                weights.unlink()
        for draft in _drafts(folder):
            shutil.rmtree(draft) if draft.is_dir() else draft.unlink()
    except OSError as error:
        raise InputError(f"The run {folder} cannot be repaired: {first_line(error)}.") from error
    finally:
        lock.release()
    return examine(folder)


def _study(folder: Path, journal: JournalContent | None) -> tuple[RunRecord | None, list[Finding]]:
    """The run, if its study can be read, and how its study is."""
    if is_on_server(folder):
        run = load_run(folder)
        return run, [Finding(what=f"study on the server: {_counts(run)}")]
    path = folder / "study.db"
    is_whole = journal is not None and all(name in journal.attributes for name in _ATTRIBUTES)
    remedy = ""
    if journal is not None and is_whole:
        remedy = f"rebuild it from trials.jsonl, which knows {journal.n_finished} finished trials"
    if not path.exists():
        return None, [Finding(what="study.db is missing", is_sound=False, remedy=remedy)]
    try:
        with connected_to_read(path) as database:
            (verdict,) = database.execute("PRAGMA integrity_check").fetchone()
        if verdict != "ok" or not read_identity(path):
            raise StudyMismatchError("it holds no run" if verdict == "ok" else verdict)
        run = load_run(folder)
        with reading(path) as study:
            told, trials = study.user_attrs, study.get_trials(deepcopy=False)
    except InputError as error:  # what lies beside it
        return None, [Finding(what=error.message, is_sound=False)]
    except (StudyMismatchError, *DAMAGE) as error:
        cause = first_line(error)
        is_damage = not any(word in cause.lower() for word in _UNTOUCHABLE)
        what = f"study.db cannot be read: {cause}"
        return None, [Finding(what=what, is_sound=False, remedy=remedy if is_damage else "")]
    if journal is not None and is_whole and journal.n_finished > run.n_finished:
        what = f"study.db lacks finished trials: it has {run.n_finished}"
        return run, [Finding(what=what, is_sound=False, remedy=remedy)]
    differing = [] if journal is None else journal.differences(trials, told)
    if differing:
        what = f"study.db is damaged: of {', '.join(differing)} its journal says something else"
        return run, [Finding(what=what, is_sound=False, remedy=remedy)]
    return run, [Finding(what=f"study.db: {_counts(run)}")]


def _counts(run: RunRecord) -> str:
    running = len(run.trials) - run.n_finished
    under_way = f", {running} under way or to be repeated" if running else ""
    return f"{run.n_finished} finished trials{under_way}"


def _journal(folder: Path) -> tuple[JournalContent | None, Finding]:
    try:
        journal = read_journal(folder)
    except OSError as error:
        if is_on_server(folder):
            return None, Finding(what="no trials.jsonl: the server has backups of its own")
        what = f"trials.jsonl cannot be read: {error.strerror}; the next search writes it anew"
        return None, Finding(what=what)
    damaged = ""
    if journal.n_damaged:
        damaged = f", {journal.n_damaged} damaged lines"
    return journal, Finding(what=f"trials.jsonl: {journal.n_finished} finished trials{damaged}")


def _weights(run: RunRecord) -> Iterator[Finding]:
    damaged = _damaged_weights(run)
    if not damaged:
        yield Finding(what="candidates/: no damaged weights")
    for path, reason in damaged:
        remedy = "delete it; export then tunes the trial again, with the same result"
        yield Finding(what=f"{path.name}: {reason}", is_sound=False, remedy=remedy)


def _damaged_weights(run: RunRecord) -> list[tuple[Path, str]]:
    damaged = []
    for trial in run.front():
        path = weights_path(run.folder, trial.number)
        if path.exists():
            try:
                check_candidate_file(path)
            except InputError as error:
                damaged.append((path, error.message))
    return damaged


def _drafts(folder: Path) -> list[Path]:
    """What a crash left half-written."""
    drafts = [path for pattern in _DRAFTS for path in folder.glob(pattern)]
    drafts += [path for path in folder.glob("exports/.export-*") if _is_idle(path)]
    return [path for path in drafts if not (path / "old").exists()]


def _is_idle(folder: Path) -> bool:
    """Whether nothing in a folder has changed for an hour: an export holds no lock."""
    newest = max((path.lstat().st_mtime for path in (folder, *folder.rglob("*"))), default=0.0)
    return time.time() - newest > _IDLE_S


def _replaced_bundles(folder: Path) -> list[Finding]:
    """Bundles that an export was replacing when it was killed: only the user knows their name."""
    return [
        Finding(
            what=f"{old.relative_to(folder)}: a bundle; move it back to its name", is_sound=False
        )
        for old in sorted(folder.glob("exports/.export-*/old"))
    ]


def _rebuild(folder: Path, journal: JournalContent) -> None:
    """Write a study from its journal; the old one stays beside it under another name."""
    path, draft = folder / "study.db", folder / ".study.db.tmp"
    attributes = journal.attributes
    check_format(journal_path(folder), attributes)
    draft.unlink(missing_ok=True)
    storage = open_storage(draft)
    study = optuna.create_study(
        study_name=STUDY,
        storage=storage,
        directions=[o.direction for o in parse_objectives(attributes["objectives"])],
    )
    distributions = distributions_of(SearchSpace(knobs=knobs_in(attributes)))
    for number in range(max(journal.trials, default=-1) + 1):
        line = journal.trials.get(number) or _lost(number, distributions)
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState[line["state"]],
                params=line["levels"],
                distributions=distributions,
                values=line["values"],
                user_attrs=line["attributes"],
                constraints=line["constraints"] or None,
            )
        )
    for key in sorted(attributes, key="identity".__eq__):  # the last: without it nothing counts
        study.set_user_attr(key, attributes[key])
    storage.engine.dispose()
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S%f")
    for suffix in ("", "-wal", "-shm"):
        old = path.with_name(f"study.db{suffix}")
        if old.exists():
            old.rename(path.with_name(f"study.db.{now}{suffix}"))
    draft.rename(path)


def _lost(number: int, knobs: Iterable[str]) -> dict[str, Any]:
    """What stands for a trial whose lines are damaged: a failed one, or the baseline once more."""
    is_baseline = number == 0
    return {
        "state": "RUNNING" if is_baseline else "FAIL",
        "levels": dict.fromkeys(knobs, 0),
        "values": None,
        "constraints": {},
        "attributes": {
            "role": "baseline" if is_baseline else "search",
            "label": "baseline" if is_baseline else f"trial {number}",
            "fidelity": 1,
            "plan": CompressionPlan().to_json(),
            "reason": "lost: the study was rebuilt from a journal in which its line was damaged",
        },
    }
