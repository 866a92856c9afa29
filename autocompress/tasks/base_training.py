"""The plain loop that trains the base models of embedded tasks.

Kept apart from `train/`, which tunes compressed copies and stands on a higher floor.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from autocompress.tasks.base import Augment, TensorData
from autocompress.tasks.training_progress import training_progress


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
