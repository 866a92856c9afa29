"""The embedded default task: scikit-learn's handwritten digits and a small residual network.

Nothing is downloaded. The network is trained on first use and kept in the user's cache folder
under a name that changes whenever its architecture, recipe, data or torch version does.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from autocompress.tasks.base import Augment, Task, TensorData
from autocompress.tasks.images import crop_and_flip, normalize
from autocompress.tasks.model_cache import load_or_train

_logger = logging.getLogger(__name__)
_SECONDS_BETWEEN_LINES = 10.0


@contextlib.contextmanager
def training_progress(name: str, n_steps: int, unit: str = "steps") -> Iterator[Callable[[], None]]:
    """Report on `n_steps` of training; yields what is to be called after each of them.

    On a terminal this is a bar on stderr that goes away at the end. Elsewhere it is a line in the
    log before and after, and one every ten seconds with the share that is done.
    """
    _logger.info("Training %s, once: %d %s.", name, n_steps, unit)
    if sys.stderr.isatty():
        with Progress(console=Console(stderr=True), transient=True) as progress:
            bar = progress.add_task(f"Training {name}, once", total=n_steps)
            yield lambda: progress.advance(bar)
    else:
        yield _Lines(name, n_steps)
    _logger.info("Trained %s.", name)


class _Lines:
    """Counts steps, and says now and then how far they got."""

    def __init__(self, name: str, n_steps: int) -> None:
        self._name, self._n_steps, self._n_done = name, n_steps, 0
        self._begun = self._said = time.monotonic()

    def __call__(self) -> None:
        self._n_done += 1
        now = time.monotonic()
        if now - self._said >= _SECONDS_BETWEEN_LINES and self._n_done < self._n_steps:
            self._said = now
            left = (now - self._begun) / self._n_done * (self._n_steps - self._n_done)
            _logger.info(
                "Training %s: %d %%, about %.0f s left.",
                self._name,
                100 * self._n_done // self._n_steps,
                left,
            )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecipe:
    """How the base model of an embedded task is trained.

    Attributes:
        n_epochs: Passes over the training data.
        batch_size: Examples per step; a smaller last batch is left out.
        learning_rate: Peak of the schedule: linear warm-up over a tenth, then half a cosine.
        weight_decay: Applied to weights of two and more dimensions only.
        label_smoothing: Share of a label spread over all classes.
        seed: Of the initial weights, the order of examples and the augmentation.
        n_threads: Pinned, as other thread counts give slightly different weights.
    """

    n_epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    seed: int = 0
    n_threads: int = 1


@contextlib.contextmanager
def own_torch_state(n_threads: int) -> Iterator[None]:
    """Give a block its own random state, thread count and gradient mode; the caller's come back."""
    previous = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.set_num_threads(n_threads)
        try:
            yield
        finally:
            torch.set_num_threads(previous)


def train_classifier(
    model: nn.Module, data: TensorData, augment: Augment, recipe: TrainingRecipe, name: str
) -> None:
    """Train `model` from scratch in place and leave it in eval mode.

    SGD with Nesterov momentum 0.9; `training_progress` tells the user. Global random state is
    seeded: call it in `own_torch_state`.
    """
    with training_progress(f"the {name} network", recipe.n_epochs, "epochs") as advance:
        torch.manual_seed(recipe.seed)
        _reset_parameters(model)
        model.train()
        generator = torch.Generator().manual_seed(recipe.seed)
        optimizer = _make_optimizer(model, recipe)
        n_batches = max(1, len(data) // recipe.batch_size)
        for epoch in range(recipe.n_epochs):
            order = torch.randperm(len(data), generator=generator)
            for i in range(n_batches):
                indices = order[i * recipe.batch_size : (i + 1) * recipe.batch_size]
                inputs, targets = data.batch(indices, lambda batch: augment(batch, generator))
                done = (epoch + (i + 1) / n_batches) / recipe.n_epochs
                for group in optimizer.param_groups:
                    group["lr"] = recipe.learning_rate * _schedule(done)
                loss = F.cross_entropy(
                    model(*inputs), targets, label_smoothing=recipe.label_smoothing
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            advance()
        optimizer.zero_grad()
        model.eval()


def _schedule(done: float) -> float:
    """Share of the peak learning rate after the share `done` of all steps."""
    warm_up = 0.1
    if done < warm_up:
        return done / warm_up
    return 0.5 * (1.0 + math.cos(math.pi * (done - warm_up) / (1.0 - warm_up)))


def _make_optimizer(model: nn.Module, recipe: TrainingRecipe) -> torch.optim.SGD:
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.9, nesterov=True)


def _reset_parameters(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            module.reset_parameters()


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (He et al. 2016), projected where shapes change."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or n_in != n_out:
            self.shortcut.append(nn.Conv2d(n_in, n_out, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        """(N, n_in, H, W) -> (N, n_out, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResidualCnn(nn.Module):
    """Stem, one residual block per stage, mean over the pixels, linear classifier.

    Args:
        widths: Channels of the three stages; the second and third halve height and width.
        n_channels: Channels of the images.
        n_classes: Number of logits.
    """

    def __init__(
        self, widths: tuple[int, int, int], n_channels: int = 1, n_classes: int = 10
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_channels, widths[0], 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(widths[0])
        self.stage1 = ResidualBlock(widths[0], widths[0], stride=1)
        self.stage2 = ResidualBlock(widths[0], widths[1], stride=2)
        self.stage3 = ResidualBlock(widths[1], widths[2], stride=2)
        self.linear = nn.Linear(widths[2], n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, n_channels, H, W) -> logits (N, n_classes)."""
        x = F.relu(self.bn(self.conv(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.linear(x.mean((2, 3)))


# Mean and standard deviation over the training images, on the [0, 1] scale.
_MEAN, _STD = 0.287, 0.354
_SPLIT_SEED = 0


def digits() -> Task:
    """The task behind `autocompress search` without arguments: 8×8 digits, ten classes."""
    return digits_task(TrainingRecipe())


def digits_task(recipe: TrainingRecipe, widths: tuple[int, int, int] = (32, 64, 96)) -> Task:
    """Make the digits task with a network trained by `recipe`, or taken from the cache.

    The caller's random state, thread count and gradient mode are left as they were.

    Args:
        recipe: How to train.
        widths: Channels of the network's three stages.
    """
    train, val, test = digits_splits()
    augment = crop_and_flip(1, flip=False)
    with own_torch_state(recipe.n_threads):
        model = ResidualCnn(widths).float()
        load_or_train(
            model,
            name="digits",
            content=_content(model, recipe, train),
            train=lambda: train_classifier(model, train, augment, recipe, "digits"),
        )
    return Task(
        model=model,
        train=train,
        val=val,
        test=test,
        name="digits",
        augment=augment,
        batch_size=64,
        learning_rate=0.02,
        proxy_epochs=5,
    )


def digits_splits() -> tuple[TensorData, TensorData, TensorData]:
    """Split the 1,797 digits into train, val and test: 60/20/20 %, stratified, always the same.

    Returns:
        Images of shape (N, 1, 8, 8) in uint8, and labels of shape (N,).
    """
    # Here, not above: scikit-learn takes a second to import, and not every task needs it.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    # Grey levels 0-16 spread over 0-240, without loss, so that they are ordinary uint8 images.
    images = torch.from_numpy((pixels * 15).astype(np.uint8)).view(-1, 1, 8, 8)
    order = np.arange(len(labels))
    rest, test = train_test_split(order, test_size=0.2, stratify=labels, random_state=_SPLIT_SEED)
    train, val = train_test_split(
        rest, test_size=0.25, stratify=labels[rest], random_state=_SPLIT_SEED
    )
    targets = torch.from_numpy(labels.astype(np.int64))
    standardize = normalize(_MEAN, _STD)

    def split(indices: np.ndarray[tuple[int], np.dtype[np.int64]]) -> TensorData:
        chosen: Tensor = torch.from_numpy(np.sort(indices))
        return TensorData((images[chosen],), targets[chosen], standardize)

    return split(train), split(val), split(test)


def _content(model: nn.Module, recipe: TrainingRecipe, train: TensorData) -> str:
    """Hash of everything the trained weights depend on."""
    major, minor = torch.__version__.split(".")[:2]
    parts = {
        "architecture": str(model),
        "recipe": dataclasses.asdict(recipe),
        "data": train.fingerprint(),
        "normalization": [_MEAN, _STD],
        "torch": f"{major}.{minor}",
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
