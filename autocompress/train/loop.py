"""The fast training loop: in-memory data, whole-batch augmentation, bf16, channels-last."""

import dataclasses
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from autocompress.errors import TrialError
from autocompress.tasks.base import Inputs
from autocompress.tasks.prepare import PreparedTask
from autocompress.train.distill import TASK_SHARE, distillation_loss
from autocompress.train.precision import Precision, autocast, keep_freed_memory, to_device

_WARM_UP_STEPS = 100
_WARM_UP_SHARE = 0.1
_MOMENTUM = 0.9
_WEIGHT_DECAY = 1e-4


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a candidate is tuned: SGD with Nesterov momentum, warm-up, then a cosine to zero.

    Attributes:
        epochs: Passes over the training data; a fraction is fine.
        learning_rate: Peak learning rate.
        batch_size: Examples per step.
        distill: How outputs are matched to the teacher's: `kl`, `mse` or `none`.
    """

    epochs: float
    learning_rate: float
    batch_size: int
    distill: str = "kl"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Teacher:
    """The base model, and its outputs on the training data where no augmentation changes them.

    Attributes:
        model: In eval mode, its parameters need no gradients.
        cached: Outputs on every training example, (n_train, ...); None with augmentation.
    """

    model: nn.Module
    cached: Tensor | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """What tuning cost.

    Attributes:
        n_images: Training examples seen, repeats counted.
        seconds: Wall time.
    """

    n_images: int
    seconds: float

    @property
    def images_per_s(self) -> float | None:
        """Training examples per second; None if nothing was trained."""
        return self.n_images / self.seconds if self.n_images else None


def finetune_(
    model: nn.Module,
    prepared: PreparedTask,
    teacher: Teacher,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    precision: Precision,
    on_step: Callable[[int, int], None] | None = None,
) -> Throughput:
    """Tune a candidate in place.

    Args:
        model: Changed; on `device`, left in eval mode.
        prepared: Training data, augmentation and loss.
        teacher: What to distill from, on `device`.
        recipe: How long and how fast.
        seed: Decides order, augmentation and dropout; equal seeds give equal weights on one
            machine with one thread count.
        device: Where to train.
        precision: Format of convolutions and matrix products.
        on_step: Called with (step, n_steps) after each step.

    Raises:
        TrialError: If the loss stops being a finite number.
    """
    keep_freed_memory()
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    batches = _Batches(prepared, recipe.batch_size, generator)
    n_steps = max(1, round(recipe.epochs * batches.per_epoch))
    optimizer = torch.optim.SGD(
        _parameter_groups(model), lr=recipe.learning_rate, momentum=_MOMENTUM, nesterov=True
    )
    loss_of = _make_loss(prepared, teacher, recipe, device, precision)
    start = time.perf_counter()
    n_images = 0
    model.train()
    for step in range(n_steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(step, n_steps)
        inputs, targets, indices = batches.draw()
        loss = loss_of(model, to_device(inputs, device), targets.to(device), indices)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        n_images += len(targets)
        value = loss.item()
        if not math.isfinite(value):
            raise TrialError(
                "nonfinite_loss", f"The loss became {value} in step {step + 1} of {n_steps}."
            )
        if on_step is not None:
            on_step(step + 1, n_steps)
    model.eval()
    return Throughput(n_images=n_images, seconds=time.perf_counter() - start)


class _Batches:
    """Endless random batches: every epoch a new order, the last incomplete batch dropped."""

    def __init__(self, prepared: PreparedTask, batch_size: int, generator: torch.Generator) -> None:
        self.prepared = prepared
        self.batch_size = min(batch_size, len(prepared.train))
        self.per_epoch = len(prepared.train) // self.batch_size
        self.generator = generator
        self.queue: list[Tensor] = []

    def draw(self) -> tuple[Inputs, Tensor, Tensor]:
        """Inputs, targets and indices of the next batch."""
        if not self.queue:
            order = torch.randperm(len(self.prepared.train), generator=self.generator)
            self.queue = list(order.split(self.batch_size)[: self.per_epoch])
        indices = self.queue.pop()
        change = self.prepared.task.augment
        augment = None if change is None else lambda inputs: change(inputs, self.generator)
        inputs, targets = self.prepared.train.batch(indices, augment)
        return inputs, targets, indices


LossOf = Callable[[nn.Module, Inputs, Tensor, Tensor], Tensor]


def _make_loss(
    prepared: PreparedTask,
    teacher: Teacher,
    recipe: Recipe,
    device: torch.device,
    precision: Precision,
) -> LossOf:
    match = distillation_loss(recipe.distill)

    def loss_of(model: nn.Module, inputs: Inputs, targets: Tensor, indices: Tensor) -> Tensor:
        with autocast(precision, device):
            outputs = model(*inputs)
        outputs = outputs.float() if isinstance(outputs, Tensor) else outputs
        loss = prepared.task.loss(outputs, targets)
        if match is None:
            return loss
        if teacher.cached is not None:
            wanted = teacher.cached[indices].to(device)
        else:
            with torch.inference_mode(), autocast(precision, device):
                wanted = teacher.model(*inputs)
            wanted = wanted.clone()
        return TASK_SHARE * loss + (1.0 - TASK_SHARE) * match(outputs, wanted)

    return loss_of


def _schedule(step: int, n_steps: int) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then half a cosine."""
    n_warm = min(_WARM_UP_STEPS, round(_WARM_UP_SHARE * n_steps))
    if step < n_warm:
        return (step + 1) / (n_warm + 1)
    progress = (step - n_warm) / max(1, n_steps - n_warm)
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def _parameter_groups(model: nn.Module) -> list[dict[str, object]]:
    """Weight decay on weights only: not on biases, norms or learned steps."""
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    decayed = [p for n, p in trained if p.ndim >= 2]
    kept = [p for n, p in trained if p.ndim < 2]
    groups: list[dict[str, object]] = [
        {"params": decayed, "weight_decay": _WEIGHT_DECAY},
        {"params": kept, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
