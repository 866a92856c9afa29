"""The fast training loop: in-memory data, whole-batch augmentation, bf16, channels-last."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable

import torch
from torch import nn

from autocompress.compress.input_quantizer import InputQuantizer
from autocompress.compress.quantizers.base import WeightQuantizer
from autocompress.errors import TrialError
from autocompress.tasks.prepare import PreparedTask
from autocompress.train.batches import Batches
from autocompress.train.features import matching
from autocompress.train.precision import Precision, keep_freed_memory, to_device
from autocompress.train.recipe import Recipe, check_recipe
from autocompress.train.regularize import penalizing
from autocompress.train.teachers import Teacher
from autocompress.train.training_loss import make_loss

_WARM_UP_STEPS = 100
_WARM_UP_SHARE = 0.1
_MOMENTUM = 0.9
_WEIGHT_DECAY = 1e-4
_GATE_RATE = 1000.0  # of the learning rate: gates have far to go; 10 to 1000 tried on digits


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
        teacher: What to distill from, on `device`; the base model if features are matched.
        recipe: How long, how fast, and what is added to the task's loss.
        seed: Decides order, augmentation and dropout; equal seeds give equal weights on one
            machine with one thread count.
        device: Where to train.
        precision: Format of convolutions and matrix products.
        on_step: Called with (step, n_steps) after each step.

    Raises:
        InputError: If the task does not bring what the recipe needs.
        TrialError: If the loss stops being a finite number.
    """
    check_recipe(recipe, prepared)
    keep_freed_memory()
    torch.manual_seed(seed)
    batches = Batches(prepared, recipe.batch_size, torch.Generator().manual_seed(seed))
    assert teacher.cached is None or len(teacher.cached) == batches.n_examples
    n_steps = steps_of(recipe, prepared)
    start = time.perf_counter()
    n_images = 0
    with contextlib.ExitStack() as stack:
        example = to_device(prepared.example_inputs, device)
        penalty = stack.enter_context(penalizing(recipe.penalty, model, example))
        features = stack.enter_context(matching(recipe.features, teacher.model, model, example))
        loss_of = make_loss(prepared, teacher, recipe, features, device, precision)
        groups = _parameter_groups(model, () if penalty is None else penalty.parameters)
        optimizer = torch.optim.SGD(
            groups, lr=recipe.learning_rate, momentum=_MOMENTUM, nesterov=True
        )
        model.train()
        for step in range(n_steps):
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * _schedule(step, n_steps) * group["rate"]
            inputs, targets, indices = batches.draw()
            loss = loss_of(model, to_device(inputs, device), targets.to(device), indices)
            if penalty is not None:
                loss = loss + recipe.penalty_strength * penalty.value()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            n_images += len(indices)
            _check_finite(loss.item(), step, n_steps)
            if on_step is not None:
                on_step(step + 1, n_steps)
    model.eval()
    return Throughput(n_images=n_images, seconds=time.perf_counter() - start)


def steps_of(recipe: Recipe, prepared: PreparedTask) -> int:
    """Training steps that `finetune_` takes for a recipe: its epochs in batches, at least 1."""
    per_epoch = Batches(prepared, recipe.batch_size, torch.Generator()).per_epoch
    return max(1, round(recipe.epochs * per_epoch))


def _check_finite(loss: float, step: int, n_steps: int) -> None:
    if not math.isfinite(loss):
        raise TrialError(
            "nonfinite_loss", f"The loss became {loss} in step {step + 1} of {n_steps}."
        )


def _schedule(step: int, n_steps: int) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then half a cosine."""
    n_warm = min(_WARM_UP_STEPS, round(_WARM_UP_SHARE * n_steps))
    if step < n_warm:
        return (step + 1) / (n_warm + 1)
    progress = (step - n_warm) / max(1, n_steps - n_warm)
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def _parameter_groups(
    model: nn.Module, gates: tuple[nn.Parameter, ...] = ()
) -> list[dict[str, object]]:
    """Weight decay on weights only: not on biases, norms, quantizers or gates."""
    quantizers = (m for m in model.modules() if isinstance(m, WeightQuantizer | InputQuantizer))
    learned = {id(p) for quantizer in quantizers for p in quantizer.parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.ndim >= 2 and id(p) not in learned]
    kept = [p for p in trained if p.ndim < 2 or id(p) in learned]
    groups: list[dict[str, object]] = [
        {"params": decayed, "weight_decay": _WEIGHT_DECAY, "rate": 1.0},
        {"params": kept, "weight_decay": 0.0, "rate": 1.0},
        {"params": list(gates), "weight_decay": 0.0, "rate": _GATE_RATE},
    ]
    return [group for group in groups if group["params"]]
