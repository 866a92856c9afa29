"""What a quantized weight is outside of training: integers, and what turns them into floats.

Dimension key: `C` channels along `axis`, `G` blocks of consecutive weights in a channel, `K`
entries of a codebook.
"""

import dataclasses
import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]

_CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedTensor:
    """A tensor whose values are `codes * scale`, exactly: what integer kernels compute with.

    Attributes:
        codes: Integers of the tensor's shape, dtype int8.
        scale: Step sizes, shape (C,) float32, positive; zero point is always 0.
        axis: Dimension of `codes` that `scale` runs along.
        bits: Bits per code: every code lies in [-2**(bits-1), 2**(bits-1) - 1]; a binary weight
            (codes -1 and 1) counts as 2 bits here.
    """

    codes: NDArray[np.int8]
    scale: Floats
    axis: int
    bits: int

    def dequantize(self) -> Floats:
        """The float32 tensor these codes stand for: one multiplication per value, so bit-exact."""
        return self.codes.astype(np.float32) * along(self.scale, self.axis, self.codes.ndim)

    def transposed(self) -> "QuantizedTensor":
        """The transpose of a matrix."""
        return dataclasses.replace(self, codes=_transpose(self.codes), axis=1 - self.axis)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GridTensor:
    """A tensor with a grid per block of weights: `(codes - zero_point) * scale`, exactly.

    The weights of one channel, flattened in C order with `axis` moved to the front, form `G` blocks
    of `block_size`; the last may be shorter.

    Attributes:
        codes: Integers of the tensor's shape, dtype uint8, in [0, 2**bits - 1].
        scale: Shape (C, G) float32; a negative one (after folding) is fine, 0 is not.
        zero_point: Code that stands for 0.0, shape (C, G) uint8.
        block_size: Weights that share a grid, >= 1.
        axis: Dimension of `codes` that the channels run along.
        bits: Bits per code, 1-8.
    """

    codes: NDArray[np.uint8]
    scale: Floats
    zero_point: NDArray[np.uint8]
    block_size: int
    axis: int
    bits: int

    def dequantize(self) -> Floats:
        """The float32 tensor: an exact integer difference, then one multiplication per value."""
        moved = np.moveaxis(self.codes, self.axis, 0)
        rows = moved.reshape(len(moved), -1)  # (C, n)
        block = np.arange(rows.shape[1]) // self.block_size
        steps = rows.astype(np.int16) - self.zero_point.astype(np.int16)[:, block]
        values = steps.astype(np.float32) * self.scale[:, block]
        return np.ascontiguousarray(np.moveaxis(values.reshape(moved.shape), 0, self.axis))

    def transposed(self) -> "GridTensor":
        """The transpose of a matrix: its channels, and so its blocks, stay what they are."""
        return dataclasses.replace(self, codes=_transpose(self.codes), axis=1 - self.axis)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CodebookTensor:
    """A tensor whose values are `codebook[codes] * scale`, exactly.

    Attributes:
        codes: Indices of the tensor's shape, dtype uint8, < K.
        codebook: Ascending values, shape (K,) float32, 1 <= K <= 256.
        scale: Shape (C,) float32; negative after folding is fine, 0 is not.
        axis: Dimension of `codes` that `scale` runs along.
        bits: Bits per code, 1-8: K <= 2**bits.
    """

    codes: NDArray[np.uint8]
    codebook: Floats
    scale: Floats
    axis: int
    bits: int

    def dequantize(self) -> Floats:
        """The float32 tensor: a look-up, then one multiplication per value."""
        return self.codebook[self.codes] * along(self.scale, self.axis, self.codes.ndim)

    def transposed(self) -> "CodebookTensor":
        """The transpose of a matrix."""
        return dataclasses.replace(self, codes=_transpose(self.codes), axis=1 - self.axis)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HashedTensor:
    """A tensor whose entries share values by a hash of their position (HashedNets; Chen 2015).

    Positions are not stored: `buckets(n, K, seed)` gives them again.

    Attributes:
        shape: Of the tensor.
        values: One per bucket, shape (K,) float32.
        seed: Of the hash, in [0, 2**32).
        scale: Shape (C,) float32, not 0.
        axis: Dimension of the tensor that `scale` runs along.
        bits: Nominal bits per weight, 1-8: what `values` in float16 come to.
        is_transposed: Whether positions are counted in the transpose of this matrix.
    """

    shape: tuple[int, ...]
    values: Floats
    seed: int
    scale: Floats
    axis: int
    bits: int
    is_transposed: bool = False

    def dequantize(self) -> Floats:
        """The float32 tensor: a look-up, then one multiplication per value."""
        flat = np.empty(math.prod(self.shape), np.float32)
        for start in range(0, flat.size, _CHUNK):  # hashing takes 8 bytes a weight, several times
            part = flat[start : start + _CHUNK]
            part[:] = self.values[buckets(part.size, len(self.values), self.seed, start)]
        shape = self.shape[::-1] if self.is_transposed else self.shape
        values = _transpose(flat.reshape(shape)) if self.is_transposed else flat.reshape(shape)
        return values * along(self.scale, self.axis, len(self.shape))

    def transposed(self) -> "HashedTensor":
        """The transpose of a matrix; its positions are still counted in the original."""
        return dataclasses.replace(
            self,
            shape=self.shape[::-1],
            axis=1 - self.axis,
            is_transposed=not self.is_transposed,
        )


StoredWeight: TypeAlias = QuantizedTensor | GridTensor | CodebookTensor | HashedTensor


def buckets(n_weights: int, n_buckets: int, seed: int, start: int = 0) -> NDArray[np.int64]:
    """Bucket of each position, by the finaliser of SplitMix64 (Steele et al. 2014).

    Args:
        n_weights: Number of positions, in C order of the tensor.
        n_buckets: K >= 1.
        seed: In [0, 2**32).
        start: First position.

    Returns:
        Shape (n_weights,), in [0, n_buckets).
    """
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is the point
        z = np.arange(start + 1, start + n_weights + 1, dtype=np.uint64) * np.uint64(
            0x9E3779B97F4A7C15
        )
        z += np.uint64(seed) * np.uint64(0xD1B54A32D192ED03)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z % np.uint64(n_buckets)).astype(np.int64)


def _transpose(matrix: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(matrix.T)


def along(scale: NDArray[Any], axis: int, n_dims: int) -> NDArray[Any]:
    """`scale`, one number a channel, shaped to broadcast along dimension `axis` of `n_dims`."""
    return scale.reshape([-1 if dim == axis else 1 for dim in range(n_dims)])


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ActivationRange:
    """Unsigned 8-bit grid of one layer's input: `x ≈ (q - zero_point) * scale`, q in [0, 255].

    Attributes:
        scale: Step size, positive.
        zero_point: Code that stands for 0.0, in [0, 255].
    """

    scale: float
    zero_point: int
