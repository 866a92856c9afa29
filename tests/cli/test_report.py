import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from autocompress.cli.report import command
from autocompress.errors import NoPointError
from tests.builders import make_run, make_trial

FAILED = make_trial(0, label="baseline", reason="export: no kernel")
Invoke = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "results" / "demo"
    path.mkdir(parents=True)
    (path / "study.db").touch()
    return path


@pytest.fixture
def run_command(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Invoke:
    run = make_run(FAILED, name="demo", folder=folder)
    monkeypatch.setattr(
        "autocompress.study.records.load_run", lambda path: dataclasses.replace(run, folder=path)
    )

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(command, [*arguments, "--results", str(folder.parent)])

    return invoke


def test_report_writes_the_page_into_the_run_folder_and_prints_its_path(
    run_command: Invoke, folder: Path
) -> None:
    result = run_command("demo")
    assert result.stdout == f"{folder / 'report.html'}\n"
    assert "export: no kernel" in (folder / "report.html").read_text(encoding="utf-8")


def test_report_writes_where_it_is_told(run_command: Invoke, folder: Path, tmp_path: Path) -> None:
    goal = tmp_path / "page.html"
    assert run_command("-o", str(goal)).stdout == f"{goal}\n"
    assert goal.is_file()
    assert not (folder / "report.html").exists()


def test_report_ends_in_no_point_error_after_writing_a_page_without_points(
    run_command: Invoke,
) -> None:
    assert isinstance(run_command().exception, NoPointError)


def test_report_writes_pictures_where_it_is_told_and_prints_their_paths(
    run_command: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("autocompress.cli.report.require_a_point", lambda run: None)
    monkeypatch.setattr(
        "autocompress.report.pictures.write_pictures",
        lambda figures, folder, kind: [folder / f"size.{kind}"],
    )
    result = run_command("demo", "--png", str(tmp_path / "p"), "--svg", str(tmp_path / "s"))
    lines = [str(tmp_path / "p" / "size.png"), str(tmp_path / "s" / "size.svg")]
    assert result.stdout.splitlines()[1:] == lines
