import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from autocompress.cli.front import command as front
from autocompress.cli.refine import command
from autocompress.cli.search import command as search
from autocompress.errors import InputError, NoPointError
from autocompress.study.result_files import refined_weights_path

Run = Callable[..., subprocess.CompletedProcess[str]]


def refined(folder: Path) -> list[int]:
    path = folder / "refinements.json"
    return [e["trial"] for e in json.loads(path.read_text())["results"]] if path.exists() else []


def wait_for(found: Callable[[], bool], process: Any) -> None:
    deadline = time.monotonic() + 120
    while not found():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.02)


def test_refine_says_that_nothing_is_lost_when_it_is_terminated(
    searched: Path, tmp_path: Path, start_cli: Callable[..., Any]
) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    process = start_cli("refine", "a", "--trial", "2", HOLD=str(hold))
    wait_for(Path(f"{hold}.reached").exists, process)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Stopped. Nothing is lost" in stderr
    assert "Traceback" not in stderr


def test_refine_survives_a_kill_continues_and_ships_what_it_trained(
    searched: Path, tmp_path: Path, run_cli: Run, start_cli: Callable[..., Any]
) -> None:
    study = (searched / "study.db").read_bytes()
    hold = tmp_path / "hold"
    arguments = ("refine", "a", "--trial", "2", "--recipe", "epochs=40", "--patience", "40")
    process = start_cli(*arguments, HOLD=str(hold))
    try:
        wait_for(lambda: any(searched.glob("refined/*.checkpoint")), process)
        hold.touch()  # in the middle of an epoch that is not the first
        wait_for(Path(f"{hold}.reached").exists, process)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        _, before = process.communicate()
    assert ": epoch 1 of 40: " in before
    assert " left\n" in before
    n_done = before.count(": epoch ")
    assert refined(searched) == []
    hold.unlink()

    done = run_cli(*arguments)
    assert done.returncode == 0, done.stderr
    first = next(line for line in done.stderr.splitlines() if ": epoch " in line)
    assert n_done <= int(first.split(": epoch ")[1].split(" of ")[0]) - 1 <= n_done + 1
    assert ": epoch 40 of 40: " in done.stderr
    assert ", refined: " in done.stderr
    assert ", refined" in done.stdout
    assert refined(searched) == [2]
    assert list((searched / "refined").iterdir()) == [refined_weights_path(searched, 2)]

    again = run_cli(*arguments, "--json")
    assert "1 of 1 trials is refined in this way already." in again.stderr
    assert ": epoch " not in again.stderr
    (point,) = json.loads(again.stdout)["refined"]
    assert (point["trial"], point["fidelity"]) == (2, 2)

    shown = CliRunner().invoke(front, ["a", "--json", "--results", str(searched.parent)])
    assert json.loads(shown.stdout)["refined"] == [point]

    exported = run_cli("export", "a", "--trial", "2", "-o", "shipped")
    assert exported.returncode == 0, exported.stderr
    manifest = json.loads((tmp_path / "shipped" / "manifest.json").read_text())
    assert (manifest["trial"], manifest["fidelity"]) == (2, 2)
    assert manifest["measurements"]["size_bytes"] == point["size_bytes"]
    assert manifest["measurements"]["search_val_accuracy"] == point["accuracy"]
    assert manifest["measurements"]["val_accuracy"] == pytest.approx(point["accuracy"], abs=0.01)
    assert (searched / "study.db").read_bytes() == study


def test_refine_front_takes_the_time_it_is_given(searched: Path, run_cli: Run) -> None:
    front = json.loads(run_cli("front", "a", "--json").stdout)["points"]
    n_points = sum(point["trial"] != 0 for point in front)  # milliseconds decide who is there
    done = run_cli("refine", "a", "--front", "--top", "2", "--refine-time", "0.2s", "--quiet")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(refined(searched)) == min(2, n_points) > 0
    document = json.loads((searched / "refinements.json").read_text())
    for result in document["results"]:
        last = result["epochs"][-1]
        assert last["number"] <= last["n_epochs"]
        assert result["measurement"]["fidelity"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--top", "1"), "Points must be named: --trial N, --front, or both."),
        (("--front", "--top", "0"), "`--top` must be at least 1, but got 0."),
        (("--front", "--recipe", "epoch=3"), "Unknown setting of recipe 'epoch'."),
        (("--front", "--refine-time", "soon"), "`--refine-time` must be"),
        (
            ("--front", "--recipe", "epochs=3", "--refine-time", "1m"),
            "`--refine-time` sets the epochs, but --recipe sets them as well.",
        ),
    ],
)
def test_refine_refuses_options_that_do_not_fit(arguments: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(command, ["a", *arguments])
    assert isinstance(result.exception, InputError)
    assert result.exception.message.startswith(message)
    assert result.stdout == ""


def test_refine_says_why_nothing_could_be_refined(searched: Path, run_cli: Run) -> None:
    result = run_cli("refine", "a", "--trial", "2", "--recipe", "epochs=3,learning_rate=1e30")
    assert result.returncode == 4
    assert "None of the 1 trials could be refined." in result.stderr
    assert "The first reason: nonfinite_loss: The loss became " in result.stderr
    assert ", refined: failed (nonfinite_loss" in result.stderr
    assert "Traceback" not in result.stderr
    assert refined(searched) == [2]
    assert not list((searched / "refined").glob("*"))


def test_damaged_refinements_are_one_line(searched: Path, run_cli: Run) -> None:
    (searched / "refinements.json").write_text('{"format": 1, "results": [{}]}')
    result = run_cli("front", "a")
    assert result.returncode == 2
    assert "refinements.json cannot be read" in result.stderr
    assert "Traceback" not in result.stderr


def test_search_refines_the_front_at_its_end(searched: Path, run_cli: Run) -> None:
    # the budget is reached: nothing is searched
    result = run_cli(
        *("search", "my_task.py", "--threads", "1", "--executor", "inline", "--quiet"),
        *("--budget", "7", "--run", "a", "--refine", "1", "--json"),
    )
    assert result.returncode == 0, result.stderr
    shown = json.loads(result.stdout)
    assert [p["trial"] for p in shown["refined"]] == refined(searched)
    assert len(shown["refined"]) == 1
    assert shown["refined"][0]["trial"] in [p["trial"] for p in shown["points"]]


def test_search_tells_its_result_also_where_nothing_could_be_refined(
    searched: Path, tmp_path: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **how: Any) -> None:
        raise NoPointError("None of the 1 trials could be refined.")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(cache_folder))
    monkeypatch.setattr("signal.signal", lambda *arguments: None)
    monkeypatch.setattr("autocompress.terminal.refine_progress.refine_points", fail)
    result = CliRunner().invoke(
        search,
        [
            *("my_task.py", "--threads", "1", "--executor", "inline", "--quiet"),
            *("--budget", "7", "--run", "a", "--refine", "1", "--json"),
        ],
    )
    assert isinstance(result.exception, NoPointError)
    assert json.loads(result.stdout)["points"]
