"""How much a model's outputs suffer from an error in one layer's: measured, not derived.

Derivatives of the outputs do not tell: they take the errors of neighbouring positions for
independent, and those of a rounded weight are not.

Dimension key: `G` groups of a convolution, `O` outputs of a group, `n` inputs of one output.
"""

import copy
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Final

import torch
from torch import Tensor, nn

from autocompress.compress.compensated_rounding import compensate_rounding, curvature_of
from autocompress.compress.compressed_layers import (
    is_compressed,
    mask_of,
    restore_layer_,
    weight_parameters,
)
from autocompress.tasks.base import Inputs

N_EXAMPLES: Final = 128
"""Examples that outputs are compared on."""

_ERROR_SHARE: Final = 0.15  # of a layer's output; about what rounding to 2 bits does to it
_MOST_STEPS: Final = 512  # to either side of 0: a weight without an input may be of any size
_LEAST_DAMAGE: Final = 1e-3  # of the outputs, per share of a layer's: unused layers have none


class OutputDamage:
    """A model with float weights, and what rounding one of its layers does to its outputs.

    Batch-norms use the statistics of each batch, as they are re-estimated after rounding.

    Args:
        model: May hold masked and quantized weights; not modified.
        batches: Inputs, each of shape (N, ...), at least one; of `first_examples`.
    """

    def __init__(self, model: nn.Module, batches: Iterable[Inputs]) -> None:
        self._batches = [tuple(part) for part in batches]
        has_statistics = all(len(inputs[0]) > 1 for inputs in self._batches)
        self._model = _unrounded(model, uses_batch_statistics=has_statistics)
        self._outputs = list(self._run())
        self._variance = max(_variance(self._outputs), torch.finfo(torch.float32).tiny)

    def per_error(self, name: str, second_moment: Tensor) -> float | None:
        """Damage to the model's outputs per squared error of a layer's.

        The layer is rounded, with compensation, to a grid so coarse that about a seventh of its
        output's power becomes error.

        Args:
            name: Qualified name of a Linear or Conv layer.
            second_moment: Of its inputs, shape (G, n, n).

        Returns:
            Squared error of the model's outputs as a share of their variance, over the squared
            error of the layer's, which is tr(ΔW M ΔWᵀ); None where the layer's output is 0 or the
            model's is not finite.
        """
        layer, second_moment = self._model.get_submodule(name), second_moment.double()
        weight = layer.get_parameter("weight").detach()
        W = weight.reshape(len(second_moment), -1, second_moment.shape[-1]).double()  # (G, O, n)
        power = _error(W, second_moment)
        if not power > 0.0:
            return None
        step = _step(W, second_moment, power)
        n_steps = min(_MOST_STEPS, math.ceil(float(W.abs().max()) / step))
        levels = torch.arange(-n_steps, n_steps + 1, device=W.device).double() * step
        rounded = compensate_rounding(W, second_moment, levels.expand(*W.shape[:2], 1, -1))
        error = _error(rounded - W, second_moment)
        if error <= 0.0:
            return None
        damage = self._damage(layer, rounded.reshape(weight.shape).to(weight.dtype))
        return max(damage, _LEAST_DAMAGE * error / power) / error if math.isfinite(damage) else None

    def _damage(self, layer: nn.Module, weight: Tensor) -> float:
        before = layer.get_parameter("weight").detach().clone()
        try:
            with torch.no_grad():
                layer.get_parameter("weight").copy_(weight)
            pairs = zip(self._run(), self._outputs, strict=True)
            change = sum(float((new.double() - old).square().sum()) for new, old in pairs)
            return change / sum(old.numel() for old in self._outputs) / self._variance
        finally:
            with torch.no_grad():
                layer.get_parameter("weight").copy_(before)

    def _run(self) -> Iterator[Tensor]:
        for inputs in self._batches:
            with torch.no_grad():
                yield self._model(*inputs)


def _step(weight: Tensor, second_moment: Tensor, power: float) -> float:
    """Of a grid whose squared rounding error, step² / 12 per weight, is a share of `power`."""
    curvature = float(curvature_of(second_moment).mean())
    return math.sqrt(12.0 * _ERROR_SHARE * power / (weight.numel() * curvature))


def _error(change: Tensor, second_moment: Tensor) -> float:
    """Mean squared output of a weight, all outputs together."""
    return float(torch.einsum("gon,gnm,gom->", change, second_moment, change))


def _variance(outputs: list[Tensor]) -> float:
    """Variance of all numbers of all outputs, which need not be of one shape."""
    n = sum(part.numel() for part in outputs)
    mean = sum(float(part.double().sum()) for part in outputs) / n
    return sum(float((part.double() - mean).square().sum()) for part in outputs) / n


def first_examples(batches: Iterable[Inputs]) -> tuple[list[Inputs], Iterable[Inputs]]:
    """The first `N_EXAMPLES` examples of batches, and all batches: only the first are kept.

    Args:
        batches: Inputs, each of shape (N, ...); what is returned takes their place.
    """
    source = iter(batches)
    taken: list[Inputs] = []
    n_taken = 0
    while n_taken < N_EXAMPLES and (inputs := next(source, None)) is not None:
        taken.append(inputs)
        n_taken += len(inputs[0])
    return _cut(taken), itertools.chain(taken, source)


def _cut(batches: Iterable[Inputs]) -> list[Inputs]:
    taken: list[Inputs] = []
    n_left = N_EXAMPLES
    for inputs in batches:
        if n_left <= 0:
            break
        taken.append(tuple(tensor[:n_left] for tensor in inputs))
        n_left -= len(inputs[0])
    return taken


def _unrounded(model: nn.Module, *, uses_batch_statistics: bool) -> nn.Module:
    """A copy in eval mode, with plain layers that hold masked float weights."""
    plain = copy.deepcopy(model).eval()
    for module in list(plain.modules()):
        if is_compressed(module):
            for parameter in weight_parameters(module):
                mask = mask_of(module, parameter)
                if mask is not None:
                    with torch.no_grad():
                        module.get_parameter(parameter).mul_(mask)
            restore_layer_(module)
        elif uses_batch_statistics and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
            module.momentum = 0.0
    return plain
