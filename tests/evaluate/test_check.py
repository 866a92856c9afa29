"""Every contract of `autocompress check` has a task that breaks it, and says where."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autocompress.errors import InputError
from autocompress.evaluate.check import shipping
from autocompress.evaluate.check.registry import CONTRACTS, check_task
from autocompress.evaluate.check.subject import Finding
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.space.rules import load_rules

TASK = """
import random
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from autocompress import Task, TensorData

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 3)
        {init}

    def forward(self, x):
        h = self.first(x).relu()
        {forward}
        return self.last(h)

class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, i):
        raise KeyError(f"no row {{i}}")  # ROWS

def loss(outputs, targets):
    {loss}

def metric(outputs, targets):
    {metric}

def augment(inputs, generator):
    {augment}

def task():
    torch.manual_seed(0)
    x = torch.randn(400, 8)
    net = Net()
    y = net(x).argmax(dim=1)
    given = dict(train=(x[:240], y[:240]), val=(x[240:], y[240:]), metric=metric, loss=loss)
    {task}
    return Task(model=net, augment=augment, name="small", batch_size=32, **given)
"""
PARTS = {
    "init": "pass",
    "forward": "pass",
    "loss": "return F.cross_entropy(outputs, targets)",
    "metric": "return float((outputs.argmax(dim=1) == targets).double().mean())",
    "augment": "return inputs",
    "task": "pass",
}

Look = Callable[..., Finding]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broken.py"


@pytest.fixture
def look(path: Path) -> Callable[..., dict[str, Finding]]:
    """Write a task with some parts replaced, and look at some contracts."""

    def look(*names: str, n_trials: int = 50, **parts: str) -> dict[str, Finding]:
        path.write_text(TASK.format(**{**PARTS, **parts}))
        found = check_task(
            str(path),
            {},
            settings=EvaluationSettings(threads=1, has_latency=False),
            rules=load_rules("default"),
            n_trials=n_trials,
            only=names,
        )
        return {checked.name: checked.finding for checked in found}

    return look


def place(path: Path, text: str) -> str:
    """How a message names the line that holds a text."""
    lines = path.read_text().splitlines()
    return f"({path}, line {1 + next(i for i, line in enumerate(lines) if text in line)})"


@pytest.mark.parametrize(
    ("contract", "status", "parts", "where", "said"),
    [
        ("task", "fail", {"task": "1 / 0"}, "1 / 0", "ZeroDivisionError"),
        ("data", "fail", {"task": "given['val'] = Rows()"}, "# ROWS", "no row 0"),
        ("task", "fail", {"task": "return 5"}, "def task", "returned int"),
        ("data", "fail", {"task": "given['frozen'] = ('no',)"}, "def task", "'no' fits none"),
        ("data", "fail", {"task": "given['frozen'] = 'first'"}, "def task", "'first'"),
        ("data", "fail", {"task": "given['train'] = [(x[0], {})]"}, "def task", "train split"),
        ("data", "fail", {"task": "given = {'train': (x[:1], y[:1])}"}, "def task", "at least 2"),
        (
            "data",
            "fail",
            {"task": "return Task(\n        model=net, batch_size=-1, train=(x, y))"},
            "batch_size=-1",
            "but got -1",
        ),
        ("data", "fail", {"task": "given['distill'] = 'kk'"}, "def task", "Task.distill 'kk'"),
        ("model", "fail", {"forward": "h.no_such()"}, "h.no_such", "no_such"),
        ("deterministic", "fail", {"forward": "h = F.dropout(h)"}, "F.dropout", "dropout"),
        ("deterministic", "fail", {"forward": "h = h + torch.rand(16)"}, "torch.rand", "rand"),
        (
            "deterministic",
            "fail",
            {"forward": "h = h + random.random()"},
            "def forward",
            "something else",
        ),
        (
            "deterministic",
            "fail",
            {
                "init": "self.register_buffer('calls', torch.zeros(()))",
                "forward": "self.calls += 1",
            },
            "def forward",
            "changes itself in eval mode: calls",
        ),
        ("rows", "warn", {"forward": "h = h.softmax(dim=0)"}, "def forward", "row alone"),
        (
            "rows",
            "fail",
            {"forward": "h = h.mean(0, keepdim=True) if len(h) <= 8 else h"},
            "def forward",
            "(1, 3)",
        ),
        (
            "gradients",
            "fail",
            {"task": "net.requires_grad_(False)"},
            "def forward",
            "All parameters are frozen",
        ),
        (
            "gradients",
            "warn",
            {"forward": "h = h.detach()"},
            "def forward",
            "first.weight, first.bias",
        ),
        (
            "gradients",
            "fail",
            {"loss": "return torch.tensor(F.cross_entropy(outputs, targets).item())"},
            "def loss",
            "no gradient",
        ),
        (
            "gradients",
            "fail",
            {"loss": "return (outputs * 0).sum().sqrt()"},
            "def loss",
            "NaN or infinite",
        ),
        ("augment", "fail", {"augment": "return (inputs[0][:, :4],)"}, "def augment", "shapes"),
        ("augment", "fail", {"augment": "return inputs.flip(1)"}, "inputs.flip", "flip"),
        (
            "augment",
            "warn",
            {"augment": "return (inputs[0] + torch.rand(8),)"},
            "def augment",
            "same generator",
        ),
        ("loss", "fail", {"loss": "return outputs.bad"}, "outputs.bad", "bad"),
        ("loss", "fail", {"loss": "return (outputs * 0).sum() + 1"}, "def loss", "do not lower"),
        ("loss", "fail", {"loss": "return outputs.sum().log() * 0 / 0"}, "def loss", "nan"),
        (
            "loss",
            "warn",
            {
                "loss": "return (outputs - 1.0).square().mean()",
                "task": "given['learning_rate'] = 3e3",
            },
            "def task",
            "raise the loss",
        ),
        ("metric", "fail", {"metric": "return outputs.bad"}, "outputs.bad", "bad"),
        ("metric", "fail", {"metric": "return 7.0"}, "def metric", "returned 7.0"),
        (
            "metric",
            "fail",
            {"metric": "return len(outputs) / 100"},
            "def metric",
            "1.6 for a whole split",
        ),
        (
            "direction",
            "fail",
            {"metric": "return float((outputs.argmax(dim=1) != targets).double().mean())"},
            "def metric",
            "lower seems to be better",
        ),
        ("direction", "warn", {"metric": "return 0.5"}, "def metric", "no better than chance"),
        (
            "baseline",
            "warn",
            {"task": "given['val'] = (x[240:260], y[240:260])"},
            "def task",
            "one example is 5.0%",
        ),
        (
            "splits",
            "fail",
            {"task": "given['val'] = (x[200:], y[200:])"},
            "def task",
            "40 of 200 val examples also stand in train",
        ),
        (
            "unseen",
            "warn",
            {"task": "given['val'] = (x[200:], y[200:])"},
            "def task",
            "also stand in the training data",
        ),
    ],
)
def test_check_names_the_place_when_a_contract_is_broken(
    look: Any, path: Path, contract: str, status: str, parts: dict[str, str], where: str, said: str
) -> None:
    finding = look(contract, **parts)[contract]

    assert finding.status == status
    assert said in finding.message
    assert place(path, where) in finding.message
    assert finding.fix or contract in (
        "task",
        "data",
        "model",
        "augment",
        "loss",
        "metric",
        "unseen",
    )


def test_check_takes_a_model_worse_than_chance_for_untrained(look: Any, path: Path) -> None:
    wrong = "y = (y + 1) % 3; given.update(train=(x[:240], y[:240]), val=(x[240:], y[240:]))"

    finding = look("direction", task=wrong)["direction"]

    assert finding.status == "warn"
    assert "The metric is 0 on val" in finding.message
    assert "no better than chance" in finding.message


@pytest.mark.parametrize("loss", ["return (outputs * 0).sum() + 1e-4", "return outputs.sum() * 0"])
def test_check_of_learned_examples_does_not_ask_their_loss_to_fall(look: Any, loss: str) -> None:
    finding = look("loss", loss=loss)["loss"]

    assert finding.status == "pass"
    assert "already: too small to see it fall" in finding.message


def test_check_does_not_blame_the_learning_rate_for_a_loss_that_is_small(look: Any) -> None:
    steep = "return (1e-4 * (outputs - 1.0).square()).mean()"

    finding = look("loss", loss=steep, task="given['learning_rate'] = 3e7")["loss"]

    assert finding.status == "pass"


def test_check_names_what_differs_when_a_factory_is_random(look: Any, path: Path) -> None:
    seeded_by_the_clock = (
        "net.last.bias.data += torch.tensor(np.random.default_rng().random(3)).float()"
    )

    finding = look("repeatable", task=seeded_by_the_clock)["repeatable"]

    assert finding.status == "fail"
    assert "another model" in finding.message
    assert "last.bias differ" in finding.message
    assert place(path, "def forward") in finding.message


def test_check_of_a_broken_loss_hides_nothing_else(look: Any) -> None:
    names = ("task", "data", "model", "deterministic", "rows", "gradients", "loss", "splits")
    found = look(*names, "direction", loss="return outputs.bad")

    assert {name: found[name].status for name in found if found[name].status != "pass"} == {
        "loss": "fail",
        "gradients": "skip",
        "direction": "skip",
    }
    assert "a loss that can be used" in found["direction"].message


def test_check_of_a_model_that_does_not_run_says_so_once(look: Any) -> None:
    found = look("model", "loss", "export", "time", forward="h.no_such()")

    assert [finding.status for finding in found.values()] == ["fail", "skip", "skip", "skip"]


def test_check_names_what_a_runtime_does_not_take(look: Any, path: Path) -> None:
    unknown = "h = h + torch.linalg.qr(h.unsqueeze(2))[0].squeeze(2)"

    finding = look("export", forward=unknown)["export"]

    assert finding.status == "fail"
    assert "ONNX Runtime does not take the model" in finding.message
    assert place(path, "def forward") in finding.message


def test_check_knobs_when_there_are_none(look: Any, path: Path) -> None:
    bare = "self.first, self.last = nn.ReLU(), nn.Flatten(); self.w = nn.Parameter(torch.ones(8))"

    found = look("knobs", init=bare, forward="h = h[:, :3] * self.w[:3]")["knobs"]

    assert found.status == "fail"
    assert "matches no layer" in found.message
    assert place(path, "def forward") in found.message


def test_check_of_a_good_task_holds(look: Any) -> None:
    noise = "y[240:] = (y[240:] + (torch.rand(160) < 0.2)) % 3"  # else val looks like train
    names = [name for name in CONTRACTS if name != "repeatable"]
    found = look(*names, n_trials=10**9, task=noise)

    long = found.pop("time")
    assert {name: f.message for name, f in found.items() if f.status != "pass"} == {}
    assert 0.7 < found["baseline"].facts["accuracy"] < 0.9
    assert found["knobs"].facts["knobs"] > 0
    assert found["export"].facts["difference"] < 1e-5
    # the estimate is that of one trial, times a thousand million
    assert long.status == "warn"
    assert long.facts["est_search_s"] == pytest.approx(1e9 * long.facts["est_trial_s"])
    assert long.facts["n_steps"] == 240 // 32


def test_check_pack_fails_when_outputs_differ(look: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([np.zeros(3), np.ones(3)])
    monkeypatch.setattr(shipping, "_outputs", lambda *_: next(answers))

    finding = look("pack")["pack"]

    assert finding.status == "fail"
    assert "differ" in finding.message


def test_check_refuses_an_unknown_contract(look: Any) -> None:
    with pytest.raises(InputError, match="Unknown contract 'speed'"):
        look("speed")
