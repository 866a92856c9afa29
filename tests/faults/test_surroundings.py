"""What lies around a study: other writers, odd places, clocks that jump, forged notes."""

import contextlib
import datetime
import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import filelock
import pytest
from click.testing import CliRunner

from autocompress.cli.main import cli
from autocompress.environment import n_usable_cores
from autocompress.errors import InputError, RunLockedError
from autocompress.executors.registry import Resources
from autocompress.executors.worker import WorkerSpec
from autocompress.runs import search_task
from autocompress.space.search_space import Knob, SearchSpace
from autocompress.storages.run_lock import RunLock, driver_of, started_at
from autocompress.study.records import load_run
from autocompress.study.study import Study

SPACE = SearchSpace(knobs=(Knob(kind="weight_bits", targets=("a",), levels=(32, 8, 4), label="a"),))


def study_in(folder: Path) -> Study:
    return Study(folder, SPACE, "accuracy,size", {"seed": 0}, {"task": "t"})


def test_a_writer_that_holds_the_database_is_waited_for(tmp_path: Path) -> None:
    with study_in(tmp_path) as study:
        path = tmp_path / "study.db"
        with contextlib.closing(sqlite3.connect(path, check_same_thread=False)) as other:
            other.execute("BEGIN IMMEDIATE")
            release = threading.Timer(2.0, other.rollback)
            release.start()
            start = time.monotonic()
            assert study.add({"weight_bits:a": 0}, "baseline", "baseline", 1) is not None
            assert time.monotonic() - start > 1.5
            release.join()
    assert [trial.state for trial in load_run(tmp_path).trials] == ["running"]


@pytest.mark.parametrize(
    "name", ["with spaces", "größe-模型", "a'b\"c", "question?mark#hash%41", "x" * 200]
)
def test_a_run_folder_may_be_called_anything(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "not there yet" / name
    with study_in(folder) as study:
        study.add({"weight_bits:a": 1}, "control", "control", 1)
    assert load_run(folder).trials[0].levels == {"weight_bits:a": 1}
    assert {path.name for path in folder.iterdir()} >= {"study.db", "run.json", "trials.jsonl"}


@pytest.mark.parametrize(
    ("change", "is_alive"),
    [
        ({}, True),
        ({"pid": 2**22 + 1}, False),  # no process has that number
        ({"started": 1.0}, False),  # another one has it now
        ({"host": "elsewhere", "pid": 2**22 + 1}, True),  # cannot be seen from here
        ({"pid": "many"}, False),
    ],
)
def test_a_forged_note_does_not_keep_a_run_from_its_driver(
    tmp_path: Path, change: dict[str, object], is_alive: bool
) -> None:
    pid = os.getpid()
    note = {"host": socket.gethostname(), "pid": pid, "started": started_at(pid), **change}
    (tmp_path / ".driver.json").write_text(json.dumps(note))
    assert (driver_of(tmp_path) is not None) == is_alive
    lock = RunLock(tmp_path)  # the lock is the system's, and goes with its process
    lock.acquire()
    assert lock.was_abandoned
    lock.release()
    assert driver_of(tmp_path) is None


def test_who_drives_is_told_though_the_driver_has_only_just_come(tmp_path: Path) -> None:
    driver = filelock.FileLock(tmp_path / ".lock")
    driver.acquire()  # and has not left its note yet
    note = {"host": "here", "pid": 7, "started": 1.0}
    late = threading.Timer(0.2, (tmp_path / ".driver.json").write_text, [json.dumps(note)])
    late.start()
    with pytest.raises(RunLockedError, match="driven by process 7 on here"):
        RunLock(tmp_path).acquire()
    late.join()
    driver.release()


def test_a_driver_that_is_about_to_leave_is_waited_for(tmp_path: Path) -> None:
    begun = threading.Event()

    def drive() -> None:
        with filelock.FileLock(tmp_path / ".lock"):  # its note is taken away
            begun.set()
            time.sleep(0.2)

    driver = threading.Thread(target=drive)
    driver.start()
    begun.wait()
    lock = RunLock(tmp_path)
    lock.acquire()
    driver.join()
    assert driver_of(tmp_path) is not None
    lock.release()


def test_stamps_are_in_utc_wherever_the_clock_says_it_is() -> None:
    code = "from autocompress.environment import describe_environment\n"
    code += "print(describe_environment()['started'])"
    stamps = []
    for zone in ("Pacific/Kiritimati", "America/Adak"):  # a day apart
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "TZ": zone},
            capture_output=True,
            text=True,
            check=True,
        )
        stamps.append(datetime.datetime.fromisoformat(done.stdout.strip()))
    assert all(stamp.utcoffset() == datetime.timedelta(0) for stamp in stamps)
    assert abs(stamps[1] - stamps[0]) < datetime.timedelta(minutes=5)


@pytest.mark.parametrize("jobs", [1, 2, 3, 64])
def test_by_default_trials_at_once_share_the_cores_out(
    task_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    taken: list[int] = []

    def note(name: str, evaluator: object, worker: WorkerSpec, resources: Resources) -> None:
        taken.append(worker.settings.threads * resources.jobs)
        raise InputError("seen enough")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(search_task, "make_executor", note)
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path / "cache"))
    arguments = ["search", task_file.name, "--quiet", "--jobs", str(jobs)]
    result = CliRunner().invoke(cli, arguments)
    assert isinstance(result.exception, InputError), result.output
    assert taken[0] <= max(n_usable_cores(), jobs)
