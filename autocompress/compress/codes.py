"""Integer codes with their scales: what a quantized weight is outside of training.

Dimension key: `C` channels along `axis`.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedTensor:
    """A tensor whose values are `codes * scale`, exactly.

    Attributes:
        codes: Integers of the tensor's shape, dtype int8.
        scale: Step sizes, shape (C,) float32, positive; zero point is always 0.
        axis: Dimension of `codes` that `scale` runs along.
        bits: Bits per code: every code lies in [-2**(bits-1), 2**(bits-1) - 1].
    """

    codes: NDArray[np.int8]
    scale: NDArray[np.float32]
    axis: int
    bits: int

    def dequantize(self) -> NDArray[np.float32]:
        """The float32 tensor these codes stand for: one multiplication per value, so bit-exact."""
        shape = [1] * self.codes.ndim
        shape[self.axis] = -1
        return self.codes.astype(np.float32) * self.scale.reshape(shape)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ActivationRange:
    """Unsigned 8-bit grid of one layer's input: `x ≈ (q - zero_point) * scale`, q in [0, 255].

    Attributes:
        scale: Step size, positive.
        zero_point: Code that stands for 0.0, in [0, 255].
    """

    scale: float
    zero_point: int
