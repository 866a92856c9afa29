"""A task with inputs for training recipes: early weights, a teacher, unlabelled data.

    autocompress search examples/08_lottery_ticket.py --space lottery_ticket --budget 12

A perceptron classifies 10 digits. Its weights after the first steps are kept: a lottery ticket is
rewound to them after the trained weights have decided what to prune (`recipe: {rewind: true}`).
Candidates learn from a wider network, the teacher, and also from images without labels.
"""

import copy

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from autocompress import Task

_EARLY, _LAST = 20, 300  # training steps


def train(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Train in place; returns the weights as they were after the first steps."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    early: dict[str, Tensor] = {}
    for step in range(_LAST):
        if step == _EARLY:
            early = copy.deepcopy(model.state_dict())
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return early


def task() -> Task:
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    place = torch.arange(len(x)) % 5
    known, val, unlabelled = place < 3, place == 3, place == 4

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 48), nn.ReLU(), nn.Linear(48, 10)
    )
    teacher = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 10))
    early = train(model, x[known], y[known])
    train(teacher, x[known], y[known])
    return Task(
        model=model,
        train=(x[known], y[known]),
        val=(x[val], y[val]),
        name="ticket",
        teacher=teacher,
        unlabelled=(x[unlabelled],),
        initial_state=early,
        proxy_epochs=20,
    )
