"""The proxy: re-estimate statistics, tune briefly, re-estimate again."""

from collections.abc import Callable

import torch
from torch import nn

from autocompress.measurement import Fidelity
from autocompress.tasks.prepare import PreparedTask
from autocompress.train.loop import Recipe, Teacher, Throughput, finetune_
from autocompress.train.precision import Precision
from autocompress.train.recalibrate import calibration_batches, recalibrate_

_CALIBRATION_BATCHES = 8
_LEAST_CALIBRATION_BATCH = 32  # statistics of fewer examples are noise


def tune_(
    model: nn.Module,
    prepared: PreparedTask,
    teacher: Teacher,
    recipe: Recipe,
    *,
    fidelity: Fidelity,
    seed: int,
    device: torch.device,
    precision: Precision,
    on_step: Callable[[int, int], None] | None = None,
) -> Throughput:
    """Bring a freshly built candidate to what a fidelity promises, in place.

    Batch-norm statistics and input grids are re-estimated on training data first (fidelity 0 stops
    there); after the fine-tune batch-norm statistics once more, because those gathered while the
    weights moved lag behind them.

    Args:
        model: Changed; on `device`, left in eval mode.
        prepared: The task.
        teacher: What to distill from.
        recipe: The brief fine-tune.
        fidelity: 0 for statistics only, 1 for the fine-tune.
        seed: Decides batches and augmentation.
        device: Where to train.
        precision: Format of convolutions and matrix products.
        on_step: Called with (step, n_steps) after each training step.

    Returns:
        What tuning cost; no images at fidelity 0.

    Raises:
        TrialError: If the loss stops being a finite number.
    """
    _recalibrate(model, prepared, recipe, seed, device, grids=True)
    if fidelity == 0:
        return Throughput(n_images=0, seconds=0.0)
    throughput = finetune_(
        model,
        prepared,
        teacher,
        recipe,
        seed=seed,
        device=device,
        precision=precision,
        on_step=on_step,
    )
    _recalibrate(model, prepared, recipe, seed, device, grids=False)
    return throughput


def _recalibrate(
    model: nn.Module,
    prepared: PreparedTask,
    recipe: Recipe,
    seed: int,
    device: torch.device,
    *,
    grids: bool,
) -> None:
    batch_size = max(_LEAST_CALIBRATION_BATCH, recipe.batch_size)
    batches = calibration_batches(prepared, batch_size, _CALIBRATION_BATCHES, seed)
    on_device = (tuple(tensor.to(device) for tensor in inputs) for inputs in batches)
    recalibrate_(model, on_device, grids=grids)
