"""The task's metric and loss of a model over a whole split, and its divergence from the base."""

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from autocompress.errors import TrialError
from autocompress.tasks.base import Task
from autocompress.tasks.prepare import METRIC_SLACK
from autocompress.train.distill import soft_label_loss

_LEAST_VARIANCE: Final = 1e-12  # of outputs that are all alike


def score(task: Task, outputs: Tensor, targets: Tensor) -> tuple[float, float]:
    """Metric and loss of outputs over a whole split.

    Raises:
        TrialError: If an output is not a finite number, or the metric none in [0, 1].
    """
    if not bool(torch.isfinite(outputs).all()):
        raise TrialError("nonfinite_output", "The candidate's outputs hold NaN or infinity.")
    outputs, targets = outputs.clone(), targets.clone()
    metric, loss = float(task.metric(outputs, targets)), float(task.loss(outputs, targets))
    if not -METRIC_SLACK <= metric <= 1.0 + METRIC_SLACK:
        message = f"`Task.metric` must lie in [0, 1], but returned {metric} for a whole split."
        raise TrialError("metric", message)
    return min(max(metric, 0.0), 1.0), loss


def divergence_of(task: Task, base: Tensor, outputs: Tensor) -> float:
    """How far outputs lie from the base model's, mean over examples.

    Args:
        task: Says what outputs are: logits where it distills by `kl`, or not at all and its loss is
            cross-entropy; else plain numbers.
        base: Outputs of the base model, of shape (N, classes, ...) or (N, ...).
        outputs: Outputs of the candidate, of the same shape.

    Returns:
        KL divergence of the class distributions in nats; for other outputs the mean squared
        difference over the variance of the base model's.

    Raises:
        TrialError: If an output, or their difference, is not a finite number.
    """
    if not bool(torch.isfinite(outputs).all()):
        raise TrialError("nonfinite_output", "The candidate's outputs hold NaN or infinity.")
    if task.distill == "kl" or (task.distill == "none" and task.loss is F.cross_entropy):
        # rounding can leave that of equal outputs a hair below 0
        divergence = max(0.0, float(soft_label_loss(outputs, base, temperature=1.0)))
    else:
        variance = base.double().var(correction=0).clamp(min=_LEAST_VARIANCE)
        divergence = float((outputs.double() - base.double()).square().mean() / variance)
    if not math.isfinite(divergence):
        raise TrialError("nonfinite_output", "The candidate's outputs are too large to compare.")
    return divergence
