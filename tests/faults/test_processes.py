"""Real faults, injected into real processes: what is lost, what is left, what is said."""

import contextlib
import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from autocompress.cli.options import task_arguments

Run = Callable[..., Any]
SEARCH = ("search", "my_task.py", "--threads", "1", "--objectives", "accuracy,size", "--quiet")
KILL_WHILE_EXPORTING = """
import os, signal, sys
from autocompress.cli.main import main
from autocompress import atomic_file
atomic_file.flush_folder = lambda folder: os.kill(os.getpid(), signal.SIGKILL)
main(sys.argv[1:])
"""


def states(run_cli: Run, run: str) -> list[str]:
    trials = json.loads(run_cli("front", run, "--json", "--all").stdout)["trials"]
    return [trial["state"] for trial in trials]


def wait_for(path: Path, process: Any) -> None:
    deadline = time.monotonic() + 90.0
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_bundle_stays_when_its_replacement_is_killed(
    untimed: Path, run_cli: Run, environment: dict[str, str], tmp_path: Path
) -> None:
    assert run_cli("export", "u", "--trial", "0", "-o", "out/point").returncode == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out" / "point").iterdir()}
    killed = subprocess.run(
        [sys.executable, "-c", KILL_WHILE_EXPORTING, "export", "u", "--knee", "-o", "out/point"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    after = {path.name: path.read_bytes() for path in (tmp_path / "out" / "point").iterdir()}
    assert after == before
    assert run_cli("export", "u", "--knee", "-o", "out/point").returncode == 0
    manifest = json.loads((tmp_path / "out" / "point" / "manifest.json").read_text())
    assert manifest["trial"] != 0


def test_a_secret_that_is_named_by_its_variable_is_written_nowhere(
    task_file: Path, run_cli: Run, tmp_path: Path
) -> None:
    text = task_file.read_text().replace(
        "def task():", "def task(token):\n    assert len(token) > 9"
    )
    task_file.write_text(text)
    secret = "hush-8f3a-hush"
    options = (*SEARCH, "--executor", "inline", "--budget", "2", "--run", "s", "--task-arg")
    done = run_cli(*options, "token=env:MY_TOKEN", MY_TOKEN=secret)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert run_cli("export", "s", "--trial", "1", MY_TOKEN=secret).returncode == 0
    files = [path for path in (tmp_path / "results").rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if secret.encode() in path.read_bytes()]

    unset = run_cli("export", "s", "--trial", "1")
    assert unset.returncode == 2
    assert "'MY_TOKEN', which is not set" in unset.stderr


def test_a_secret_that_would_be_kept_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    assert task_arguments(None, ("token=hush", "depth=20")) == {"token": "hush", "depth": "20"}
    told = capsys.readouterr().err
    assert "Warning: a run keeps its task arguments, 'token' too." in told
    assert "depth" not in told
    assert "hush" not in told


def test_of_several_that_start_the_same_run_at_once_one_runs(
    task_file: Path, run_cli: Run, start_cli: Run
) -> None:
    options = (*SEARCH, "--executor", "inline", "--budget", "3", "--run", "r")
    processes = [start_cli(*options) for _ in range(3)]
    said = [process.communicate(timeout=120)[1] for process in processes]
    codes = sorted(process.returncode for process in processes)
    # one that comes when the first has ended finds the budget reached
    assert set(codes) <= {0, 75}, said
    assert 0 in codes
    for process, text in zip(processes, said, strict=True):
        if process.returncode == 75:
            assert "is driven by process" in text
    assert states(run_cli, "r") == ["complete"] * 3


def test_trials_under_way_are_left_when_time_is_up_and_leave_no_process(
    task_file: Path, run_cli: Run, start_cli: Run, tmp_path: Path
) -> None:
    """Ctrl-C with one job: tests/cli/test_search.py."""
    limits = ("--jobs", "2", "--trial-memory", "8GB", "--budget", "4")
    options = (*SEARCH, *limits, "--run", "r", "--without", "table,ladder")
    assert run_cli(*options, "--budget", "1").returncode == 0
    hold = tmp_path / "hold"
    hold.touch()
    process = start_cli(*options, "--timeout", "20s", HOLD=str(hold))
    wait_for(tmp_path / "hold.reached", process)
    family = psutil.Process(process.pid).children(recursive=True)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    _, alive = psutil.wait_procs(family, timeout=5.0)
    assert not alive
    assert states(run_cli, "r") == ["complete", "running", "running"]

    hold.unlink()
    assert run_cli(*options).returncode == 0
    assert states(run_cli, "r") == ["complete"] * 4


def test_a_search_killed_again_and_again_comes_out_as_an_unbroken_one(
    untimed: Path, run_cli: Run, start_cli: Run, tmp_path: Path
) -> None:
    """`kill -9` at random moments; 20 times in 200 trials: benchmarks/soak.py."""
    chance, kills = random.Random(0), 0
    options = (*SEARCH, "--executor", "inline", "--budget", "8", "--run", "killed")
    journal = tmp_path / "results" / "killed" / "trials.jsonl"

    def n_finished() -> int:
        lines = journal.read_text().splitlines() if journal.exists() else []
        return sum('"state": "RUNNING"' not in line and '"number"' in line for line in lines)

    while True:
        process, goal = start_cli(*options), n_finished() + 1  # no trial is killed twice
        while process.poll() is None and (kills == 4 or n_finished() < goal):
            time.sleep(0.02)
        time.sleep(chance.uniform(0.0, 0.4))
        if process.poll() is not None:
            break
        process.kill()
        process.communicate()
        kills += 1
    assert process.returncode == 0, process.communicate()[1]
    process.stderr.close()
    assert kills >= 3
    with contextlib.closing(sqlite3.connect(journal.with_name("study.db"))) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    tables = [
        [
            {name: trial[name] for name in ("trial", "label", "accuracy", "size_bytes", "loss")}
            for trial in json.loads(run_cli("front", run, "--json", "--all").stdout)["trials"]
        ]
        for run in ("u", "killed")
    ]
    assert tables[0] == tables[1]
