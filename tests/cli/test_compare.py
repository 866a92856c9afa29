import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from autocompress.cli.compare import command
from autocompress.errors import InputError, NoPointError, StudyMismatchError
from autocompress.study.records import load_run

Invoke = Callable[..., Result]


@pytest.fixture
def invoke(finished_run: Path, finished_untimed_run: Path) -> Invoke:
    """`compare` on real runs: `a` with latency and 7 trials, `u` without and 8."""
    folders = {"A": finished_run / "results" / "a", "U": finished_untimed_run / "results" / "u"}

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(command, [str(folders.get(word, word)) for word in arguments])

    return run


def test_compare_prints_tables_and_what_is_not_comparable(invoke: Invoke) -> None:
    result = invoke("A", "U")
    assert result.exit_code == 0, result.exception
    assert "Smallest file by allowed loss of accuracy:" in result.stdout
    assert "options.budget" in result.stdout
    assert "Not comparable: hypervolumes, because these differ: objectives" in result.stderr
    assert result.stdout.isprintable() is False  # lines
    assert "×" not in result.stdout


def test_compare_json_holds_figures_of_both_runs(invoke: Invoke, finished_run: Path) -> None:
    document = json.loads(invoke("A", "U", "--json").stdout)
    run = load_run(finished_run / "results" / "a")
    assert [entry["name"] for entry in document["runs"]] == ["a", "u"]
    assert document["runs"][0]["hypervolume"] == run.hypervolume(run.feasible)
    assert document["n_equal_trials"] == 7
    assert "objectives" in document["not_comparable"]["hypervolume"]
    assert {row["cost"] for row in document["at_drops"]} >= {"size_bytes"}


def test_compare_writes_the_page_and_prints_its_path(invoke: Invoke, tmp_path: Path) -> None:
    goal = tmp_path / "compare.html"
    result = invoke("A", "U", "-o", str(goal))
    assert result.stdout.splitlines()[-1] == str(goal)
    assert "<h1>2 runs compared</h1>" in goal.read_text(encoding="utf-8")


def test_compare_refuses_one_run(invoke: Invoke) -> None:
    error = invoke("A").exception
    assert isinstance(error, InputError)
    assert "needs 2 to 6 runs, but got 1" in error.message


def test_compare_refuses_a_missing_run(invoke: Invoke) -> None:
    error = invoke("A", "nowhere").exception
    assert isinstance(error, InputError)
    assert "'nowhere'" in error.message


def test_compare_refuses_a_damaged_run(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"not a database" * 100)
    error = invoke("A", str(tmp_path)).exception
    assert isinstance(error, StudyMismatchError)


def test_compare_refuses_a_run_without_a_finished_trial(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_trials(folder: Path) -> object:
        run = load_run(folder)
        return run if run.name == "a" else dataclasses.replace(run, trials=())

    monkeypatch.setattr("autocompress.study.records.load_run", without_trials)
    error = invoke("A", "U").exception
    assert isinstance(error, NoPointError)
    assert "'u'" in error.message
