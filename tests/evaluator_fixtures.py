"""A small trained net with batch-norm, its evaluator, and a cache of its own for each test.

Rooms that want them import them in their conftest.
"""

from pathlib import Path

import pytest
import torch
from torch import nn

from autocompress.evaluate.evaluator import Evaluator
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.tasks.base import Task
from autocompress.tasks.prepare import prepare_task


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path / "cache"))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(32)
        self.fc = nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        return self.fc(torch.relu(self.bn2(self.conv2(x))).mean((2, 3)))


def stripes(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of noise on which a bar stands left, in the middle or right."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    images = 0.3 * torch.randn(n, 1, 6, 6, generator=generator)
    for label in range(3):
        images[labels == label, :, :, 2 * label : 2 * label + 2] += 1.0
    return images, labels


@pytest.fixture(scope="session")
def evaluator() -> Evaluator:
    """Of a small trained net; shared by all tests, which must not change it."""
    torch.manual_seed(0)
    net = Net()
    x, y = stripes(384, 0)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    task = Task(
        model=net.eval(), train=(x, y), val=stripes(150, 1), test=stripes(150, 2), batch_size=64
    )
    settings = EvaluationSettings(threads=1, has_latency=False)
    return Evaluator(prepare_task(task), settings)
