"""Training throughput: the proxy's loop against a plain loop on the same model and data.

    python benchmarks/train_throughput.py --data FOLDER [--rounds 5] [-o results/NAME.json]

The plain loop is what a tutorial writes: a DataLoader, float32, NCHW, per-image augmentation by
torch operations in the data set. Both train the CIFAR-10 ResNet-20 of `examples/` with
cross-entropy alone, from the same weights, each in a process of its own, in turns (A B A B ...), so
that a slow minute of the machine hits both. Prints images/s of each round and the median of the
ratios, which is the result.
"""

import argparse
import copy
import json
import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from autocompress.environment import describe_environment, n_usable_cores
from autocompress.tasks.base import TensorData
from autocompress.tasks.factory import load_task
from autocompress.tasks.prepare import PreparedTask, prepare_task
from autocompress.train.loop import finetune_
from autocompress.train.precision import fastest_precision, to_fast_layout_
from autocompress.train.recipe import Recipe
from autocompress.train.teachers import Teacher

EXAMPLE = Path(__file__).parent.parent / "examples" / "02_cifar10_resnet20.py"
CPU = torch.device("cpu")


class PlainImages(Dataset):
    """One image at a time: to float, pad, crop, flip, normalise, as tutorials have it."""

    def __init__(self, data: TensorData) -> None:
        self.images = data.inputs[0]
        self.labels = data.targets
        self.mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
        self.std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = F.pad(self.images[index].float() / 255, (4, 4, 4, 4))
        top, left = torch.randint(0, 9, (2,)).tolist()
        image = image[:, top : top + 32, left : left + 32]
        image = image.flip(2) if torch.rand(()) < 0.5 else image
        return (image - self.mean) / self.std, self.labels[index]


def plain_rate(model: nn.Module, data: TensorData, batch_size: int) -> float:
    """Images per second of one pass of the plain loop."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    loader = DataLoader(PlainImages(data), batch_size=batch_size, shuffle=True, drop_last=True)
    model.train()
    start, n_images = time.perf_counter(), 0
    for images, labels in loader:
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        n_images += len(labels)
    return n_images / (time.perf_counter() - start)


def fast_rate(model: nn.Module, prepared: PreparedTask, batch_size: int) -> float:
    """Images per second of one pass of the proxy's loop."""
    recipe = Recipe(epochs=1, learning_rate=0.01, batch_size=batch_size, distill="none")
    teacher = Teacher(model=model, cached=None)
    rate = finetune_(
        to_fast_layout_(model, CPU),
        prepared,
        teacher,
        recipe,
        seed=0,
        device=CPU,
        precision=fastest_precision(CPU),
    ).images_per_s
    assert rate is not None
    return rate


def serve(which: str, options: argparse.Namespace, pipe: Connection) -> None:
    """Measure one loop in a process of its own, one round for each message."""
    torch.set_num_threads(options.threads)
    full = prepare_task(load_task(str(EXAMPLE), {"data": options.data}))
    subset = full.train.subset(slice(0, options.images))
    prepared = PreparedTask(
        task=full.task, train=subset, val=full.val, test=None, is_val_carved=False
    )
    model, batch_size = full.task.model, full.task.batch_size
    while pipe.recv():  # False ends it
        if which == "plain":
            pipe.send(plain_rate(copy.deepcopy(model), subset, batch_size))
        else:
            pipe.send(fast_rate(copy.deepcopy(model), prepared, batch_size))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder with CIFAR-10 and trained weights")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=2560, help="training images of one round")
    parser.add_argument("--threads", type=int, default=n_usable_cores())
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for which in ("plain", "ours"):
        pipes[which], end = context.Pipe()
        context.Process(target=serve, args=(which, options, end), daemon=True).start()
    rows = []
    for number in range(-1, options.rounds):  # the first round warms up and is not counted
        row = {}
        for which, pipe in pipes.items():
            pipe.send(True)
            row[which] = pipe.recv()
        row["ratio"] = row["ours"] / row["plain"]
        print(f"round {number}: plain {row['plain']:.0f}, ours {row['ours']:.0f} images/s")
        rows += [row] if number >= 0 else []
    for pipe in pipes.values():
        pipe.send(False)
    result = {
        "threads": options.threads,
        "precision": fastest_precision(CPU),
        "rounds": rows,
        "median_ratio": statistics.median(row["ratio"] for row in rows),
        **describe_environment(),
    }
    print(f"median ratio: {result['median_ratio']:.2f}x")
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
