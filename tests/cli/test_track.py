from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from autocompress.cli.search import command
from autocompress.errors import InputError
from tests.needs import need_extra


def test_track_that_is_not_installed_ends_before_the_task_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    arguments = ["no_task.py", "--track", "mlflow", "--results", str(tmp_path)]
    result = CliRunner().invoke(command, arguments)
    assert isinstance(result.exception, InputError)
    assert result.exception.hint == "Install it with: pip install 'autocompress[mlflow]'"
    assert list(tmp_path.iterdir()) == []


def test_track_takes_a_finished_run_over_when_it_is_resumed(
    untimed: Path, run_cli: Any, tmp_path: Path
) -> None:
    need_extra("tensorboard")
    track = ("--track", f"tensorboard:{tmp_path / 'boards'}")
    resumed = run_cli("resume", "u", "--budget", "9", "--quiet", *track)
    assert resumed.returncode == 0, resumed.stderr
    trials = sorted(path.name for path in (tmp_path / "boards" / "u").glob("trial_*"))
    assert trials == [f"trial_{number:05d}" for number in range(9)]
    assert "boards" not in (untimed / "run.json").read_text()
