"""Real faults, injected into real processes: what is lost, what is left, what is said."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

Run = Callable[..., Any]
SEARCH = ("search", "my_task.py", "--threads", "1", "--objectives", "accuracy,size", "--quiet")
KILL_WHILE_EXPORTING = """
import os, signal, sys
from autocompress.cli.main import main
from autocompress.export import bundle
bundle.flush_folder = lambda folder: os.kill(os.getpid(), signal.SIGKILL)
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
    told = run_cli(*options[:-3], "--run", "t", "--budget", "1", "--task-arg", f"token={secret}")
    assert "Warning: a run keeps its task arguments, 'token' too." in told.stderr


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


@pytest.mark.parametrize("how", ["timeout", "ctrl-c"])
def test_trials_under_way_are_handed_back_and_leave_no_process(
    task_file: Path, run_cli: Run, start_cli: Run, tmp_path: Path, how: str
) -> None:
    options = (*SEARCH, "--jobs", "2", "--run", "r", "--budget", "6", "--without", "table,ladder")
    assert run_cli(*options[:-4], "--budget", "1", "--without", "table,ladder").returncode == 0
    hold = tmp_path / "hold"
    hold.touch()
    limit = ("--timeout", "15s") if how == "timeout" else ()
    process = start_cli(*options, *limit, HOLD=str(hold))
    wait_for(tmp_path / "hold.reached", process)
    time.sleep(1.0)
    family = psutil.Process(process.pid).children(recursive=True)
    if how == "ctrl-c":
        process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == (0 if how == "timeout" else 130), said
    assert "Traceback" not in said
    _, alive = psutil.wait_procs(family, timeout=5.0)
    assert not alive
    assert states(run_cli, "r")[0] == "complete"
    assert "running" in states(run_cli, "r")

    hold.unlink()
    assert run_cli(*options).returncode == 0
    assert states(run_cli, "r") == ["complete"] * 6
