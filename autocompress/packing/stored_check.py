"""Whether a stored weight agrees with itself, and with the initializer it stands for."""

import math

import numpy as np
from onnx import TensorProto

from autocompress.compress.codes import CodebookTensor, GridTensor, HashedTensor, StoredWeight
from autocompress.errors import InputError
from autocompress.packing.table import MAX_ENTRIES

_MAX_AXIS = 16  # four bits of a row
_MAX_SEED = 1 << 32


def in_layout_of(weight: StoredWeight, tensor: TensorProto, content: bytes) -> StoredWeight:
    """The weight, or its transpose, whichever `tensor` holds bit for bit.

    Args:
        weight: What the initializer is stored as.
        tensor: The initializer.
        content: Its values, little-endian.

    Raises:
        InputError: If it holds neither, or the weight contradicts itself.
    """
    check_stored(weight, tensor.name)
    values = weight.dequantize().astype("<f4")
    if tensor.data_type == TensorProto.FLOAT:
        dims = tuple(tensor.dims)
        if values.shape == dims and values.tobytes() == content:
            return weight
        if values.ndim == 2 and values.T.shape == dims and values.T.tobytes() == content:
            return weight.transposed()
    raise InputError(
        f"What is stored of {tensor.name!r}, shape {values.shape}, must equal its float32 "
        f"initializer, shape {tuple(tensor.dims)}, or its transpose bit for bit, but does not.",
        "Export the graph from the dequantized weights themselves.",
    )


def check_stored(weight: StoredWeight, name: str) -> None:
    """Check what the format takes for granted.

    Raises:
        InputError: If shapes, bits, entries or the seed are impossible.
    """
    shape = weight.shape if isinstance(weight, HashedTensor) else weight.codes.shape
    if not 0 <= weight.axis < min(len(shape), _MAX_AXIS):
        raise InputError(
            f"Scales of {name!r} must run along a dimension of its shape {shape}, but run along "
            f"axis {weight.axis}."
        )
    n_channels, n_weights = shape[weight.axis], math.prod(shape)
    scale_shape: tuple[int, ...] = (n_channels,)
    if isinstance(weight, GridTensor):
        if not 1 <= weight.block_size <= n_weights:
            raise InputError(
                f"Blocks of {name!r} must have 1 to {n_weights} weights, but have "
                f"{weight.block_size}."
            )
        scale_shape = (n_channels, -(-(n_weights // n_channels) // weight.block_size))
        if weight.zero_point.shape != scale_shape:
            raise InputError(
                f"Zero points of {name!r} must have shape {scale_shape}, but have shape "
                f"{weight.zero_point.shape}."
            )
    if weight.scale.shape != scale_shape:
        raise InputError(
            f"Scales of {name!r}, shape {shape}, must have shape {scale_shape} along axis "
            f"{weight.axis}, but have shape {weight.scale.shape}."
        )
    if not 1 <= weight.bits <= 8:
        raise InputError(f"Codes of {name!r} must have 1 to 8 bits, but have {weight.bits}.")
    if isinstance(weight, CodebookTensor):
        _check_codebook(weight, name)
    if isinstance(weight, HashedTensor):
        _check_hashed(weight, n_weights, name)


def _check_codebook(weight: CodebookTensor, name: str) -> None:
    n_entries = len(weight.codebook)
    if not 1 <= n_entries <= MAX_ENTRIES:
        raise InputError(
            f"The codebook of {name!r} must have 1 to {MAX_ENTRIES} entries, but has {n_entries}."
        )
    largest = int(np.max(weight.codes, initial=0))
    if largest >= n_entries:
        raise InputError(
            f"Codes of {name!r} must be below the {n_entries} entries of its codebook, but reach "
            f"{largest}."
        )


def _check_hashed(weight: HashedTensor, n_weights: int, name: str) -> None:
    if not 1 <= len(weight.values) <= n_weights:
        raise InputError(
            f"Hashed values of {name!r} must be 1 to {n_weights}, one a weight at most, but are "
            f"{len(weight.values)}."
        )
    if not 0 <= weight.seed < _MAX_SEED:
        raise InputError(f"The seed of {name!r} must lie in [0, 2**32), but is {weight.seed}.")
    if weight.is_transposed and len(weight.shape) != 2:
        raise InputError(f"Only a matrix can be hashed transposed, but {name!r} is none.")
