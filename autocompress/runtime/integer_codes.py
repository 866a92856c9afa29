"""Which stored weights are int8 codes times a scale per channel, though they were not made so.

Integer kernels compute with such weights only. A codebook whose entries are small multiples of one
step (powers of two and their sums, ternary) and a grid per channel can be rewritten without
changing a value.
"""

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from autocompress.compress.codes import (
    CodebookTensor,
    Floats,
    GridTensor,
    QuantizedTensor,
    StoredWeight,
    along,
)

_INT8 = np.iinfo(np.int8)


def to_integer_codes(weight: StoredWeight) -> QuantizedTensor | None:
    """The same values, bit for bit, as int8 codes and positive scales; None if there are none."""
    if isinstance(weight, QuantizedTensor):
        return weight
    if isinstance(weight, CodebookTensor):
        found = _from_codebook(weight)
    elif isinstance(weight, GridTensor) and weight.scale.shape[1] == 1:
        shape = [-1 if dim == weight.axis else 1 for dim in range(weight.codes.ndim)]
        steps = weight.codes.astype(np.int16) - weight.zero_point.astype(np.int16).reshape(shape)
        found = _signed(steps, weight.scale[:, 0], weight.axis)
    else:
        return None
    if found is None or found.dequantize().tobytes() != (weight.dequantize() + 0.0).tobytes():
        return None
    return found


def _from_codebook(weight: CodebookTensor) -> QuantizedTensor | None:
    if not np.isfinite(weight.codebook).all():
        return None
    entries = [Fraction(float(value)) for value in weight.codebook]  # floats are exact fractions
    step = _common_step(entries)
    multiples = [int(entry / step) for entry in entries]
    if max(map(abs, multiples)) > -_INT8.min:
        return None
    codes = np.array(multiples, np.int16)[weight.codes]
    return _signed(codes, weight.scale * np.float32(step), weight.axis)


def _common_step(entries: list[Fraction]) -> Fraction:
    """The largest number that all entries are multiples of; 1 if all are 0."""
    denominator = math.lcm(*(entry.denominator for entry in entries))
    numerator = math.gcd(*(int(entry * denominator) for entry in entries))
    return Fraction(numerator or denominator, denominator)


def _signed(codes: NDArray[np.int16], scale: Floats, axis: int) -> QuantizedTensor | None:
    """Codes times scales, whose signs go into the codes; None if the codes do not fit int8."""
    signed = codes * along(np.sign(scale), axis, codes.ndim).astype(np.int16)
    low, high = int(signed.min(initial=0)), int(signed.max(initial=0))
    if low < _INT8.min or high > _INT8.max:
        return None
    return QuantizedTensor(
        codes=signed.astype(np.int8),
        scale=np.abs(scale),
        axis=axis,
        bits=max(2, (-low - 1).bit_length() + 1, high.bit_length() + 1),
    )
