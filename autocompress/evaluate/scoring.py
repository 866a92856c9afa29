"""The task's metric and loss of a model over a whole split."""

import torch
from torch import Tensor

from autocompress.errors import TrialError
from autocompress.tasks.base import Task


def score(task: Task, outputs: Tensor, targets: Tensor) -> tuple[float, float]:
    """Metric and loss of outputs over a whole split.

    Raises:
        TrialError: If an output is not a finite number.
    """
    if not bool(torch.isfinite(outputs).all()):
        raise TrialError("nonfinite_output", "The candidate's outputs hold NaN or infinity.")
    outputs, targets = outputs.clone(), targets.clone()
    return float(task.metric(outputs, targets)), float(task.loss(outputs, targets))
