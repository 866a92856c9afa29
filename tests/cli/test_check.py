"""`autocompress check` and `init` as users run them: what they print, and the exit code."""

import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from autocompress.cli.main import cli
from autocompress.cli.search import command as search

FAST = ("--only", "task,data,model,deterministic,gradients,loss,metric,direction,baseline,splits")
BROKEN = """
from autocompress import Task

def task():
    return Task(model=None,
"""


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return CliRunner()


def test_init_writes_a_task_that_passes_every_check(runner: CliRunner) -> None:
    done = runner.invoke(cli, ["init"])
    assert done.exit_code == 0
    assert "autocompress check my_task.py" in done.output
    text = Path("my_task.py").read_text()
    assert [f"EDIT {i}" in text for i in range(1, 6)] == [True, True, True, True, False]

    checked = runner.invoke(cli, ["check", "my_task.py", *FAST])

    assert checked.exit_code == 0, checked.output
    lines = checked.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["pass", name] for name in FAST[1].split(",")]
    assert "Next: autocompress search my_task.py" in checked.stderr


def test_init_does_not_overwrite_unless_forced(runner: CliRunner) -> None:
    Path("mine.py").write_text("precious")

    refused = runner.invoke(cli, ["init", "mine.py"])
    assert refused.exception is not None
    assert "mine.py exists already" in str(refused.exception)
    assert Path("mine.py").read_text() == "precious"

    assert runner.invoke(cli, ["init", "mine.py", "--force"]).exit_code == 0
    assert 'name="mine"' in Path("mine.py").read_text()


def test_init_refuses_what_is_no_python_file(runner: CliRunner) -> None:
    done = runner.invoke(cli, ["init", "my_task"])

    assert "must be a Python file" in str(done.exception)
    assert "my_task.py" in str(done.exception)


def test_check_ends_with_2_and_names_the_line_when_something_must_be_fixed(
    runner: CliRunner,
) -> None:
    Path("broken.py").write_text(BROKEN)

    done = runner.invoke(cli, ["check", "broken.py", "--json"])

    assert done.exit_code == 2
    told = json.loads(done.stdout)
    assert told["ok"] is False
    first, *others = told["contracts"]
    assert first["name"] == "task"
    assert first["status"] == "fail"
    assert f"({Path('broken.py').resolve()}, line 5)" in first["message"]
    assert {contract["status"] for contract in others} == {"skip"}


def test_check_of_a_missing_file_ends_with_2(runner: CliRunner) -> None:
    done = runner.invoke(cli, ["check", "nowhere.py", "--only", "task"])

    assert done.exit_code == 2
    assert "must exist" in done.stdout
    assert "1 to fix" in done.stderr


def test_check_ends_with_a_search_of_the_same_task_and_options(runner: CliRunner) -> None:
    Path("my tasks").mkdir()
    runner.invoke(cli, ["init", "my tasks/mine.py"])
    text = Path("my tasks/mine.py").read_text()
    Path("my tasks/mine.py").write_text(text.replace("def task(", "def task(size=1, note=''"))
    given = [
        *("--task-arg", "size=3", "--task-arg", "note=a b", "--space", "mobile", "--budget", "7"),
        *(
            "--runtime-batch",
            "2",
            "--target",
            "storage-only",
            "--input-shape",
            "8,8",
            "--threads",
            "1",
        ),
    ]

    checked = runner.invoke(cli, ["check", "my tasks/mine.py", *given, "--only", "task"])

    assert checked.exit_code == 0, checked.output
    (line,) = (text for text in checked.stderr.splitlines() if text.startswith("Next: "))
    program, command, task, *words = shlex.split(line.removeprefix("Next: "))
    assert (program, command, task) == ("autocompress", "search", "my tasks/mine.py")
    assert sorted(words) == sorted(given)
    # search takes every one of them
    parsed = search.make_context("search", [task, *words])
    assert parsed.params["task_args"] == ("size=3", "note=a b")
    assert parsed.params["budget"] == "7"


def test_check_by_model_and_dataset_ends_with_a_search_by_them(runner: CliRunner) -> None:
    Path("plain.py").write_text(
        "import torch\nfrom autocompress import Task\n"
        "def task(model, dataset):\n    x, y = torch.randn(9, 3), torch.zeros(9).long()\n"
        "    return Task(model=torch.nn.Linear(3, 2), train=(x, y))\n"
    )

    given = ["--model", "my bert", "--dataset", "sst2.csv"]
    checked = runner.invoke(cli, ["check", "--task", "plain.py", *given, "--only", "task"])

    assert checked.exit_code == 0, checked.output
    (line,) = (text for text in checked.stderr.splitlines() if text.startswith("Next: "))
    words = shlex.split(line.removeprefix("Next: autocompress search plain.py --budget 50 "))
    assert sorted(words) == sorted(given)


def test_check_calls_options_by_their_flags(runner: CliRunner) -> None:
    Path("frozen.py").write_text(
        "import torch\nfrom autocompress import Task\n"
        "def task():\n    x, y = torch.randn(40, 3), torch.arange(40) % 2\n"
        "    model = torch.nn.Linear(3, 2).requires_grad_(False)\n"
        "    return Task(model=model, train=(x, y))\n"
    )

    checked = runner.invoke(cli, ["check", "frozen.py", "--only", "gradients"])

    assert "search with --proxy none." in checked.stdout + checked.stderr, checked.output
