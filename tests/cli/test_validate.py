import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., subprocess.CompletedProcess[str]]
VALIDATE = ("validate", "a", "--sample", "4", "--epochs", "4")


def trained(folder: Path) -> list[int]:
    path = folder / "validation.json"
    if not path.exists():
        return []
    return [entry["trial"] for entry in json.loads(path.read_text())["results"]]


def wait_for(path: Path, process: Any) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)


def test_validate_survives_a_kill_continues_and_leaves_the_study_alone(
    searched: Path, tmp_path: Path, run_cli: Run, start_cli: Callable[..., Any]
) -> None:
    study = (searched / "study.db").read_bytes()
    hold = tmp_path / "hold"
    hold.touch()
    process = start_cli(*VALIDATE, HOLD=str(hold))
    try:
        wait_for(Path(f"{hold}.reached"), process)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        _, stderr = process.communicate()
    assert "Training 4 of 4 trials in full" in stderr
    assert trained(searched) == []
    hold.unlink()

    done = run_cli(*VALIDATE)
    assert done.returncode == 0, done.stderr
    assert "Training 4 of 4 trials in full, 2 times as long as the proxy" in done.stderr
    assert len(trained(searched)) == 4
    for text in ("Kendall's tau-b", "Spearman's rho", "best third", "Cost: the proxy took "):
        assert text in done.stdout
    assert "trained again from the base model for 4 epochs (2 times the proxy's 2)" in done.stdout
    assert "ranked by divergence" in done.stdout

    again = run_cli(*VALIDATE, "--json")
    assert "trained in full already" in again.stderr
    document = json.loads(again.stdout)
    assert document["overall"]["n"] == 4
    assert [t["trial"] for t in document["trials"]] == sorted(trained(searched))
    assert {t["full"]["fidelity"] for t in document["trials"]} == {2}
    assert all(t["full"]["latency_ms"] is None for t in document["trials"])
    assert (searched / "study.db").read_bytes() == study


def test_validate_refuses_bad_input_in_one_line(searched: Path, run_cli: Run) -> None:
    result = run_cli("validate", "a", "--epochs", "1")
    assert result.returncode == 2
    assert "Error: `--epochs` must be at least the proxy's 2, but got 1." in result.stderr
    assert result.stdout == ""


def test_validate_refuses_a_run_whose_model_has_changed(
    searched: Path, run_cli: Run, finished_run: Path
) -> None:
    task_file = finished_run / "my_task.py"  # where the run says that its task is
    text = task_file.read_text()
    task_file.write_text(text.replace("manual_seed(0)", "manual_seed(1)"))
    try:
        result = run_cli(*VALIDATE)
    finally:
        task_file.write_text(text)
    assert result.returncode == 3
    assert "was made for another model" in result.stderr
    assert trained(searched) == []
