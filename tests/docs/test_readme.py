"""The README's own-model example, and its commands in the order they stand there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from autocompress.cli.main import cli
from autocompress.errors import NoPointError
from tests.docs.conftest import ROOT, blocks, words_of

README = ROOT / "README.md"
SERVES = "autocompress watch"  # until Ctrl-C: tests/cli/test_watch.py
FAST = ("--executor", "inline", "--threads", "1", "--proxy", "quick", "--without", "table")


def lines() -> list[str]:
    """The block of commands that begins with the own model's analysis."""
    (block,) = (b.text for b in blocks(README, "") if b.text.startswith("autocompress analyze"))
    return block.splitlines()


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the README's task, and what its commands take for granted."""
    (block,) = blocks(README, "python")
    (tmp_path / "my_task.py").write_text(block.text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli, list(arguments))
    # a model that was never trained need have no point within a limit
    is_without_point = isinstance(result.exception, NoPointError)
    assert result.exit_code == 0 or is_without_point, result.output or result.exception
    return result.stdout


def test_commands_of_the_readme_run_in_their_order(reader: Path) -> None:
    done = []
    for line in lines():
        if line.startswith(SERVES):
            continue
        name, *arguments = words_of(re.sub(r"--budget \d+", "--budget 3", line))
        if name == "search":
            own = [] if "--budget" in arguments else ["--run", "limited", "--budget", "2"]
            arguments += [*FAST, *own]
        elif name == "compare":
            arguments = ["results/task", "results/limited"]
        elif name in ("front", "report", "refine", "export"):  # of the last run, unless told
            arguments = ["results/task", *arguments]
            if name == "refine":
                arguments += ["--recipe", "epochs=0.1"]
            if name == "export":
                run(name, "results/task", "--trial", "2", "-o", "results/task/exports/trial_00042")
        elif name == "bench":
            Path("old.onnx").write_bytes(Path("model.onnx").read_bytes())
        elif name == "quantize":
            continue  # needs a model worth agreeing with: tests/export/test_post_training.py
        run(name, *arguments)
        done.append(name)
    assert done[:3] == ["analyze", "search", "search"]
    assert {"front", "report", "compare", "refine", "export", "verify", "unpack", "bench"} <= {
        *done
    }
