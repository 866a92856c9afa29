"""The task's metric and loss of a model over a whole split."""

import torch
from torch import Tensor, nn

from autocompress.errors import TrialError
from autocompress.tasks.base import Task, TensorData
from autocompress.train.precision import Precision, autocast, to_device

_BATCH_SIZE = 512


def predict(
    model: nn.Module,
    data: TensorData,
    device: torch.device,
    precision: Precision = "fp32",
    batch_size: int = _BATCH_SIZE,
) -> Tensor:
    """Outputs for all examples of a split, in order, without augmentation.

    Returns:
        The outputs of the batches, concatenated along dimension 0, on the CPU.
    """
    model.eval()
    outputs = []
    with torch.inference_mode(), autocast(precision, device):
        for start in range(0, len(data), batch_size):
            inputs, _ = data.batch(slice(start, start + batch_size))
            outputs.append(model(*to_device(inputs, device)).float().cpu())
    return torch.cat(outputs)


def score(task: Task, outputs: Tensor, targets: Tensor) -> tuple[float, float]:
    """Metric and loss of outputs over a whole split.

    Raises:
        TrialError: If an output is not a finite number.
    """
    if not bool(torch.isfinite(outputs).all()):
        raise TrialError("nonfinite_output", "The candidate's outputs hold NaN or infinity.")
    outputs, targets = outputs.clone(), targets.clone()
    return float(task.metric(outputs, targets)), float(task.loss(outputs, targets))
