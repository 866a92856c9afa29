"""`--storage` as users type it: several searches of one study on a PostgreSQL server."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cli.conftest import UNTIMED_SEARCH

Run = Callable[..., Any]


def test_two_searches_share_a_budget_and_one_that_is_killed_is_replaced(
    task_file: Path,
    run_cli: Run,
    start_cli: Callable[..., Any],
    postgres_url: str,
    postgres_server: Any,
    tmp_path: Path,
) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    options = (*UNTIMED_SEARCH, "--budget", "9", "--run", "s")
    storage = {"AUTOCOMPRESS_STORAGE": postgres_url}
    doomed = start_cli(*options, "--results", "doomed", HOLD=str(hold), **storage)
    while not Path(f"{hold}.reached").exists():
        assert doomed.poll() is None, doomed.stderr.read()
    drivers = json.loads(run_cli("studies", "--results", "doomed", "--json", **storage).stdout)
    assert drivers[0]["state"].startswith(f"driven by process {doomed.pid} on ")
    others = [start_cli(*options, **storage) for _ in range(2)]
    doomed.kill()  # in the middle of a trial that nobody else may begin
    doomed.communicate()
    said = [process.communicate(timeout=120)[1] for process in others]
    assert [process.returncode for process in others] == [0, 0], said

    done = run_cli("front", "s", "--json", "--all", **storage)
    trials = json.loads(done.stdout)["trials"]
    assert [trial["trial"] for trial in trials] == list(range(9))
    assert {trial["state"] for trial in trials} == {"complete"}
    run_info = json.loads((tmp_path / "results" / "s" / "run.json").read_text())
    assert run_info["task_name"] == "mlp"
    for path in (tmp_path / "results").rglob("*"):
        assert path.is_dir() or postgres_server.PASSWORD.encode() not in path.read_bytes(), path

    more = run_cli("resume", "s", "--budget", "10", PGPASSWORD=postgres_server.PASSWORD)
    assert more.returncode == 0, more.stderr
    assert "of 10 finished trials" in run_cli("front", "s", **storage).stderr


def test_a_storage_that_cannot_be_used_is_refused_before_anything_is_written(
    task_file: Path, run_cli: Run, postgres_url: str, postgres_server: Any, tmp_path: Path
) -> None:
    wrong = postgres_url.replace(postgres_server.PASSWORD, "guess-pw")
    done = run_cli(*UNTIMED_SEARCH, "--run", "x", "--storage", wrong)
    assert done.returncode == 2
    assert "authentication failed" in done.stderr
    assert "guess-pw" not in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert not (tmp_path / "results").exists()
