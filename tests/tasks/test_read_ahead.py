"""Processes that read rows know the user's task file, whoever starts them."""

from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset

from autocompress.errors import InputError
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.executors.job import EvaluationJob
from autocompress.executors.local import LocalExecutor
from autocompress.executors.worker import WorkerSpec
from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.tasks import streamed as read_ahead
from autocompress.tasks.factory import load_task
from autocompress.tasks.fingerprint import model_fingerprint
from autocompress.tasks.prepare import prepare_task
from autocompress.tasks.streamed import StreamedData

TASK = """
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from autocompress import StreamedData, Task
from beside import SCALE

class Rows(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return torch.randn(8, generator=generator) * SCALE, index % 2

def collate(rows):
    x, y = zip(*rows)
    return torch.stack(x), torch.tensor(y)

def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))

def streamed():
    train = StreamedData(dataset=Rows(), collate=collate, n_workers=1)
    return Task(model=model(), train=train, val=Rows(), batch_size=16)

def loader():
    return Task(model=model(), train=DataLoader(Rows(), 16, num_workers=1), val=Rows())
"""


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    path = tmp_path / "reads_ahead.py"
    path.write_text(TASK)
    path.with_name("beside.py").write_text("SCALE = 2.0\n")
    return path


@pytest.mark.parametrize("factory", ["streamed", "loader"])
def test_a_trial_in_a_worker_reads_ahead(task_file: Path, tmp_path: Path, factory: str) -> None:
    spec = WorkerSpec(
        task=f"{task_file}:{factory}",
        arguments={},
        settings=EvaluationSettings(threads=1, has_latency=False),
        model=model_fingerprint(load_task(f"{task_file}:{factory}", {}).model.eval()),
    )
    plan = CompressionPlan(layers={"0": LayerPlan(weight_bits=4)})
    job = EvaluationJob(plan=plan, seed=1, fidelity=1, keep=tmp_path / "w.safetensors")
    executor = LocalExecutor(spec, 120.0)
    try:
        executor.submit(0, job)
        outcome = executor.wait(lambda number, stage, share: None)
        assert outcome is not None
        assert outcome.measurement().size_bytes > 0
    finally:
        executor.close()


def test_processes_that_do_not_fork_import_the_task_file(
    task_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_ahead, "_START", "spawn")
    train = prepare_task(load_task(f"{task_file}:streamed", {})).train
    chosen = [torch.tensor([3, 1]), torch.tensor([5])]
    for (inputs, targets), rows in zip(train.batches(chosen), chosen, strict=True):
        wanted, labels = train.batch(rows)
        assert torch.equal(inputs[0], wanted[0])
        assert torch.equal(targets, labels)


def test_what_cannot_be_sent_to_a_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Local(Dataset[object]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> object:
            return torch.zeros(2), 0

    monkeypatch.setattr(read_ahead, "_START", "spawn")
    with pytest.raises(InputError, match=r"must be picklable .* but: .*Local") as caught:
        next(StreamedData(dataset=Local(), n_workers=1).batches([slice(0, 2)]))
    assert caught.value.hint == (
        "Define their classes and functions at the top of a file, or read without workers."
    )
