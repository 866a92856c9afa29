import math

import pytest
import torch
import torch.nn.functional as F

from autocompress.tasks.metrics import (
    IGNORED,
    explained_variance,
    inverse_perplexity,
    macro_f1,
    mean_iou,
    pixel_accuracy,
)


def _logits(classes, n_classes):
    return F.one_hot(torch.tensor(classes), n_classes).float().movedim(-1, 1)


def test_explained_variance_is_one_for_the_truth_and_zero_for_the_mean():
    y = torch.randn(50, 2, 3)
    assert explained_variance(y, y) == 1.0
    assert explained_variance(y.mean(0, keepdim=True).expand_as(y), y) < 1e-12
    assert explained_variance(-y, y) == 0.0
    noisy = torch.tensor([[1.0], [2.0], [4.0]])
    assert explained_variance(noisy, torch.tensor([[1.0], [2.0], [3.0]])) == pytest.approx(0.5)


def test_macro_f1_counts_classes_alike():
    # class 0: precision 3/4, recall 1; class 1: precision 1, recall 1/2
    got = macro_f1(_logits([0, 0, 0, 0, 1], 2), torch.tensor([0, 0, 0, 1, 1]))
    assert got == pytest.approx((6 / 7 + 2 / 3) / 2)


def test_pixel_accuracy_leaves_out_what_does_not_count():
    logits = _logits([[[0, 1], [1, 1]]], 2)
    assert pixel_accuracy(logits, torch.tensor([[[0, 1], [0, 1]]])) == 0.75
    assert pixel_accuracy(logits, torch.tensor([[[0, 1], [IGNORED, 1]]])) == 1.0


def test_mean_iou_is_the_mean_over_classes_that_occur():
    logits = _logits([[[0, 1], [1, 1]]], 3)
    targets = torch.tensor([[[0, 1], [0, 1]]])
    assert mean_iou(logits, targets) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert mean_iou(logits, torch.tensor([[[0, 1], [IGNORED, 1]]])) == 1.0


def test_inverse_perplexity_is_the_geometric_mean_of_probabilities():
    logits = torch.randn(300, 7, 20)
    targets = torch.randint(0, 7, (300, 20))
    want = math.exp(-float(F.cross_entropy(logits.double(), targets)))
    assert inverse_perplexity(logits, targets) == pytest.approx(want, rel=1e-6)
    targets[:, 10:] = IGNORED
    want = math.exp(-float(F.cross_entropy(logits.double(), targets)))
    assert inverse_perplexity(logits, targets) == pytest.approx(want, rel=1e-6)
    assert inverse_perplexity(torch.zeros(5, 4), torch.zeros(5, dtype=torch.long)) == (
        pytest.approx(0.25)
    )
