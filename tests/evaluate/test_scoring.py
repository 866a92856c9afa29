"""Metric and divergence of outputs, against sums written out."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autocompress.errors import TrialError
from autocompress.evaluate.scoring import divergence_of, score
from autocompress.tasks.base import Task

TASK = Task(model=nn.Identity(), train=(torch.zeros(2, 1), torch.zeros(2)))


def outputs(seed: int, *shape: int) -> Tensor:
    return 2.0 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def kl(base: Tensor, other: Tensor) -> float:
    """Mean over examples of sum q log(q / p) at temperature 2, times its square."""
    q, p = (np.exp(x.double().numpy() / 2.0) for x in (base, other))
    q, p = (x / x.sum(axis=1, keepdims=True) for x in (q, p))
    return 4.0 * float((q * np.log(q / p)).sum(axis=1).mean())


@pytest.mark.parametrize("distill", ["kl", "none"])
@pytest.mark.parametrize("shape", [(7, 4), (3, 5, 6)])
def test_divergence_of_classes_is_their_kl_divergence(distill: str, shape: tuple[int, ...]) -> None:
    task = dataclasses.replace(TASK, distill=distill)
    base, other = outputs(0, *shape), outputs(1, *shape)
    assert divergence_of(task, base, other) == pytest.approx(kl(base, other), rel=1e-5)
    assert divergence_of(task, base, base) == 0.0


@pytest.mark.parametrize("changes", [{"distill": "mse"}, {"distill": "none", "loss": F.mse_loss}])
@pytest.mark.parametrize("shape", [(9,), (9, 1), (4, 2, 3)])
def test_divergence_of_numbers_is_their_squared_error_over_the_variance(
    changes: dict[str, object], shape: tuple[int, ...]
) -> None:
    task = dataclasses.replace(TASK, **changes)
    base, other = outputs(0, *shape), outputs(1, *shape)
    x, y = base.double().numpy(), other.double().numpy()
    assert divergence_of(task, base, other) == pytest.approx(((x - y) ** 2).mean() / x.var())
    assert divergence_of(task, base, base) == 0.0


def test_divergence_of_outputs_that_are_all_alike_is_a_number() -> None:
    task = dataclasses.replace(TASK, distill="mse")
    assert math.isfinite(divergence_of(task, torch.ones(3, 1), torch.full((3, 1), 2.0)))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_divergence_fails_on_outputs_that_are_not_finite(value: float) -> None:
    other = outputs(1, 3, 4)
    other[1, 2] = value
    with pytest.raises(TrialError, match="NaN or infinity") as caught:
        divergence_of(TASK, outputs(0, 3, 4), other)
    assert caught.value.reason == "nonfinite_output"


def test_divergence_fails_where_it_is_not_finite_itself() -> None:
    with pytest.raises(TrialError, match="too large to compare"):
        divergence_of(TASK, torch.tensor([[0.0, 1.0]]), torch.tensor([[3e38, -3e38]]))


@pytest.mark.parametrize(("metric", "taken"), [(1.0 + 1e-7, 1.0), (-1e-7, 0.0), (0.5, 0.5)])
def test_a_metric_may_miss_its_range_by_what_sums_are_rounded(metric: float, taken: float) -> None:
    task = dataclasses.replace(TASK, metric=lambda outputs, targets: metric)
    assert score(task, outputs(0, 5, 3), torch.zeros(5, dtype=torch.int64))[0] == taken


@pytest.mark.parametrize("metric", [1.5, -0.1, math.nan])
def test_a_metric_off_its_range_is_the_trials_failure(metric: float) -> None:
    task = dataclasses.replace(TASK, metric=lambda outputs, targets: metric)
    with pytest.raises(TrialError, match=r"must lie in \[0, 1\]") as caught:
        score(task, outputs(0, 5, 3), torch.zeros(5, dtype=torch.int64))
    assert caught.value.reason == "metric"


@pytest.mark.parametrize("field", ["metric", "loss"])
def test_a_metric_or_loss_that_raises_is_named_with_its_line(field: str) -> None:
    def raises(outputs: Tensor, targets: Tensor) -> float:
        raise KeyError("no such class: 3")

    line = raises.__code__.co_firstlineno + 1
    task = dataclasses.replace(TASK, **{"metric": lambda outputs, targets: 0.5, field: raises})
    with pytest.raises(TrialError) as caught:
        score(task, outputs(0, 5, 3), torch.zeros(5, dtype=torch.int64))
    assert caught.value.reason == field
    assert caught.value.message == (
        f"`Task.{field}` must give a number for a whole split, but raised "
        f"KeyError: 'no such class: 3' ({__file__}, line {line})."
    )


def test_a_metric_off_its_range_is_named_with_its_line() -> None:
    def percent(outputs: Tensor, targets: Tensor) -> float:
        return 93.0

    with pytest.raises(TrialError, match=r"\[0, 1\], but returned 93.0 for a whole") as caught:
        score(dataclasses.replace(TASK, metric=percent), outputs(0, 5, 3), torch.zeros(5))
    assert f"({__file__}, line {percent.__code__.co_firstlineno})." in caught.value.message
