"""A task that shares nothing with the examples, from `analyze` to a verified bundle."""

import json

import pytest

from autocompress import adapt_call, load

TASK = '''
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset
from autocompress import LayerChannels, StreamedData, Task
from autocompress.tasks.metrics import explained_variance

class Scaled(nn.Module):
    """A layer of one's own: rows of a matrix, each with a gain."""

    autocompress_channels = LayerChannels(
        out={"weight": 0, "gain": 0}, into={"weight": 1}, dim=-1, attributes={"n_out": "out"}
    )

    def __init__(self, n_in, n_out):
        super().__init__()
        self.n_out = n_out
        self.weight = nn.Parameter(torch.randn(n_out, n_in) / n_in**0.5)
        self.gain = nn.Parameter(torch.ones(n_out))

    def forward(self, x):
        return F.linear(x, self.weight) * self.gain

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.codes = nn.Embedding(10, 8)
        self.body = nn.Sequential(Scaled(12, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU())
        self.head = nn.Linear(16, 2)

    def forward(self, *, series, code=None):
        hidden = self.body(torch.cat([series, self.codes(code)], -1))
        return {"prediction": self.head(hidden), "hidden": hidden}

class Rows(Dataset):
    """Yields (two named inputs, two targets), made as they are asked for."""

    def __init__(self, first, n_rows):
        self.first, self.n_rows = first, n_rows

    def __len__(self):
        return self.n_rows

    def __getitem__(self, index):
        if not 0 <= index < self.n_rows:
            raise IndexError(index)
        generator = torch.Generator().manual_seed(self.first + index)
        series = torch.randn(4, generator=generator)
        code = torch.randint(0, 10, (), generator=generator)
        target = torch.stack([series.sum() + code, series[0] * 2 - code])
        return {"series": series, "code": code, "target": target / 5}

def collate(rows):
    batch = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
    return batch, batch.pop("target")

def task():
    data = [StreamedData(dataset=Rows(*rows), collate=collate) for rows in ((0, 512), (512, 128))]
    torch.manual_seed(0)
    model = Net()
    inputs, targets = collate([Rows(0, 512)[i] for i in range(512)])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        F.mse_loss(model(**inputs)["prediction"], targets).backward()
        optimizer.step()
    return Task(model=model, train=data[0], val=data[1], test=Rows(640, 128), collate=collate,
                output="prediction", loss=F.mse_loss, metric=explained_variance,
                metric_name="explained variance", distill="mse", frozen=("codes",), name="odd")
'''


@pytest.fixture(scope="module")
def names():
    return ("series", "code")


def test_a_task_unlike_the_examples_goes_all_the_way(run_cli, tmp_path, names):
    (tmp_path / "my_task.py").write_text(TASK)
    analyzed = json.loads(run_cli("analyze", "my_task.py", "--json").stdout)
    refused = {
        (entry["technique"], entry["target"]): entry["reason"] for entry in analyzed["refused"]
    }
    assert refused["weight_bits", "codes"] == "it is frozen by the task"
    assert "Scaled layers are not compressed" in refused["weight_bits", "body.0"]
    pruned = [knob for knob in analyzed["knobs"] if knob["kind"] == "pruning_ratio"]
    assert [knob["targets"] for knob in pruned] == [["body.0"], ["body.2"]]

    search = ("search", "my_task.py", "--threads", "1", "--quiet", "--executor", "inline")
    more = (
        "--objectives",
        "accuracy,size",
        "--without",
        "sensitivity_table,early_stopping",
        "--budget",
        "4",
    )
    done = run_cli(*search, *more)
    assert done.returncode == 0, done.stderr
    exported = run_cli("export", "odd", "--knee")
    assert exported.returncode == 0, exported.stderr
    (bundle,) = (tmp_path / "results" / "odd" / "exports").iterdir()
    verified = run_cli("verify", str(bundle))
    assert verified.returncode in (0, 14), verified.stdout + verified.stderr  # 14: only latency

    scope: dict = {}
    exec(compile(TASK, "my_task.py", "exec"), scope)
    model = load(bundle / "model.acz", adapt_call(scope["Net"](), names, "prediction"))
    inputs, targets = scope["collate"]([scope["Rows"](640, 128)[i] for i in range(128)])
    manifest = json.loads((bundle / "manifest.json").read_text())
    got = scope["explained_variance"](model(*inputs.values()).detach(), targets)
    assert got == pytest.approx(manifest["measurements"]["test_accuracy"], abs=0.01)
