"""Facts from data that criteria and methods ask for, each gathered once and only if needed."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from autocompress.compress.calibration import CalibrationStatistics
from autocompress.compress.importance.registry import find_criterion
from autocompress.compress.low_rank.registry import find_factorization
from autocompress.plan import CompressionPlan
from autocompress.tasks.base import Inputs
from autocompress.tasks.prepare import PreparedTask
from autocompress.train.precision import sound_gradients
from autocompress.train.recalibrate import calibration_batches

_GRADIENT_BATCHES = 8
_CALIBRATION_BATCHES = 4
_CALIBRATION_SEED = 0


class StatisticsCollector:
    """Gathers what building a plan needs to know about the base model.

    Args:
        model: The base model, on the CPU; not modified.
        prepared: Supplies training data.
        criterion: Name of the importance criterion.
        is_rewound: Whether survivors of pruning start from the task's initial state.
    """

    def __init__(
        self, model: nn.Module, prepared: PreparedTask, criterion: str, *, is_rewound: bool
    ) -> None:
        self._model = model
        self._prepared = prepared
        self._criterion = criterion
        self._initial_state = prepared.task.initial_state if is_rewound else None
        self._gradients: tuple[dict[str, Tensor], dict[str, Tensor]] | None = None
        self._calibration: tuple[Inputs, ...] = ()

    def for_plan(self, plan: CompressionPlan) -> CalibrationStatistics:
        """What this plan needs; the rest stays empty."""
        first, second = None, None
        if find_criterion(self._criterion).needs != "nothing" and plan.pruning_ratios:
            if self._gradients is None:
                self._gradients = mean_gradients(self._model, self._prepared)
            first, second = self._gradients
        methods = {la.factorization for la in plan.layers.values() if la.rank_ratio < 1.0}
        return CalibrationStatistics(
            gradients=first,
            squared_gradients=second,
            calibration=self._batches() if any(map(_needs_data, methods)) else (),
            initial_state=self._initial_state if removes_weights(plan) else None,
        )

    def _batches(self) -> tuple[Inputs, ...]:
        if not self._calibration:
            batch_size = self._prepared.task.batch_size
            self._calibration = tuple(
                calibration_batches(
                    self._prepared, batch_size, _CALIBRATION_BATCHES, _CALIBRATION_SEED
                )
            )
        return self._calibration


def removes_weights(plan: CompressionPlan) -> bool:
    """Whether a plan cuts channels or zeroes weights: what schedules and penalties are about."""
    return bool(plan.pruning_ratios) or any(la.sparsity > 0.0 for la in plan.layers.values())


def mean_gradients(
    model: nn.Module, prepared: PreparedTask
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Gradient of the task's loss at a model, over a few batches of train.

    Args:
        model: On the CPU; not modified.
        prepared: Supplies loss and data.

    Returns:
        Parameter name -> mean gradient, and parameter name -> mean squared gradient of a batch
        times its size: the diagonal of the empirical Fisher matrix, as far as the gradients of
        different examples are independent.
    """
    model = copy.deepcopy(model).requires_grad_(True)
    batches = list(_gradient_batches(prepared))
    first: dict[str, Tensor] = {}
    second: dict[str, Tensor] = {}
    for inputs, targets in batches:
        model.zero_grad(set_to_none=True)
        loss = prepared.task.loss(model(*inputs), targets)
        with sound_gradients(model):
            loss.backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                mean = parameter.grad / len(batches)
                square = parameter.grad.square() * (len(targets) / len(batches))
                first[name] = first[name] + mean if name in first else mean
                second[name] = second[name] + square if name in second else square
    return first, second


def _gradient_batches(prepared: PreparedTask) -> Iterable[tuple[Inputs, Tensor]]:
    order = torch.randperm(len(prepared.train), generator=torch.Generator().manual_seed(0))
    for indices in order.split(prepared.task.batch_size)[:_GRADIENT_BATCHES]:
        yield prepared.train.batch(indices)


def _needs_data(method: str) -> bool:
    return find_factorization(method).needs_data
