"""Quantization with learned steps: integer grids for weights and layer inputs, trained through.

Dimension key: `C` output channels, `n` weights of one channel.
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F

from autocompress.compress.codes import ActivationRange, QuantizedTensor

ACTIVATION_MAX = 255  # unsigned: signed 8-bit inputs run slower than floats on x86 kernels
_STEP_FLOOR = 1e-8  # keeps a learned step from reaching 0, where the grid would vanish
_STEP_CANDIDATES = 80


def code_limits(bits: int) -> tuple[int, int]:
    """Smallest and largest integer of a signed grid.

    At 8 bits the grid is symmetric, so that folding a negative batch-norm scale into it (which
    flips all signs) stays inside int8.

    >>> code_limits(2), code_limits(8)
    ((-2, 1), (-127, 127))
    """
    return (-127, 127) if bits == 8 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def best_steps(weight: Tensor, bits: int) -> Tensor:
    """Step per channel with the least squared rounding error, by a search over a grid of steps.

    Args:
        weight: Shape (C, ...).
        bits: 2-8.

    Returns:
        Steps of shape (C,), positive.
    """
    low, high = code_limits(bits)
    rows = weight.detach().flatten(1).float()  # (C, n)
    widest = rows.abs().amax(dim=1).clamp_min(_STEP_FLOOR) / max(high, 1)
    best = widest.clone()
    best_error = torch.full_like(widest, float("inf"))
    for share in torch.linspace(1.0 / _STEP_CANDIDATES, 1.0, _STEP_CANDIDATES):
        step = widest * share
        rounded = (rows / step[:, None]).round().clamp(low, high) * step[:, None]
        error = (rounded - rows).square().sum(dim=1)
        is_better = error < best_error
        best = torch.where(is_better, step, best)
        best_error = torch.where(is_better, error, best_error)
    return best.clamp_min(_STEP_FLOOR)


class _RoundToGrid(torch.autograd.Function):
    """x -> (clamp(round(x / step + zero)) - zero) * step, with LSQ's gradients (Esser et al. 2020).

    The gradient reaches `x` where it is inside the grid, and `step` everywhere.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, step: Tensor, zero: int, low: int, high: int, scale: float
    ) -> Tensor:
        ratio = x / step
        codes = ratio.round().clamp_(low - zero, high - zero)
        ctx.save_for_backward(ratio, codes, step)
        ctx.limits = (low - zero, high - zero, scale)  # type: ignore[attr-defined]
        return codes * step

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        ratio, codes, step = ctx.saved_tensors  # type: ignore[attr-defined]
        low, high, scale = ctx.limits  # type: ignore[attr-defined]
        is_inside = (ratio >= low) & (ratio <= high)
        grad_x = grad * is_inside if ctx.needs_input_grad[0] else None  # type: ignore[attr-defined]
        per_value = torch.where(is_inside, codes - ratio, codes) * grad
        grad_step = per_value.sum_to_size(step.shape) * scale
        return grad_x, grad_step, None, None, None, None


class WeightQuantizer(nn.Module):
    """Learned step per output channel.

    Args:
        weight: The weight to start from, shape (C, ...).
        bits: 2-8.
    """

    step: nn.Parameter

    def __init__(self, weight: Tensor, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.step = nn.Parameter(best_steps(weight, bits))

    def _steps(self, weight: Tensor) -> Tensor:
        """Positive steps, shaped to broadcast over `weight`."""
        return self.step.abs().clamp_min(_STEP_FLOOR).reshape(-1, *[1] * (weight.ndim - 1))

    def forward(self, weight: Tensor) -> Tensor:
        """Weight on the grid, same shape."""
        low, high = code_limits(self.bits)
        grad_scale = (weight[0].numel() * high) ** -0.5
        rounded: Tensor = _RoundToGrid.apply(weight, self._steps(weight), 0, low, high, grad_scale)
        return rounded

    def freeze(self, weight: Tensor) -> QuantizedTensor:
        """Integer codes and scales of the weight as it is now."""
        low, high = code_limits(self.bits)
        with torch.no_grad():
            codes = (weight / self._steps(weight)).round().clamp(low, high)
            scale = self.step.abs().clamp_min(_STEP_FLOOR)
        return QuantizedTensor(
            codes=codes.to(torch.int8).cpu().numpy(),
            scale=scale.float().cpu().numpy(),
            axis=0,
            bits=self.bits,
        )


class InputQuantizer(nn.Module):
    """Unsigned 8-bit grid of a layer's input: range observed first, step learned afterwards."""

    step: nn.Parameter
    zero_point: Tensor
    low: Tensor
    high: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.is_observing = True
        self.step = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("zero_point", torch.tensor(0))
        self.register_buffer("low", torch.tensor(0.0))
        self.register_buffer("high", torch.tensor(0.0))

    def reset(self) -> None:
        """Forget the range and start observing."""
        self.is_observing = True
        self.low.zero_()
        self.high.zero_()

    def settle(self) -> None:
        """Stop observing and lay the grid over the observed range; 0.0 falls on an integer."""
        self.is_observing = False
        low, high = float(self.low), float(self.high)
        step = max(high - low, 1e-6) / ACTIVATION_MAX
        with torch.no_grad():
            self.step.fill_(step)
            self.zero_point.fill_(min(ACTIVATION_MAX, max(0, round(-low / step))))

    def forward(self, x: Tensor) -> Tensor:
        """Input on the grid, same shape; unchanged while observing."""
        if self.is_observing:
            with torch.no_grad():
                low, high = torch.aminmax(x.detach().float())
                self.low.copy_(torch.minimum(self.low, low))
                self.high.copy_(torch.maximum(self.high, high))
            return x
        step = self.step.abs().clamp_min(_STEP_FLOOR)
        grad_scale = (x[0].numel() * ACTIVATION_MAX) ** -0.5
        zero = int(self.zero_point)
        rounded: Tensor = _RoundToGrid.apply(x, step, zero, 0, ACTIVATION_MAX, grad_scale)
        return rounded

    def freeze(self) -> ActivationRange:
        """The grid as it is now; it must have been settled."""
        assert not self.is_observing, "settle the grid before freezing it"
        step = float(self.step.detach().abs().clamp_min(_STEP_FLOOR))
        return ActivationRange(scale=step, zero_point=int(self.zero_point))


class QuantizedLinear(nn.Linear):
    """A Linear that computes with its weight, and its input if asked, on integer grids."""

    weight_quantizer: WeightQuantizer
    input_quantizer: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        return F.linear(self.input_quantizer(input), self.weight_quantizer(self.weight), self.bias)


class _QuantizedConv:
    """A convolution that computes with its weight, and its input if asked, on integer grids."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, I, ...) -> (N, O, ...)."""
        conv: nn.Conv2d = self  # type: ignore[assignment]
        x, weight = conv.input_quantizer(input), conv.weight_quantizer(conv.weight)  # type: ignore[operator]
        return conv._conv_forward(x, weight, conv.bias)


class QuantizedConv1d(_QuantizedConv, nn.Conv1d):
    """Conv1d on integer grids."""


class QuantizedConv2d(_QuantizedConv, nn.Conv2d):
    """Conv2d on integer grids."""


class QuantizedConv3d(_QuantizedConv, nn.Conv3d):
    """Conv3d on integer grids."""


QUANTIZED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: QuantizedLinear,
    nn.Conv1d: QuantizedConv1d,
    nn.Conv2d: QuantizedConv2d,
    nn.Conv3d: QuantizedConv3d,
}
_PLAIN = {quantized: plain for plain, quantized in QUANTIZED.items()}


def quantize_(model: nn.Module, name: str, weight_bits: int, activation_bits: int) -> None:
    """Put a layer, or all factors it was split into, on integer grids, in place.

    Input grids start out observing: run calibration data through the model, then `settle` them
    (`train.recalibrate` does).

    Args:
        model: Changed.
        name: Qualified name of a Conv1d/2d/3d or Linear layer, or of the factors in its place.
        weight_bits: 2-8.
        activation_bits: 8, or 32 for a float input.
    """
    for layer in list(model.get_submodule(name).modules()):
        if type(layer) in QUANTIZED:
            weight = layer.weight
            assert isinstance(weight, Tensor)
            layer.weight_quantizer = WeightQuantizer(weight, weight_bits)
            layer.input_quantizer = InputQuantizer() if activation_bits == 8 else nn.Identity()
            # The class changes and the parameters stay the same objects, so that optimizer
            # state, hooks and shared references keep pointing at the right thing.
            layer.__class__ = QUANTIZED[type(layer)]


def freeze_(model: nn.Module) -> tuple[dict[str, QuantizedTensor], dict[str, ActivationRange]]:
    """Turn quantized layers back into plain ones that hold exactly dequantized weights, in place.

    Args:
        model: Changed: its quantized layers become plain float layers.

    Returns:
        Layer name -> codes of its weight, and layer name -> grid of its input.
    """
    weights: dict[str, QuantizedTensor] = {}
    activations: dict[str, ActivationRange] = {}
    for name, layer in model.named_modules():
        if type(layer) not in _PLAIN:
            continue
        quantizer, weight, grid = layer.weight_quantizer, layer.weight, layer.input_quantizer
        assert isinstance(quantizer, WeightQuantizer)
        assert isinstance(weight, Tensor)
        weights[name] = quantizer.freeze(weight)
        with torch.no_grad():
            weight.copy_(torch.from_numpy(weights[name].dequantize()))
        if isinstance(grid, InputQuantizer):
            activations[name] = grid.freeze()
        del layer.weight_quantizer, layer.input_quantizer
        layer.__class__ = _PLAIN[type(layer)]
    return weights, activations
