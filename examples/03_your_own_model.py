"""The shortest task: a trained model and its data. Everything else has a default.

    autocompress search examples/03_your_own_model.py --budget 20

The model here is a perceptron that tells 3 kinds of wine apart, trained in a second.
"""

import torch
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler
from torch import nn

from autocompress import Task


def task() -> Task:
    features, labels = load_wine(return_X_y=True)
    x = torch.tensor(StandardScaler().fit_transform(features), dtype=torch.float32)
    y = torch.tensor(labels)
    val = torch.arange(len(x)) % 4 == 0  # kept out of training

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(13, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[~val]), y[~val]).backward()
        optimizer.step()

    return Task(model=model, train=(x[~val], y[~val]), val=(x[val], y[val]), name="wine")
