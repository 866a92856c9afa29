"""Metrics for tasks other than classification, each in [0, 1] with more being better.

Dimension key: `N` examples, `C` classes, `T` positions of a sequence, `H` and `W` of an image.
"""

from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import confusion_matrix, f1_score, r2_score
from torch import Tensor

IGNORED: Final = -100  # PyTorch's mark of targets that do not count
_CHUNK: Final = 4096  # positions whose log-probabilities are held at once


def explained_variance(outputs: Tensor, targets: Tensor) -> float:
    """Coefficient of determination (R squared) of a regression; 0 where a constant is as good.

    Args:
        outputs: Shape (N, ...); several outputs are averaged.
        targets: The same shape.
    """
    truth, guess = (t.double().reshape(len(t), -1).numpy() for t in (targets, outputs))
    return max(0.0, float(r2_score(truth, guess)))


def macro_f1(outputs: Tensor, targets: Tensor) -> float:
    """Mean over classes of the harmonic mean of precision and recall: for uneven classes.

    Args:
        outputs: Logits (N, C).
        targets: Classes (N,).
    """
    return float(f1_score(targets.numpy(), outputs.argmax(1).numpy(), average="macro"))


def pixel_accuracy(outputs: Tensor, targets: Tensor) -> float:
    """Share of positions whose largest logit is the target's; `IGNORED` ones do not count.

    Args:
        outputs: Logits (N, C, ...), such as (N, C, H, W) or (N, C, T).
        targets: Classes (N, ...).
    """
    counts = targets != IGNORED
    return float((outputs.argmax(1) == targets)[counts].double().mean())


def mean_iou(outputs: Tensor, targets: Tensor) -> float:
    """Intersection over union of a segmentation, mean over the classes that occur (Jaccard).

    Args:
        outputs: Logits (N, C, H, W).
        targets: Classes (N, H, W); `IGNORED` ones do not count.
    """
    counts = (targets != IGNORED).flatten()
    truth, guess = (t.flatten()[counts].numpy() for t in (targets, outputs.argmax(1)))
    table = confusion_matrix(truth, guess, labels=range(outputs.shape[1]))
    hits = np.diag(table)
    union = table.sum(0) + table.sum(1) - hits
    return float((hits[union > 0] / union[union > 0]).mean())


def inverse_perplexity(outputs: Tensor, targets: Tensor) -> float:
    """exp(-cross-entropy): the geometric mean of the probabilities of the right answers.

    Args:
        outputs: Logits (N, C, ...), such as (N, C, T) of a language model.
        targets: Classes (N, ...); `IGNORED` ones do not count.
    """
    total, n_counted = 0.0, 0
    for start in range(0, len(outputs), max(1, _CHUNK // max(1, targets[0].numel()))):
        rows = slice(start, start + max(1, _CHUNK // max(1, targets[0].numel())))
        total += float(
            F.cross_entropy(outputs[rows].float(), targets[rows], reduction="sum").double()
        )
        n_counted += int((targets[rows] != IGNORED).sum())
    return float(torch.tensor(-total / max(1, n_counted), dtype=torch.float64).exp())
