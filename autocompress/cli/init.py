"""`autocompress init`: a task file that runs, to put your own model and data in."""

import shlex
from pathlib import Path
from typing import Final

import click

from autocompress.terminal.printing import echo

TEMPLATE: Final = '''"""My own task: what `autocompress` needs to know to compress a model.

    autocompress check  {path}     # does everything hold that a search relies on?
    autocompress search {path} --budget 50

It runs as it stands: a small convolutional net on scikit-learn's 8x8 digits. Replace the four
places marked with EDIT, one after the other; `autocompress check` says what is still missing.
"""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from autocompress import Task


# EDIT 1: the model ------------------------------------------------------------------------------
# Any nn.Module that is called as model(*inputs). Its weights should be trained: load them from a
# file, as in
#     net.load_state_dict(torch.load("weights.pt", weights_only=True))
# This one is trained in `trained_model` below, in a second, because there is no file to load.
class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        )
        self.head = nn.Linear(32 * 2 * 2, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).flatten(1))


def trained_model(images: Tensor, labels: Tensor) -> nn.Module:
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(10):
        for rows in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images[rows]), labels[rows]).backward()
            optimizer.step()
    return net.eval()


# EDIT 2: the data -------------------------------------------------------------------------------
# Pairs (inputs, targets) of tensors with one example per row. Two inputs, or images that should
# stay uint8 in memory? `autocompress.TensorData((a, b), targets, transform)`. A map-style torch
# Dataset of (input, target) pairs works as well. No example may stand in two of the splits.
#     train   what candidates are tuned on
#     val     what they are judged on; the model must not have seen it in training
#     test    read once for each exported point; leave it out if there is none
def splits() -> dict[str, tuple[Tensor, Tensor]]:
    pixels, digits = load_digits(return_X_y=True)
    images = torch.tensor(pixels / 16.0, dtype=torch.float32).view(-1, 1, 8, 8)
    labels = torch.tensor(digits)
    _, first = torch.unique(images, dim=0, return_inverse=True)  # equal images get equal numbers
    order = first % 5
    chosen = {{"train": order < 3, "val": order == 3, "test": order == 4}}
    return {{name: (images[rows], labels[rows]) for name, rows in chosen.items()}}


# EDIT 3: what is good ---------------------------------------------------------------------------
# loss(outputs, targets) -> mean as a tensor; metric(outputs, targets) -> float in [0, 1], higher is
# better. For a regression, say, 1 / (1 + error). Leave both out of Task(...) for a classifier with
# logits: cross-entropy and top-1 accuracy are the defaults.
def loss(outputs: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, labels)


def metric(outputs: Tensor, labels: Tensor) -> float:
    return float((outputs.argmax(dim=1) == labels).double().mean())


def task() -> Task:
    data = splits()
    return Task(
        model=trained_model(*data["train"]),
        **data,
        loss=loss,
        metric=metric,
        metric_name="top-1 accuracy",
        name="{name}",
        # EDIT 4: how a candidate is tuned, briefly, before it is judged --------------------------
        distill="kl",  # outputs are logits over classes; "mse" for a regression, "none" for neither
        batch_size=64,
        learning_rate=0.01,  # about 0.001 for a transformer; a tenth of that if `check` says so
        proxy_epochs=2,  # passes over train behind each trial: the larger, the slower and the surer
    )
'''


@click.command(short_help="Write a task file that runs, to put your own model and data in.")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False), default=Path("my_task.py"))
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
def command(path: Path, force: bool) -> None:
    """Write a commented task file to PATH (my_task.py by default).

    It runs as it stands, on a small net and scikit-learn's digits; four places are marked to put
    your own model, data, loss and metric, and tuning in.
    """
    from autocompress.atomic_file import write_atomically
    from autocompress.errors import InputError

    path = path.expanduser()
    if path.suffix != ".py":
        raise InputError(
            f"A task file must be a Python file (.py), but got {path}.",
            f"For example: autocompress init {path.with_suffix('.py')}",
        )
    if path.exists() and not force:
        raise InputError(f"{path} exists already.", "Choose another name, or add --force.")
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in path.stem)
    typed = shlex.quote(path.as_posix())
    write_atomically(path, TEMPLATE.format(path=typed, name=name))
    echo(f"Wrote {path}: it runs as it stands. Edit the four places marked with EDIT.\n")
    echo(f"  autocompress check {typed}")
    echo(f"  autocompress search {typed} --budget 50")
    echo("  autocompress export --max-drop 0.01")
