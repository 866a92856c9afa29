"""With --json stdout holds one document, whatever the user's code prints."""

import json
from pathlib import Path
from typing import Any

import pytest

TASK = """
import torch
import torch.nn.functional as F
from torch import nn
from autocompress import Task

print("a task file that talks")

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x):
        print("forward")
        return self.head(self.body(x).relu())

def loss(outputs, targets):
    print("loss")
    return F.cross_entropy(outputs, targets)

def metric(outputs, targets):
    print("metric")
    return float((outputs.argmax(1) == targets).double().mean())

def task():
    print("factory")
    torch.manual_seed(0)
    x, model = torch.randn(160, 6), Net()
    y = (x[:, 0] > 0).long()
    return Task(model=model, train=(x[:64], y[:64]), val=(x[64:], y[64:]), loss=loss, metric=metric)
"""


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (("check", "--only", "task,data,model,loss,metric,export"), "contracts"),
        (("analyze",), "knobs"),
        (
            ("search", "--budget", "2", "--objectives", "accuracy,size", "--without", "table"),
            "points",
        ),
    ],
)
def test_json_is_all_of_stdout_whatever_a_task_prints(
    run_cli: Any, tmp_path: Path, arguments: tuple[str, ...], key: str
) -> None:
    (tmp_path / "chatty.py").write_text(TASK)
    command, *more = arguments

    done = run_cli(command, "chatty.py", "--json", *more)

    assert done.returncode == 0, done.stderr
    assert key in json.loads(done.stdout)
    assert {"a task file that talks", "factory", "forward"} <= set(done.stderr.splitlines())


def test_json_leaves_stdout_to_a_command_without_it(run_cli: Any, tmp_path: Path) -> None:
    (tmp_path / "chatty.py").write_text(TASK)

    done = run_cli("check", "chatty.py", "--only", "task")

    assert "factory" in done.stdout.splitlines()
