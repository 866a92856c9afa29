"""Quantization of a layer's input: a range that is observed, then a step that is learned."""

import torch
from torch import Tensor, nn

from autocompress.compress.codes import ActivationRange
from autocompress.compress.quantizers.base import positive
from autocompress.compress.quantizers.grid import RoundToOneGrid

ACTIVATION_MAX = 255  # unsigned: signed 8-bit activations run slower than floats on x86 kernels


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
        grad_scale = (x[0].numel() * ACTIVATION_MAX) ** -0.5
        zero = int(self.zero_point)
        rounded: Tensor = RoundToOneGrid.apply(
            x, positive(self.step), -zero, ACTIVATION_MAX - zero, grad_scale
        )
        return rounded

    def freeze(self) -> ActivationRange:
        """The grid as it is now; it must have been settled."""
        assert not self.is_observing, "settle the grid before freezing it"
        return ActivationRange(
            scale=float(positive(self.step.detach())), zero_point=int(self.zero_point)
        )
