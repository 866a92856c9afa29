"""The main job as users run it: processes, files, exit codes."""

import hashlib
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from sklearn.datasets import load_digits

from autocompress.cli.main import cli
from autocompress.errors import InputError
from autocompress.executors.worker import WorkerSpec
from autocompress.runs import search_task

Run = Callable[..., Any]
WITH_WORKER = ("search", "my_task.py", "--threads", "1", "--quiet")
SEARCH = (*WITH_WORKER, "--executor", "inline")
UNTIMED_SEARCH = (*SEARCH, "--objectives", "accuracy,size")


def trials(run_cli: Run, run: str) -> list[dict[str, Any]]:
    done = run_cli("front", run, "--json", "--all")
    assert done.returncode == 0, done.stderr
    kept = (
        "trial",
        "label",
        "plan_digest",
        "accuracy",
        "size_bytes",
        "macs",
        "n_params",
        "fidelity",
    )
    return [{key: trial[key] for key in kept} for trial in json.loads(done.stdout)["trials"]]


def test_search_leaves_everything_a_run_promises(searched: Path, run_cli: Run) -> None:
    names = {path.name for path in searched.iterdir()}
    assert {"study.db", "run.json", "trials.csv", "front.csv", "report.html"} <= names

    front = json.loads(run_cli("front", "--json", "--all").stdout)
    views = {"run", "baseline", "controls", "points", "refined", "search_gain", "trials"}
    assert set(front) == views
    assert front["run"] == "a"
    assert [t["trial"] for t in front["trials"]] == list(range(7))
    assert {t["role"] for t in front["trials"]} == {"baseline", "control", "search"}
    assert front["controls"] == [t for t in front["trials"] if t["role"] == "control"]
    assert front["baseline"]["compression"] == 1.0
    wanted = {"trial", "fidelity", "accuracy", "size_bytes", "latency_ms", "plan_digest"}
    for point in [front["baseline"], *front["controls"], *front["points"]]:
        assert wanted <= set(point)
        assert 0.0 <= point["accuracy"] <= 1.0
    assert run_cli("front").stdout.count("\n") > len(front["points"])


def test_search_again_says_that_the_budget_is_reached(searched: Path, run_cli: Run) -> None:
    before = trials(run_cli, "a")
    done = run_cli("search", "my_task.py", "--threads", "1", "--budget", "7", "--run", "a")

    assert done.returncode == 0
    assert "budget of 7 trials is reached" in done.stderr
    assert trials(run_cli, "a") == before


def test_search_in_two_parts_equals_one(untimed: Path, run_cli: Run) -> None:
    for budget in ("4", "8"):
        done = run_cli(*UNTIMED_SEARCH, "--budget", budget, "--run", "b")
        assert done.returncode == 0, done.stderr

    unbroken = trials(run_cli, "u")
    assert trials(run_cli, "b") == unbroken
    assert any(t["label"].startswith("initial") for t in unbroken)
    assert any(t["label"].startswith("trial") for t in unbroken)


def test_search_killed_in_the_middle_of_a_trial_loses_and_repeats_nothing(
    untimed: Path, run_cli: Run, start_cli: Run, tmp_path: Path
) -> None:
    hold = tmp_path / "hold"
    unbroken = trials(run_cli, "u")
    # a control is tuned at once: before a proposal plans are looked at, and no trial runs yet
    number = max(t["trial"] for t in unbroken if t["label"].startswith("rate penalty"))
    arguments = (*UNTIMED_SEARCH, "--run", "killed", "--budget")
    assert run_cli(*arguments, str(number)).returncode == 0
    hold.touch()
    process = start_cli(*arguments, "8", "--executor", "local", HOLD=str(hold))
    wait_for(tmp_path / "hold.reached", process)
    worker = child_of(process.pid)
    process.send_signal(signal.SIGKILL)
    process.communicate()

    assert gone_within(worker, 5.0)
    front = json.loads(run_cli("front", "killed", "--json", "--all").stdout)
    assert [t["state"] for t in front["trials"]] == ["complete"] * number + ["running"]
    hold.unlink()
    assert run_cli(*arguments, "8", "--executor", "local").returncode == 0
    assert trials(run_cli, "killed") == unbroken  # which was evaluated in the driver's own process


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGINT, 130, "Nothing is lost"),
        (signal.SIGTERM, 143, "Nothing is lost"),
        (signal.SIGHUP, 129, ""),  # to a terminal that is gone nothing can be said
    ],
)
def test_search_stops_cleanly_on_a_signal(
    run_cli: Run, start_cli: Run, task_file: Path, number: signal.Signals, code: int, said: str
) -> None:
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("The tests were started in a way that ignores this signal, such as nohup.")
    hold = task_file.parent / "hold"
    hold.touch()
    process = start_cli("search", "my_task.py", "--budget", "2", "--run", "s", HOLD=str(hold))
    wait_for(task_file.parent / "hold.reached", process)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=120)

    assert process.returncode == code
    assert "Traceback" not in stderr
    assert said in stderr
    assert (task_file.parent / "results" / "s" / "report.html").is_file()
    if number is signal.SIGTERM:  # the study is the same, whichever it was
        hold.unlink()
        assert run_cli(*WITH_WORKER[:2], "--budget", "2", "--run", "s").returncode == 0


def test_second_search_on_a_run_is_told_who_drives_it(
    run_cli: Run, start_cli: Run, task_file: Path
) -> None:
    hold = task_file.parent / "hold"
    hold.touch()
    process = start_cli(*WITH_WORKER, "--budget", "3", "--run", "s", HOLD=str(hold))
    wait_for(task_file.parent / "hold.reached", process)
    second = run_cli(*WITH_WORKER, "--budget", "3", "--run", "s")
    process.kill()
    process.communicate()

    assert second.returncode == 75
    assert f"process {process.pid}" in second.stderr


def test_export_writes_a_bundle_that_does_what_its_manifest_says(
    searched: Path, run_cli: Run, tmp_path: Path
) -> None:
    done = run_cli("export", "a", "--max-drop", "0.05", "-o", "point", "--json")
    assert done.returncode == 0, done.stderr
    bundle = tmp_path / "point"
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert json.loads(done.stdout) == manifest
    for name, facts in manifest["files"].items():
        content = (bundle / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == facts["sha256"]
        assert len(content) == facts["size_bytes"]
    measured = manifest["measurements"]
    assert measured["size_bytes"] == (bundle / "model.acz").stat().st_size
    assert measured["size_bytes"] == measured["search_size_bytes"]

    x, y = load_digits(return_X_y=True)
    x = (x / 16.0).astype(np.float32)
    outputs = outputs_of(bundle / "model.onnx", x)
    assert np.mean(outputs[1500:].argmax(1) == y[1500:]) == measured["test_accuracy"]
    assert np.mean(outputs[1200:1500].argmax(1) == y[1200:1500]) == measured["val_accuracy"]
    assert np.mean(outputs[1200:].argmax(1) == y[1200:]) == pytest.approx(
        measured["held_out_accuracy"]
    )
    assert abs(measured["val_accuracy"] - measured["search_val_accuracy"]) <= 0.02

    unpacked = run_cli("unpack", "point/model.acz", "-o", "again.onnx")
    assert unpacked.returncode == 0, unpacked.stderr
    np.testing.assert_array_equal(outputs_of(tmp_path / "again.onnx", x), outputs)
    assert "--max-drop" not in (bundle / "README.md").read_text()


def test_export_rebuilds_a_trial_whose_weights_were_not_kept(
    searched: Path, run_cli: Run, tmp_path: Path
) -> None:
    tuned = [t for t in trials(run_cli, "a") if t["trial"] and t["fidelity"] == 1]
    number = tuned[0]["trial"]
    (searched / "candidates" / f"trial_{number:05d}.safetensors").unlink(missing_ok=True)
    done = run_cli("export", "a", "--trial", str(number), "--json")

    assert done.returncode == 0, done.stderr
    manifest = json.loads(done.stdout)
    assert manifest["measurements"]["size_bytes"] == tuned[0]["size_bytes"]


def test_export_tunes_a_trial_anew_whose_weights_were_altered(
    searched: Path, run_cli: Run, tmp_path: Path
) -> None:
    tuned = {t["trial"]: t for t in trials(run_cli, "a") if t["fidelity"] == 1}
    kept = [path for path in (searched / "candidates").iterdir() if int(path.stem[-5:]) in tuned]
    content = kept[0].read_bytes()
    kept[0].write_bytes(content[:-64] + bytes(64))
    number = int(kept[0].stem[-5:])
    done = run_cli("export", "a", "--trial", str(number), "--json")

    assert done.returncode == 0, done.stderr
    assert "anew" in done.stderr
    assert "damaged" in done.stderr
    manifest = json.loads(done.stdout)
    assert manifest["measurements"]["size_bytes"] == tuned[number]["size_bytes"]


def test_export_refuses_a_model_that_has_changed(
    searched: Path, run_cli: Run, finished_run: Path
) -> None:
    task_file = finished_run / "my_task.py"  # where the run says that its task is
    text = task_file.read_text()
    task_file.write_text(text.replace("manual_seed(0)", "manual_seed(1)"))
    try:
        done = run_cli("export", "a", "--knee")
    finally:
        task_file.write_text(text)

    assert done.returncode == 3
    assert "made for another model" in done.stderr


def test_search_refuses_to_continue_for_another_model(
    searched: Path, run_cli: Run, tmp_path: Path
) -> None:
    before = hashlib.sha256((searched / "trials.csv").read_bytes()).hexdigest()
    task_file = tmp_path / "my_task.py"
    task_file.write_text(task_file.read_text().replace("manual_seed(0)", "manual_seed(1)"))
    done = run_cli(*SEARCH, "--budget", "10", "--run", "a")

    assert done.returncode == 3
    assert "model:" in done.stderr
    assert hashlib.sha256((searched / "trials.csv").read_bytes()).hexdigest() == before


def outputs_of(path: Path, x: Any) -> Any:
    session = onnxruntime.InferenceSession(path)
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def wait_for(path: Path, process: Any) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)


def child_of(pid: int) -> int:
    """The driver's worker: the child that is not a resource tracker."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        line = Path(f"/proc/{child}/cmdline").read_bytes()
        if b"spawn_main" in line:
            return int(child)
    msg = f"process {pid} has no worker"
    raise AssertionError(msg)


def gone_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_workers_are_told_of_a_task_that_means_the_same_from_any_folder(
    task_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node of a cluster does not run where the search was started."""
    told: list[str] = []

    def note(name: str, evaluator: object, worker: WorkerSpec, resources: object) -> None:
        told.append(worker.task)
        raise InputError("seen enough")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(search_task, "make_executor", note)
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path / "cache"))
    result = CliRunner().invoke(cli, ["search", task_file.name, "--quiet"])
    assert isinstance(result.exception, InputError), result.output
    assert told == [str(task_file)]
