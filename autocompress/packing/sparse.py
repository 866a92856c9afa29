"""Float tensors with many zeros: a coded mask, and the values that are not 0.

Only +0.0 counts as zero, so that values come back bit for bit.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autocompress.errors import InputError
from autocompress.packing.byte_stream import PoolReader, Pools, to_halves
from autocompress.packing.coder import decode_symbols, encode_symbols
from autocompress.packing.table import SPARSE, TensorRow


def write_sparse(values: NDArray[np.float32], pools: Pools) -> dict[str, Any] | None:
    """Append a tensor to the pools, if that takes fewer bytes than its values one by one.

    Args:
        values: Any shape, float32, at least one.
        pools: Left alone if None is returned.

    Returns:
        Fields of its `TensorRow`.
    """
    flat = values.reshape(-1)
    is_kept = flat.view(np.uint32) != 0
    kept = flat[is_kept]
    if kept.size == flat.size:
        return None
    mask, halves = encode_symbols(is_kept.astype(np.uint8)), to_halves(kept)
    n_row_bytes = 3  # length of the mask, number of values, details
    if n_row_bytes + len(mask) + _n_bytes(kept, halves) >= _n_bytes(flat, to_halves(flat)):
        return None
    pools.symbols += mask
    if halves is None:
        pools.raw += kept.tobytes()
    else:
        pools.halves += halves
    return {
        "codec": SPARSE,
        "n_stream": len(mask),
        "n_entries": kept.size,
        "has_half_entries": halves is not None,
    }


def read_sparse(row: TensorRow, pools: PoolReader) -> NDArray[np.float32]:
    """Inverse of `write_sparse`, flat.

    Raises:
        InputError: If mask and number of values do not agree.
    """
    mask = decode_symbols(pools.symbols.take(row.n_stream), row.n_values, np.uint8)
    if mask.max(initial=0) > 1 or int(mask.sum(dtype=np.int64)) != row.n_entries:
        raise InputError(f"the mask of a sparse tensor must mark {row.n_entries} values")
    values = np.zeros(row.n_values, "<f4")
    values[mask == 1] = pools.floats(row.n_entries, is_half=row.has_half_entries)
    return values


def _n_bytes(values: NDArray[np.float32], halves: bytes | None) -> int:
    """What values take, one by one: of halves the upper bytes are coded."""
    if halves is None:
        return values.nbytes
    return values.size + len(encode_symbols(np.frombuffer(halves, np.uint8)[1::2]))
