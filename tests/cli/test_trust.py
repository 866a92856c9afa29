import contextlib
import json
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_a_run_from_elsewhere_runs_no_code_until_it_is_trusted(
    searched: Path, run_cli: Run, tmp_path: Path
) -> None:
    elsewhere = {"AUTOCOMPRESS_CACHE": str(tmp_path / "another machine")}
    with contextlib.closing(sqlite3.connect(searched / "study.db")) as connection, connection:
        where = "WHERE key = 'info'"
        (text,) = connection.execute(
            f"SELECT value_json FROM study_user_attributes {where}"
        ).fetchone()
        told = {"task": "subprocess:getoutput", "arguments": {"cmd": "touch pwned"}}
        connection.execute(
            f"UPDATE study_user_attributes SET value_json = ? {where}",
            (json.dumps({**json.loads(text), **told}),),
        )
    for refused in (
        ("export", "a", "--trial", "0"),
        ("refine", "a", "--trial", "1"),
        ("validate", "a"),
    ):
        done = run_cli(*refused, **elsewhere)
        assert done.returncode == 2, done.stderr
        assert "was not searched on this machine" in done.stderr
        assert "--trust-task" in done.stderr
    assert not (tmp_path / "pwned").exists()


def test_a_trusted_run_is_exported_and_stays_trusted(
    searched: Path, run_cli: Run, tmp_path: Path
) -> None:
    elsewhere = {"AUTOCOMPRESS_CACHE": str(tmp_path / "another machine")}
    export = ("export", "a", "--trial", "0")
    assert run_cli(*export, **elsewhere).returncode == 2
    assert run_cli(*export, "--trust-task", **elsewhere).returncode == 0
    assert run_cli(*export, **elsewhere).returncode == 0
