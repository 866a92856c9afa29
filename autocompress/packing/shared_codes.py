"""Tensors whose codes occurred before: with other scales, other signs, or transposed.

Layers that share a weight and have batch-norms of their own differ, once these are folded, in the
scales and signs of channels alone. A tied embedding and its integer matrix product have the same
codes as floats and as int8. Codes are compared with every channel's first code other than 0 made
positive, so that signs do not matter.
"""

import dataclasses
import hashlib
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from autocompress.compress.codes import (
    CodebookTensor,
    GridTensor,
    HashedTensor,
    QuantizedTensor,
    StoredWeight,
    along,
)
from autocompress.errors import InputError

Signs: TypeAlias = NDArray[np.int8]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Occurrence:
    """Where codes occurred before.

    Attributes:
        row: Of the earlier tensor.
        signs: 1 or -1 for each channel, shape (C,): what the earlier codes are multiplied with.
        is_transposed: Whether they must be transposed first.
    """

    row: int
    signs: Signs
    is_transposed: bool


class KnownCodes:
    """Remembers codes and finds them again."""

    def __init__(self) -> None:
        self._rows: dict[tuple[object, ...], tuple[int, Signs]] = {}

    def add(self, weight: StoredWeight, row: int) -> None:
        """Remember the codes of a row; the first row with equal codes stays."""
        key, signs = _identity(weight)
        self._rows.setdefault(key, (row, signs))

    def find(self, weight: StoredWeight) -> Occurrence | None:
        """The first row with these codes, or their transpose, up to signs and scales."""
        is_matrix = len(shape_of(weight)) == 2
        for layout in (weight, weight.transposed()) if is_matrix else (weight,):
            key, signs = _identity(layout)
            if key in self._rows:
                row, earlier = self._rows[key]
                return Occurrence(
                    row=row, signs=signs * earlier, is_transposed=layout is not weight
                )
        return None


def shape_of(weight: StoredWeight) -> tuple[int, ...]:
    """Shape of the tensor that a weight stands for."""
    return weight.shape if isinstance(weight, HashedTensor) else weight.codes.shape


def as_weight(codes: NDArray[np.int8], axis: int) -> QuantizedTensor:
    """Codes that stand for themselves: all scales are 1."""
    return QuantizedTensor(
        codes=codes, scale=np.ones(codes.shape[axis], np.float32), axis=axis, bits=8
    )


def with_signs(weight: QuantizedTensor, signs: Signs) -> QuantizedTensor:
    """Multiply the codes of each channel with its sign.

    Raises:
        InputError: If a code leaves int8.
    """
    codes = _times(weight, signs)
    if codes.max(initial=0) > np.iinfo(np.int8).max:
        raise InputError("codes must lie in [-128, 127], but one is -(-128)")
    return dataclasses.replace(weight, codes=codes.astype(np.int8))


def _identity(weight: StoredWeight) -> tuple[tuple[object, ...], Signs]:
    """What equal codes have in common, and the signs that were taken out of them."""
    signs = np.ones(shape_of(weight)[weight.axis], np.int8)
    parts: tuple[NDArray[Any], ...]
    numbers: tuple[int, ...] = ()
    if isinstance(weight, QuantizedTensor):
        signs = _first_signs(weight)
        parts = (_times(weight, signs),)
    elif isinstance(weight, GridTensor):
        parts, numbers = (weight.codes, weight.zero_point), (weight.block_size,)
    elif isinstance(weight, CodebookTensor):
        parts = (weight.codes, weight.codebook)
    else:
        parts, numbers = (weight.values,), (weight.seed, weight.is_transposed)
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part.tobytes())
    key = (type(weight), weight.axis, shape_of(weight), *numbers, digest.digest())
    return key, signs


def _times(weight: QuantizedTensor, signs: Signs) -> NDArray[np.int16]:
    return weight.codes.astype(np.int16) * along(signs, weight.axis, weight.codes.ndim)


def _first_signs(weight: QuantizedTensor) -> Signs:
    """Sign of each channel's first code other than 0; 1 if it has none."""
    rows = np.moveaxis(weight.codes, weight.axis, 0)
    if rows.size == 0:
        return np.ones(len(rows), np.int8)
    rows = rows.reshape(len(rows), -1)  # (C, n)
    first = (rows != 0).argmax(axis=1)
    return np.where(rows[np.arange(len(rows)), first] < 0, -1, 1).astype(np.int8)
