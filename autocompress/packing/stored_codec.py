"""Stored weights into pools, and back, bit for bit.

Integers are coded as distances from the code of 0, where the coder's prior has its peak: from the
entry of a codebook that is closest to 0, from the zero point of a grid where that is shorter.

Dimension key: `C` channels, `G` blocks of a channel, `K` entries of a codebook.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autocompress.compress.codes import (
    CodebookTensor,
    Floats,
    GridTensor,
    HashedTensor,
    QuantizedTensor,
    StoredWeight,
)
from autocompress.errors import InputError
from autocompress.packing.byte_stream import PoolReader, Pools, to_halves
from autocompress.packing.coder import decode_symbols, encode_symbols
from autocompress.packing.table import (
    CODEBOOK,
    EACH_FLOAT,
    EACH_HALF,
    GRID,
    HASHED,
    NO_SCALES,
    ONE_FLOAT,
    ONE_HALF,
    QUANTIZED,
    TensorRow,
)


def write_stored(
    weight: StoredWeight, pools: Pools, known_codebook: Floats | None = None
) -> dict[str, Any]:
    """Append a weight to the pools.

    Args:
        weight: What to append.
        pools: Where to.
        known_codebook: That of the latest codebook tensor; an equal one is not written again.

    Returns:
        Fields of its `TensorRow`, all but type and shape.
    """
    fields: dict[str, Any] = {"axis": weight.axis, "bits": weight.bits}
    if isinstance(weight, QuantizedTensor):
        fields |= {"codec": QUANTIZED, "n_stream": _put_symbols(weight.codes, pools)}
    elif isinstance(weight, GridTensor):
        zeros = encode_symbols(weight.zero_point)
        pools.zero_points += zeros
        # distances win where many weights are 0, codes where small blocks use all of their grid
        plain = encode_symbols(weight.codes)
        relative = encode_symbols(weight.codes - _zero_point_of_each(weight))
        pools.symbols += min(plain, relative, key=len)
        fields |= {
            "codec": GRID,
            "n_stream": min(len(plain), len(relative)),
            "is_relative": len(relative) < len(plain),
            "block_size": weight.block_size,
            "n_zero_stream": len(zeros),
        }
    elif isinstance(weight, CodebookTensor):
        distances = weight.codes.astype(np.int16) - _closest_to_zero(weight.codebook)
        fields |= {
            "codec": CODEBOOK,
            "n_stream": _put_symbols(distances, pools),
            **_put_entries(weight.codebook, pools, known_codebook),
        }
    else:
        fields |= {
            "codec": HASHED,
            "seed": weight.seed,
            "is_transposed": weight.is_transposed,
            **_put_entries(weight.values, pools),
        }
    return fields | {"scales": put_scales(weight.scale, pools)}


def read_stored(
    row: TensorRow, pools: PoolReader, known_codebook: Floats | None = None
) -> StoredWeight:
    """Inverse of `write_stored`.

    Raises:
        InputError: If the pools do not hold what the row says.
    """
    if row.codec == HASHED:
        values = pools.scales(row.n_entries, is_half=row.has_half_entries)
        return HashedTensor(
            shape=row.dims,
            values=values,
            seed=row.seed,
            scale=take_scales(row, pools),
            axis=row.axis,
            bits=row.bits,
            is_transposed=row.is_transposed,
        )
    dtype = "i1" if row.codec == QUANTIZED else "<i2"
    symbols = decode_symbols(pools.symbols.take(row.n_stream), row.n_values, dtype)
    symbols = symbols.reshape(row.dims)
    if row.codec == QUANTIZED:
        scale = take_scales(row, pools)
        codes = symbols.astype(np.int8, copy=False)
        return QuantizedTensor(codes=codes, scale=scale, axis=row.axis, bits=row.bits)
    if row.codec == GRID:
        return _read_grid(row, symbols, pools)
    codebook = known_codebook
    if row.n_entries:
        codebook = pools.scales(row.n_entries, is_half=row.has_half_entries)
    if codebook is None:
        raise InputError("the first codebook tensor must have a codebook of its own")
    codes = symbols + _closest_to_zero(codebook)
    return CodebookTensor(
        codes=_to_bytes(codes, len(codebook)),
        codebook=codebook,
        scale=take_scales(row, pools),
        axis=row.axis,
        bits=row.bits,
    )


def put_scales(scale: Floats, pools: Pools) -> int:
    """Append scales in the shortest of the forms; returns which."""
    if (scale == 1.0).all():
        return NO_SCALES
    is_one = bool((scale == scale.flat[0]).all())
    stored = scale.reshape(-1)[:1] if is_one else scale
    halves = to_halves(stored)
    if halves is None:
        pools.scale_floats += stored.astype("<f4").tobytes()
        return ONE_FLOAT if is_one else EACH_FLOAT
    pools.scale_halves += halves
    return ONE_HALF if is_one else EACH_HALF


def take_scales(row: TensorRow, pools: PoolReader) -> Floats:
    """Inverse of `put_scales`: shape (C,) or (C, G).

    Raises:
        InputError: If the pools hold fewer.
    """
    if row.scales == NO_SCALES:
        return np.ones(row.scale_dims, np.float32)
    stored = pools.scales(row.n_stored_scales, is_half=row.has_half_scales)
    is_one = row.scales in (ONE_HALF, ONE_FLOAT)
    return np.full(row.scale_dims, stored) if is_one else stored.reshape(row.scale_dims)


def _read_grid(row: TensorRow, symbols: NDArray[Any], pools: PoolReader) -> GridTensor:
    scale = take_scales(row, pools)
    zeros = decode_symbols(pools.zero_points.take(row.n_zero_stream), scale.size, np.uint8)
    grid = GridTensor(
        codes=np.empty(row.dims, np.uint8),
        scale=scale,
        zero_point=zeros.astype(np.uint8, copy=False).reshape(scale.shape),
        block_size=row.block_size,
        axis=row.axis,
        bits=row.bits,
    )
    codes = symbols + _zero_point_of_each(grid) if row.is_relative else symbols
    grid.codes[:] = _to_bytes(codes, 1 << 8)
    return grid


def _zero_point_of_each(grid: GridTensor) -> NDArray[np.int16]:
    """Zero point of every weight, in the shape of the codes."""
    moved = np.moveaxis(grid.codes, grid.axis, 0)
    block = np.arange(moved[0].size) // grid.block_size
    each = grid.zero_point.astype(np.int16)[:, block]  # (C, n)
    return np.moveaxis(each.reshape(moved.shape), 0, grid.axis)


def _closest_to_zero(codebook: Floats) -> np.int16:
    return np.int16(np.abs(codebook).argmin())


def _put_symbols(symbols: NDArray[Any], pools: Pools) -> int:
    stream = encode_symbols(symbols)
    pools.symbols += stream
    return len(stream)


def _put_entries(values: Floats, pools: Pools, known: Floats | None = None) -> dict[str, Any]:
    if known is not None and known.tobytes() == values.tobytes():
        return {"n_entries": 0}
    halves = to_halves(values)
    if halves is None:
        pools.scale_floats += values.astype("<f4").tobytes()
    else:
        pools.scale_halves += halves
    return {"n_entries": len(values), "has_half_entries": halves is not None}


def _to_bytes(codes: NDArray[Any], n_letters: int) -> NDArray[np.uint8]:
    low, high = codes.min(initial=0), codes.max(initial=0)
    if low < 0 or high >= n_letters:
        raise InputError(f"codes must lie in [0, {n_letters - 1}], but range over [{low}, {high}]")
    return codes.astype(np.uint8)
