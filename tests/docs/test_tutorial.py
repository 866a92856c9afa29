"""The tutorial from its first line to its last, on fewer trials, and every block of Python."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from autocompress.cli.main import cli
from autocompress.tasks.base import Task
from tests.docs.conftest import PAGES, ROOT, Snippet, blocks, commands, words_of

# Calls that are written on another branch; empty once they are here.
BUILT_ELSEWHERE = ("ac.search(",)

TUTORIAL = ROOT / "docs" / "tutorial.md"
# The fixture's work, half a minute of training, a browser's work.
NOT_RUN = ("autocompress search", "autocompress export", "autocompress refine", "--png")
SEARCH = (
    *("search", "my_task.py", "--objectives", "accuracy,size", "--executor", "inline"),
    *("--threads", "1", "--budget", "3", "--without", "table,seeds", "--proxy", "quick", "--quiet"),
)
PYTHON = [block for page in PAGES for block in blocks(page, "python")]
COMMANDS = [
    c
    for c in commands()
    if c.page == "docs/tutorial.md" and not any(words in c.text for words in NOT_RUN)
]


class MyModel(nn.Sequential):
    """The architecture of the tutorial's task."""

    def __init__(self) -> None:
        super().__init__(
            nn.Linear(13, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where a reader is at the tutorial's end: the task, two runs, a bundle, an unpacked file."""
    path = tmp_path_factory.mktemp("reader")
    first, *_ = blocks(TUTORIAL, "python")
    (path / "my_task.py").write_text(first.text, encoding="utf-8")
    before = os.getcwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.chdir(path)
        patch.syspath_prepend(str(path))
        threads = torch.get_num_threads()
        _run(*SEARCH, "--run", "wine")
        _run(*SEARCH, "--run", "wine_bits", "--space", "quantize_only")
        bundle = Path("results/wine/exports/trial_00002")
        _run("export", "wine", "--trial", "2", "-o", str(bundle))
        _run("unpack", str(bundle / "model.acz"), "-o", "model.onnx")
        shutil.copytree("results/wine", "results/task")
        shutil.copytree(bundle, "results/task/exports/trial_00042")
        yield path
        torch.set_num_threads(threads)
    sys.modules.pop("my_task", None)
    assert os.getcwd() == before


def _run(*arguments: str) -> str:
    result = CliRunner().invoke(cli, list(arguments))
    assert result.exit_code == 0, result.output or result.exception
    return result.stdout


def test_tutorial_has_its_commands() -> None:
    names = {words_of(command.text)[0] for command in COMMANDS}
    assert names >= {"analyze", "front", "report", "compare", "verify", "unpack"}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.text)
def test_command_of_the_tutorial_runs(command: Snippet, folder: Path) -> None:
    arguments = words_of(command.text)
    if arguments[0] == "unpack":
        Path("model.onnx").unlink()
    assert _run(*arguments)


@pytest.mark.parametrize("block", PYTHON, ids=lambda b: f"{b.page}: {b.text[:40]!r}")
def test_python_of_a_page_runs(block: Snippet, folder: Path) -> None:
    if any(words in block.text for words in BUILT_ELSEWHERE):
        pytest.skip("built on another branch")
    names: dict[str, Any] = {"MyModel": MyModel, "__name__": "__page__"}
    exec(compile(block.text, block.page, "exec"), names)
    if "def task(" in block.text:
        assert isinstance(names["task"](), Task)
