import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from autocompress.errors import (
    AutocompressError,
    InputError,
    RunLockedError,
    StudyMismatchError,
)
from autocompress.executors.job import EvaluationJob
from autocompress.objective import Limits
from autocompress.run_record import RunRecord
from autocompress.space.search_space import Knob, SearchSpace
from autocompress.space.sensitivity_table import Figures
from autocompress.study import study as study_module
from autocompress.study.records import load_run
from autocompress.study.study import PendingTrial, Study

OpenStudy = Callable[..., Study]


def pending_trial(study: Study, job: PendingTrial) -> EvaluationJob:
    return EvaluationJob(
        plan=study.space.decode(job.levels), seed=1, fidelity=job.fidelity, keep=Path("none")
    )


def add(study: Study, label: str = "baseline", **levels: int) -> PendingTrial:
    full = {knob.name: levels.get(knob.name, 0) for knob in study.space.knobs}
    role = "baseline" if label == "baseline" else "search"
    return study.add(full, role, label, 1)


def test_study_records_what_was_measured(open_study: OpenStudy, measure: Callable) -> None:
    with open_study() as study:
        job = add(study)
        figures = measure(pending_trial(study, job))
        study.complete(job, figures)
        failed = add(study, "trial 1", **{"weight_bits:body": 5})
        study.fail(failed, "nonfinite_loss: it became nan")
        run = study.record()

    assert [trial.state for trial in run.trials] == ["complete", "failed"]
    assert run.trials[0].measurement == figures
    assert run.trials[1].reason == "nonfinite_loss: it became nan"
    assert run.trials[1].plan.layers["body"].weight_bits == 2
    assert run.baseline == run.trials[0]
    assert run.knobs == study.space.knobs


def test_load_run_reads_the_same_record_without_the_lock(
    open_study: OpenStudy, measure: Callable
) -> None:
    with open_study() as study:
        job = add(study)
        study.complete(job, measure(pending_trial(study, job)))
        loaded: RunRecord = load_run(study.folder)
        assert loaded == study.record()


def test_study_uses_write_ahead_mode_and_one_driver(open_study: OpenStudy) -> None:
    with open_study() as study:
        with sqlite3.connect(study.folder / "study.db") as connection:
            mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
        with pytest.raises(RunLockedError, match=r"driven by process \d+ on") as caught:
            open_study().__enter__()

    assert mode == "wal"
    assert caught.value.exit_code == 75


def test_study_lock_holds_between_processes(open_study: OpenStudy) -> None:
    code = (
        "import filelock, sys\n"
        "try: filelock.FileLock(sys.argv[1], timeout=0).acquire()\n"
        "except filelock.Timeout: sys.exit(75)\n"
    )
    with open_study() as study:
        command = [sys.executable, "-c", code, str(study.folder / ".lock")]
        assert subprocess.run(command, check=False).returncode == 75
    assert subprocess.run(command, check=False).returncode == 0


def test_study_reopens_with_its_trials(open_study: OpenStudy, measure: Callable) -> None:
    with open_study() as study:
        job = add(study)
        study.complete(job, measure(pending_trial(study, job)))
    with open_study() as study:
        assert study.n_finished() == 1
        assert study.interrupted() == []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"identity": {"seed": 1}}, "seed: 0 then, 1 now"),
        ({"identity": {"model": "xyz"}}, 'model: "abc" then, "xyz" now'),
        ({"objectives": "accuracy,size"}, "objectives"),
        ({"identity": {"settings": {"device": "cuda"}}}, 'settings.device: "cpu" then'),
        ({"limits": Limits(max_drop=0.01)}, "limits.max_drop: null then, 0.01 now"),
        ({"fidelity": 0}, "fidelity: 1 then, 0 now"),
        ({"space": SearchSpace(knobs=(
            Knob(kind="weight_bits", targets=("a",), levels=(32, 8), label="a"),
        ))}, "space"),
    ],
)  # fmt: skip
def test_study_refuses_a_folder_made_for_something_else(
    open_study: OpenStudy, changes: dict[str, object], named: str
) -> None:
    with open_study() as study:
        add(study)
    before = (study.folder / "study.db").read_bytes()

    with pytest.raises(StudyMismatchError, match="made for something else") as caught:
        open_study(**changes).__enter__()

    assert named in caught.value.message
    assert "`name=NAME`" in caught.value.hint
    with open_study() as study:  # nothing changed, nothing locked
        assert len(study.record().trials) == 1
    assert before


def test_a_study_may_keep_the_space_it_began_with(open_study: OpenStudy) -> None:
    """A shipped space has other levels today; the run goes on with its own."""
    with open_study() as study:
        began_with = study.space
        add(study)
    other = Knob(kind="weight_bits", targets=("a",), levels=(32, 8), label="a")
    with open_study(space=SearchSpace(knobs=(other,)), keeps_space=True) as study:
        assert study.space == began_with
        assert len(study.record().trials) == 1


def test_an_attempt_counts_if_the_driver_was_killed_and_only_then(open_study: OpenStudy) -> None:
    with open_study() as study:
        add(study)
    with open_study() as study:
        (job,) = study.interrupted()
        assert (job.number, job.attempts) == (0, 1)
        assert study.begin_again(job).attempts == 1
        (study.folder / ".power_cut").touch()
    with open_study() as study:
        (job,) = study.interrupted()
        assert study.begin_again(job).attempts == 2
    with open_study() as study:
        assert study.interrupted()[0].attempts == 2


def test_interrupted_tells_a_result_that_was_written_but_not_told(
    open_study: OpenStudy, measure: Callable
) -> None:
    with open_study() as study:
        job = add(study)
        figures = measure(pending_trial(study, job))
        study._set(job.number, "measurement", figures.to_json())  # died before the next line
    with open_study() as study:
        assert study.interrupted() == []
        assert study.record().trials[0].measurement == figures


def test_interrupted_writes_the_constraints_that_a_dead_session_did_not(
    open_study: OpenStudy, measure: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(max_drop=0.1, max_size_bytes=70_000)
    write, written = optuna.trial.Trial.set_constraint, []

    def die_at_the_second(trial: optuna.trial.Trial, name: str, value: float) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(name)
        write(trial, name, value)

    with open_study(limits=limits) as study:
        job = add(study)
        with monkeypatch.context() as patch:
            patch.setattr(optuna.trial.Trial, "set_constraint", die_at_the_second)
            with pytest.raises(KeyboardInterrupt):
                study.complete(job, measure(pending_trial(study, job)))
    with open_study(limits=limits) as study:
        assert study.interrupted() == []
        (trial,) = study._study.get_trials()
        assert trial.state == optuna.trial.TrialState.COMPLETE
        assert trial.constraints == study.record().excesses(study.record().trials[0])
    assert trial.constraints == {"max_drop": pytest.approx(-0.1), "max_size_bytes": -6_000}


def test_stop_finishes_a_trial_that_is_no_failure(open_study: OpenStudy) -> None:
    with open_study() as study:
        job = add(study, "trial 0", **{"weight_bits:body": 5})
        found = Figures(divergence=0.4, size_bytes=900, latency_ratio=0.7)
        study.stop(job, "Not tuned: hopeless.", found)
        run = load_run(study.folder)
        assert study.n_finished() == 1
        assert study.history().failed == []
        assert study.history().stopped == [dict(job.levels)]
    with open_study() as study:
        (probed,) = study.history().probes

    assert probed.levels == dict(job.levels)
    assert (probed.divergence, probed.size_bytes, probed.latency_ratio) == (0.4, 900, 0.7)
    assert not probed.has_chance
    assert (run.trials[0].state, run.trials[0].reason) == ("stopped", "Not tuned: hopeless.")
    assert run.complete == ()


def test_finished_gives_samplers_trials_of_the_runs_fidelity_with_constraints(
    open_study: OpenStudy, measure: Callable
) -> None:
    with open_study(limits=Limits(max_size_bytes=1)) as study:
        for fidelity in (1, 0):
            full = {knob.name: 0 for knob in study.space.knobs}
            job = study.add(full, "control", f"fidelity {fidelity}", fidelity)
            study.complete(job, measure(pending_trial(study, job)))
        (told,) = study.history().complete

    assert told.user_attrs["fidelity"] == 1
    assert told.constraints == {"max_size_bytes": 63_999}


def test_load_run_reads_limits_and_fidelity(open_study: OpenStudy) -> None:
    limits = Limits(max_size_bytes=5, max_latency_ms=0.5)
    with open_study(limits=limits, fidelity=0) as study:
        run = load_run(study.folder)
        view = json.loads((study.folder / "run.json").read_text())
    assert (run.limits, run.fidelity) == (limits, 0)
    assert view["limits"] == {"max_size_bytes": 5, "max_latency_ms": 0.5}


def test_load_run_reads_a_study_that_knows_no_limits(open_study: OpenStudy) -> None:
    with open_study() as study:
        identity = study._study.user_attrs["identity"]
        old = {k: v for k, v in identity.items() if k not in ("limits", "fidelity")}
        study._study.set_user_attr("identity", old)
        run = load_run(study.folder)
    assert (run.limits, run.fidelity) == (Limits(), 1)


def test_load_run_refuses_a_damaged_database(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"this is not a database" * 100)

    with pytest.raises(StudyMismatchError, match="cannot be read"):
        load_run(tmp_path)
    assert (tmp_path / "study.db").read_bytes().startswith(b"this is not")


def test_load_run_changes_nothing_in_a_study_that_is_only_being_made(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    path.touch()
    with pytest.raises(InputError, match="holds no run"):
        load_run(tmp_path)
    assert path.read_bytes() == b""

    optuna.create_study(storage=f"sqlite:///{path}", study_name="autocompress")
    before = path.read_bytes()
    with pytest.raises(InputError, match="holds no run"):
        load_run(tmp_path)
    assert path.read_bytes() == before


def test_readers_never_get_in_the_way_of_a_study_that_begins(open_study: OpenStudy) -> None:
    is_over = threading.Event()
    seen: list[int] = []

    def read(folder: Path) -> None:
        while not is_over.is_set():
            with contextlib.suppress(InputError):  # there is nothing yet
                seen.append(len(load_run(folder).trials))

    for i in range(4):
        study = open_study(name=f"run {i}")
        reader = threading.Thread(target=read, args=(study.folder,))
        reader.start()
        try:
            with study:
                add(study)
        finally:
            is_over.set()
            reader.join()
        is_over.clear()
        assert len(load_run(study.folder).trials) == 1
    assert set(seen) <= {0, 1}


@pytest.mark.parametrize("is_driving", [False, True])
def test_a_study_of_another_optuna_is_refused_and_left_alone(
    open_study: OpenStudy, is_driving: bool
) -> None:
    with open_study() as study:
        add(study)
    path = study.folder / "study.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v9.0.0.a'")
    before = path.read_bytes()
    with pytest.raises(StudyMismatchError, match="another version of Optuna"):
        open_study().__enter__() if is_driving else load_run(study.folder)
    assert path.read_bytes() == before


@pytest.mark.parametrize("is_driving", [False, True])
def test_a_study_of_another_format_is_refused(open_study: OpenStudy, is_driving: bool) -> None:
    with open_study() as study:
        add(study)
        study._study.set_user_attr("format", 2)
    with pytest.raises(StudyMismatchError, match="must have format 1, but has 2"):
        open_study().__enter__() if is_driving else load_run(study.folder)


@pytest.mark.parametrize("is_driving", [False, True])
def test_a_trial_that_makes_no_sense_is_one_line(open_study: OpenStudy, is_driving: bool) -> None:
    with open_study() as study:
        add(study)
    with contextlib.closing(sqlite3.connect(study.folder / "study.db")) as connection, connection:
        connection.execute("UPDATE trial_user_attributes SET value_json = '{' WHERE key = 'role'")
    with pytest.raises(StudyMismatchError, match="cannot be read"):
        _driven(open_study()) if is_driving else load_run(study.folder)


def _driven(study: Study) -> RunRecord:
    with study:
        return study.record()


def test_load_run_refuses_a_folder_without_a_study(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no study\.db"):
        load_run(tmp_path / "nowhere")


def test_study_refuses_a_folder_that_cannot_be_made(tmp_path: Path, space: SearchSpace) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(InputError, match="must be writable"):
        Study(tmp_path / "file" / "run", space, "accuracy,size", {}, {}).__enter__()


def test_run_json_says_how_the_run_was_made(open_study: OpenStudy) -> None:
    with open_study() as study:
        view = json.loads((study.folder / "run.json").read_text())

    assert view["seed"] == 0
    assert view["task"] == "t"
    assert view["space"] == study.space.fingerprint
    assert view["objectives"] == "accuracy,size,latency"


def test_reopening_notes_where_the_data_is_now(open_study: OpenStudy, tmp_path: Path) -> None:
    with open_study() as study:
        add(study)
    moved = Study(
        study.folder,
        study.space,
        "accuracy,size,latency",
        {"seed": 0, "model": "abc", "settings": {"threads": 2, "device": "cpu"}},
        {"task": "elsewhere"},
    )
    with moved:
        assert moved.record().info["task"] == "elsewhere"


def test_study_that_cannot_be_written_is_one_line(
    open_study: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with open_study() as study:
        job = add(study)
        monkeypatch.setattr(study._study._storage, "set_trial_user_attr", full)
        with pytest.raises(AutocompressError, match="disk is full") as caught:
            study.fail(job, "some reason")

    assert caught.value.exit_code == 1


def test_a_run_that_cannot_be_written_is_read_and_nothing_is_left_beside_it(
    open_study: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_study() as study:
        add(study)
    access = os.access  # by which root may write everywhere
    monkeypatch.setattr("os.access", lambda p, mode: mode != os.W_OK and access(p, mode))
    before = sorted(study.folder.iterdir())
    assert len(load_run(study.folder).trials) == 1
    assert sorted(study.folder.iterdir()) == before


def test_a_start_that_fails_leaves_neither_lock_nor_note(
    open_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise InputError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(study_module, "write_info", full)
        with pytest.raises(InputError):
            open_study().__enter__()
    with open_study() as study:
        assert not study._store._lock.was_abandoned
