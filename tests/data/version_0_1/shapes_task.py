"""A small residual net for four kinds of pictures: the task of the run folder beside it."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from autocompress import Task

HERE = Path(__file__).parent


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.norm0 = nn.BatchNorm2d(16)
        self.conv1 = nn.Conv2d(16, 16, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm0(self.stem(x)))
        x = torch.relu(x + self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x))))))
        return self.head(x.mean((2, 3)))


def pictures(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy pictures of four patterns: (n, 1, 8, 8), and which one each is."""
    random = np.random.RandomState(seed)  # gives the same numbers on every machine
    rows, columns = np.mgrid[:8, :8]
    patterns = np.stack([rows % 2, columns % 2, (rows + columns) % 2, (rows // 2 + columns) % 2])
    labels = random.randint(0, 4, n)
    images = patterns[labels] + random.random_sample((n, 8, 8)) * 1.5
    return torch.tensor(images[:, None], dtype=torch.float32), torch.tensor(labels)


def task() -> Task:
    model = Net()
    model.load_state_dict(load_file(HERE / "weights.safetensors"))
    return Task(
        model=model.eval(),
        train=pictures(128, 0),
        val=pictures(64, 1),
        test=pictures(64, 2),
        batch_size=32,
    )
