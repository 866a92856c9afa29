import csv
import dataclasses
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from autocompress.cli.front import command
from autocompress.errors import InputError, NoPointError
from autocompress.objective import Limits
from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.run_record import Role, RunRecord, TrialRecord
from tests.builders import make_measurement, make_run, make_trial


def trial(number: int, role: Role, label: str, accuracy: float, size_bytes: int) -> TrialRecord:
    bits = 32 if role == "baseline" else 4
    measured = make_measurement(
        accuracy=accuracy,
        size_bytes=size_bytes,
        latency_ms=0.4,
        latency_spread_ms=0.01,
        baseline_latency_ms=0.8,
    )
    plan = CompressionPlan(layers={"fc": LayerPlan(weight_bits=bits)})
    return make_trial(number, measured, role=role, label=label, plan=plan)


def failed(number: int, reason: str) -> TrialRecord:
    return make_trial(number, reason=reason)


def record(*trials: TrialRecord) -> RunRecord:
    return make_run(*trials, name="demo", folder=Path("results/demo"))


FULL = record(
    trial(0, "baseline", "baseline", 0.92, 1_000_000),
    trial(1, "control", "uniform 4 bit", 0.90, 200_000),
    trial(2, "search", "trial [red]2\x1b[31m", 0.915, 100_000),
    failed(3, "timeout"),
)


@pytest.fixture
def run_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def invoke(run: RunRecord, *arguments: str) -> Result:
        folder = tmp_path / "results" / "demo"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "study.db").touch()
        monkeypatch.setattr("autocompress.study.records.load_run", lambda folder: run)
        options = [*arguments, "--results", str(tmp_path / "results")]
        return CliRunner().invoke(command, options)

    return invoke


def test_front_prints_a_table_that_fits_80_columns_of_plain_text(run_command) -> None:
    result = run_command(FULL, "demo")
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "\x1b" not in result.stdout
    assert "\x1b[31m" not in result.stdout
    assert r"[red]2\x1b" in result.stdout
    assert "-0.50 pt" in result.stdout
    assert "10.00x" in result.stdout
    assert "uniform 4 bit" not in result.stdout
    assert "2 of 3 finished trials are on the front, 1 failed" in result.stderr


def test_results_may_lie_in_the_home_folder(
    run_command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run_command(FULL, "demo").exit_code == 0  # makes the folder
    assert CliRunner().invoke(command, ["demo", "--results=~/results"]).exit_code == 0


def test_front_all_prints_every_trial(run_command) -> None:
    out = run_command(FULL, "--all").stdout
    assert "uniform 4 bit" in out
    assert "failed" in out


def test_front_json_is_one_object_with_the_promised_keys(run_command) -> None:
    document = json.loads(run_command(FULL, "--json").stdout)
    assert list(document) == ["run", "baseline", "controls", "points", "refined", "search_gain"]
    assert [p["trial"] for p in document["points"]] == [0, 2]
    (within_2pt,) = [r for r in document["search_gain"]["at_drops"] if r["max_drop"] == 0.02]
    assert within_2pt["ratio"]["values"] == [2.0]
    everything = json.loads(run_command(FULL, "--json", "--all").stdout)
    assert [t["trial"] for t in everything["trials"]] == [0, 1, 2, 3]


def test_front_shows_refined_trials_in_a_table_of_their_own(run_command) -> None:
    refined = trial(2, "search", "trial 2, refined", 0.919, 90_000)
    run = dataclasses.replace(FULL, refined=(refined,))
    out = run_command(run, "demo").stdout
    assert out.index("[red]2") < out.index("trial 2, refined")
    assert max(map(len, out.splitlines())) <= 80
    assert "11.11x" in out
    assert "refined" not in run_command(FULL, "demo").stdout
    document = json.loads(run_command(run, "--json").stdout)
    assert [p["label"] for p in document["refined"]] == ["trial 2, refined"]
    assert [p["size_bytes"] for p in document["points"]] == [1_000_000, 100_000]


def test_front_csv_has_a_row_per_point(run_command) -> None:
    rows = list(csv.DictReader(io.StringIO(run_command(FULL, "--csv").stdout)))
    assert [row["trial"] for row in rows] == ["0", "2"]
    assert float(rows[1]["compression"]) == 10.0
    assert len(list(csv.DictReader(io.StringIO(run_command(FULL, "--csv", "--all").stdout)))) == 4


def test_front_keeps_the_limits_and_shows_the_baseline_beside_it(run_command) -> None:
    limited = dataclasses.replace(FULL, limits=Limits(max_size_bytes=150_000))
    result = run_command(limited)
    assert result.exit_code == 0
    assert "baseline, 850.0" in result.stdout
    assert "kB too large" in result.stdout
    assert "1 of 3 finished trials are on the front" in result.stderr
    assert "nearest" not in result.stderr
    assert [p["trial"] for p in json.loads(run_command(limited, "--json").stdout)["points"]] == [2]


def test_front_says_when_nothing_keeps_the_limits(run_command) -> None:
    result = run_command(dataclasses.replace(FULL, limits=Limits(max_size_bytes=99_000)))
    assert result.exit_code == 0
    assert "0 of 3 finished trials are on the front" in result.stderr
    (line,) = [text for text in result.stderr.splitlines() if text.startswith("No compressed")]
    assert line.endswith("(91.50 %, 100.0 kB, 0.400 ms): 1.0 kB too large.")
    assert "\x1b" not in line


def test_front_counts_stopped_trials(run_command) -> None:
    stopped = dataclasses.replace(failed(4, "Not tuned."), state="stopped")
    result = run_command(dataclasses.replace(FULL, trials=(*FULL.trials, stopped)), "--all")
    assert "1 failed, 1 stopped early" in result.stderr
    assert "stopped" in result.stdout


def test_front_refuses_csv_and_json_together(run_command) -> None:
    result = run_command(FULL, "--csv", "--json")
    assert isinstance(result.exception, InputError)


def test_front_raises_no_point_error_naming_the_commonest_reason(run_command) -> None:
    result = run_command(record(failed(0, "export"), failed(1, "oom"), failed(2, "oom")))
    assert isinstance(result.exception, NoPointError)
    assert result.exception.exit_code == 4
    assert "none of 3" in result.exception.message
    assert "2 of them for: oom" in result.exception.hint
    assert result.stdout == ""
