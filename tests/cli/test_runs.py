"""`studies`, `resume` and `doctor` as users type them."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from autocompress.cli.main import cli
from autocompress.errors import InputError
from tests.cli.conftest import UNTIMED_SEARCH

Run = Callable[..., Any]


def test_studies_lists_runs_and_says_which_cannot_be_read(untimed: Path, run_cli: Run) -> None:
    (untimed.parent / "broken").mkdir()
    (untimed.parent / "broken" / "study.db").write_bytes(b"not a database, " * 512)
    done = run_cli("studies", "--json")
    assert done.returncode == 0, done.stderr
    broken, run = json.loads(done.stdout)
    assert "autocompress doctor" in broken["state"]
    assert run == {
        **{"run": "u", "task": "mlp", "finished": 8, "budget": 8, "front": run["front"]},
        **{"sampler": "guided", "seed": 0, "state": "done"},
    }
    assert run["front"] > 0
    assert "mlp" in run_cli("studies").stdout
    empty = run_cli("studies", "--results", "nowhere")
    assert (empty.returncode, empty.stdout) == (0, "")
    assert "no run" in empty.stderr


def test_resume_does_what_repeating_the_command_does_from_any_folder(
    untimed: Path, run_cli: Run, tmp_path: Path
) -> None:
    options = ("--budget", "4", "--run", "b", "--executor", "local")
    done = run_cli(*UNTIMED_SEARCH, *options, "--max-size", "1GB")  # limits nothing
    assert done.returncode == 0, done.stderr
    done = run_cli("resume", str(tmp_path / "results" / "b"), "--budget", "8", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(run_cli("front", "b", "--json", "--all").stdout)["trials"]
    whole = json.loads(run_cli("front", "u", "--json", "--all").stdout)["trials"]
    key = ("trial", "label", "plan_digest", "accuracy", "size_bytes")
    assert [[t[k] for k in key] for t in shown] == [[t[k] for k in key] for t in whole]
    more = run_cli("resume", "b", "--budget", "9", "--jobs", "2")  # one thread each, as before
    assert more.returncode == 0, more.stderr
    again = run_cli("resume", "b", "--budget", "8")
    assert again.returncode == 0
    assert "budget of 8 trials is reached" in again.stderr


def test_resume_does_not_load_the_task_of_a_run_from_elsewhere(
    untimed: Path, run_cli: Run, tmp_path: Path
) -> None:
    done = run_cli("resume", "u", AUTOCOMPRESS_CACHE=str(tmp_path / "another_cache"))
    assert done.returncode == 2
    assert "--trust-task" in done.stderr


def test_doctor_finds_and_mends(untimed: Path, run_cli: Run) -> None:
    before = run_cli("front", "u", "--csv", "--all").stdout
    sound = run_cli("doctor", "u")
    assert sound.returncode == 0, sound.stderr
    assert "8 finished trials" in sound.stdout
    (untimed / "study.db").write_bytes(b"not a database, " * 512)
    found = run_cli("doctor", "u")
    assert found.returncode == 3
    assert "BAD" in found.stdout
    assert "--repair" in found.stdout
    assert run_cli("front", "u").returncode == 3
    assert run_cli("doctor", "u", "--repair").returncode == 0
    assert run_cli("front", "u", "--csv", "--all").stdout == before
    assert run_cli("doctor", "nowhere").returncode == 2


def test_show_says_what_a_trial_is_and_that_it_comes_out_the_same_again(
    untimed: Path, run_cli: Run
) -> None:
    trials = json.loads(run_cli("front", "u", "--json", "--all").stdout)["trials"]
    tuned = [trial for trial in trials if trial["fidelity"] == 1][-1]
    done = run_cli("show", "u", "--trial", str(tuned["trial"]), "--rerun", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    for name in ("accuracy", "size_bytes", "macs", "n_params"):
        assert shown["rerun"][name] == shown["measurement"][name] == tuned[name]
    assert shown["label"] == tuned["label"]
    words = run_cli("show", "u", "--trial", "0").stdout
    assert "baseline: complete" in words
    assert "unchanged" in words
    missing = run_cli("show", "u", "--trial", "99")
    assert missing.returncode == 2
    assert "Its trials are 0 to 7." in missing.stderr


@pytest.mark.parametrize("kept", [{"budget": "many"}, {"budget": [50]}, {"nonsense": 1}, [], None])
def test_resume_refuses_options_that_make_no_sense(untimed: Path, kept: object) -> None:
    with sqlite3.connect(untimed / "study.db") as database:
        query = "SELECT value_json FROM study_user_attributes WHERE key = 'info'"
        info = {**json.loads(database.execute(query).fetchone()[0]), "options": kept}
        update = "UPDATE study_user_attributes SET value_json = ? WHERE key = 'info'"
        database.execute(update, [json.dumps(info)])
    database.close()
    result = CliRunner().invoke(cli, ["resume", str(untimed), "--trust-task"])
    assert isinstance(result.exception, InputError), result.output
    assert "does not say which options" in result.exception.message
