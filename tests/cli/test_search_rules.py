"""Limits, stop rules and proxies as users type them: processes, files, exit codes."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., Any]
SEARCH = ("search", "my_task.py", "--threads", "1", "--executor", "inline")


def test_search_with_limits_holds_and_remembers_them(
    run_cli: Run, task_file: Path, tmp_path: Path
) -> None:
    options = ("--run", "r", "--proxy", "quick,temperature=3", "--without", "early_stopping")
    done = run_cli(*SEARCH, "--budget", "4", *options, "--max-size", "3kB", "--max-drop", "5pt")
    assert done.returncode == 0, done.stderr
    assert "too large" in done.stderr

    view = json.loads((tmp_path / "results" / "r" / "run.json").read_text())
    assert view["limits"] == {"max_drop": 0.05, "max_size_bytes": 3000}
    assert view["without"] == ["early_stopping"]
    assert view["fidelity"] == 1
    assert (view["recipe"]["epochs"], view["recipe"]["temperature"]) == (0.5, 3.0)
    front = json.loads(run_cli("front", "--json", "--all").stdout)
    assert all(point["size_bytes"] <= 3000 for point in front["points"])
    assert front["baseline"]["violations"]["max_size_bytes"] > 0
    points = {point["trial"] for point in front["points"]}
    assert points <= {trial["trial"] for trial in front["trials"] if trial["feasible"]}

    other = run_cli(*SEARCH, "--budget", "4", *options, "--max-size", "4kB", "--max-drop", "5pt")
    assert other.returncode == 3
    assert "limits.max_size_bytes: 3000 then, 4000 now" in other.stderr


def test_a_training_free_search_that_finds_nothing_within_the_limits_says_so(
    run_cli: Run, task_file: Path, tmp_path: Path
) -> None:
    limits = ("--proxy", "none", "--max-size", "100B")
    done = run_cli(*SEARCH, "--budget", "5", "--quiet", "--run", "r", *limits)
    assert done.returncode == 4, done.stderr
    (line,) = [text for text in done.stderr.splitlines() if "No compressed" in text]
    assert "at most 100 B" in line
    assert "The nearest miss is " in line

    document = json.loads(run_cli("front", "r", "--json", "--all").stdout)
    assert document["points"] == []
    assert [trial["fidelity"] for trial in document["trials"]] == [0] * 5
    assert run_cli("export", "r", "--knee").returncode == 4
    page = (tmp_path / "results" / "r" / "report.html").read_text()
    assert "No compressed point keeps the limits" in page


def test_a_search_out_of_time_or_stalled_ends_cleanly_and_goes_on(
    run_cli: Run, task_file: Path, tmp_path: Path
) -> None:
    first = run_cli(*SEARCH, "--budget", "40", "--run", "r", "--timeout", "0.001s")
    assert first.returncode == 0, first.stderr
    assert re.search("The time is up: [01] of 40 trials are finished", first.stderr)
    assert (tmp_path / "results" / "r" / "report.html").is_file()

    stalled = run_cli(*SEARCH, "--budget", "40", "--run", "r", "--until-stalled", "1")
    assert stalled.returncode == 0, stalled.stderr
    assert "Stalled after " in stalled.stderr
    trials = (tmp_path / "results" / "r" / "trials.csv").read_text()
    again = run_cli(*SEARCH, "--budget", "40", "--run", "r", "--until-stalled", "1")
    assert again.returncode == 0
    assert "Stalled after " in again.stderr
    assert (tmp_path / "results" / "r" / "trials.csv").read_text() == trials


def test_what_cannot_be_granted_is_refused_before_anything_starts(
    run_cli: Run, task_file: Path, tmp_path: Path
) -> None:
    done = run_cli("search", "my_task.py", "--run", "r", "--jobs", "2", "--executor", "inline")
    assert done.returncode == 2
    assert "one trial at a time" in done.stderr
    assert not (tmp_path / "results" / "r").exists()
