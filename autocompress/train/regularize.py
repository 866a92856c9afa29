"""Training towards sparsity: penalties on a model's weights, added to the loss.

Dimension key: `C` output channels, `n` weights of one.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from autocompress.errors import unknown_name
from autocompress.tasks.base import Inputs
from autocompress.train.channel_weights import channel_rows, trained_weights
from autocompress.train.hard_concrete import gating


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Penalty:
    """What is added to the loss.

    Attributes:
        value: Computes it for the weights as they are, a scalar.
        parameters: Its own parameters, trained beside the model's.
    """

    value: Callable[[], Tensor]
    parameters: tuple[nn.Parameter, ...] = ()


def l1_penalty(model: nn.Module) -> Tensor:
    """Sum of the absolute values of all weights; drives single weights to zero (lasso)."""
    return _sum(model, [w.abs().sum() for _, _, w in trained_weights(model)])


def squared_l2_norm(model: nn.Module) -> Tensor:
    """Sum of the squares of all weights; drives large weights down (ridge)."""
    return _sum(model, [w.square().sum() for _, _, w in trained_weights(model)])


def group_lasso(model: nn.Module) -> Tensor:
    """Sum over output channels of sqrt(n) times the length of the channel's weights.

    Drives whole channels to zero (Yuan & Lin 2006; for filters Wen et al. 2016).
    """
    return _sum(model, [group_lasso_of(channel_rows(*found)) for found in trained_weights(model)])


def group_lasso_of(rows: Tensor) -> Tensor:
    """The penalty of one weight with a row for each group, shape (C, n); its gradient at 0 is 0."""
    return torch.linalg.vector_norm(rows, dim=1).sum() * math.sqrt(rows.shape[1])


def _sum(model: nn.Module, terms: list[Tensor]) -> Tensor:
    if terms:
        return torch.stack(terms).sum()
    return next(model.parameters()).new_zeros(())


Open = Callable[[nn.Module, Inputs], AbstractContextManager[Penalty | None]]


def _of_weights(value: Callable[[nn.Module], Tensor]) -> Open:
    return lambda model, inputs: contextlib.nullcontext(Penalty(value=lambda: value(model)))


@contextlib.contextmanager
def _expected_l0(model: nn.Module, inputs: Inputs) -> Iterator[Penalty]:
    with gating(model, inputs) as gates:
        yield Penalty(value=gates.expected_n_weights, parameters=gates.parameters)


PENALTIES: dict[str, Open] = {
    "none": lambda model, inputs: contextlib.nullcontext(None),
    "l1": _of_weights(l1_penalty),
    "l2": _of_weights(squared_l2_norm),
    "group_lasso": _of_weights(group_lasso),
    "l0": _expected_l0,
}


def penalizing(
    kind: str, model: nn.Module, inputs: Inputs
) -> AbstractContextManager[Penalty | None]:
    """Open a penalty for the length of one training; None inside means there is none.

    Args:
        kind: Name in `PENALTIES`.
        model: To be trained in the block; `l0` scales its outputs there, and its weights at the
            end.
        inputs: Inputs of two or more examples, on the model's device, for one trial run.

    Raises:
        InputError: If there is no such kind.
    """
    if kind not in PENALTIES:
        raise unknown_name("penalty", kind, PENALTIES)
    return PENALTIES[kind](model, inputs)
