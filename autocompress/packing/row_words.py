"""A row of the tensor table in words: how a tensor is stored, and in how many bits."""

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from autocompress.packing.table import (
    CODEBOOK,
    DTYPES,
    GRID,
    HALF,
    HASHED,
    NO_SCALES,
    PROTO,
    QUANTIZED,
    RAW,
    SAME,
    SCALED,
    SHARED,
    SPARSE,
    SYMBOLS,
    TensorRow,
)


def stored_as(row: TensorRow) -> str:
    """The codec of a row in a few words of plain ASCII.

    >>> stored_as(TensorRow(data_type=TensorProto.FLOAT, dims=(8, 3), codec=QUANTIZED))
    'codes, 8 scales'
    >>> stored_as(TensorRow(data_type=TensorProto.FLOAT, dims=(8, 3), codec=SAME, earlier=2))
    'as tensor 2'
    """
    turned = ", transposed" if row.is_transposed else ""
    words = {
        RAW: _type_name(row),
        PROTO: f"{_type_name(row)} message",
        SYMBOLS: f"{_type_name(row)} codes",
        HALF: "float16",
        QUANTIZED: "codes",
        SAME: f"as tensor {row.earlier}{turned}",
        GRID: f"codes in blocks of {row.block_size}",
        CODEBOOK: f"codebook of {row.n_entries}" if row.n_entries else "the last codebook",
        HASHED: f"{row.n_entries} hashed values",
        SPARSE: f"{row.n_entries} other than 0 in {'float16' if row.has_half_entries else 'float'}",
        SHARED: f"codes of tensor {row.earlier}{turned}",
    }[row.codec]
    has_scales = row.codec in SCALED and row.scales != NO_SCALES
    if not has_scales:
        return words
    return f"{words}, {row.n_stored_scales} scale{'' if row.n_stored_scales == 1 else 's'}"


def nominal_bits(row: TensorRow, rows: Sequence[TensorRow]) -> int | None:
    """Bits per value before any coding; None for messages and for strings.

    Args:
        row: The row.
        rows: The whole table: values that occurred before have the bits they had there.
    """
    while row.codec == SAME:  # always refers to an earlier row, so this ends
        row = rows[row.earlier]
    if row.codec in SCALED:
        return row.bits
    if row.codec == HALF or (row.codec == SPARSE and row.has_half_entries):
        return 16
    return None if row.codec == PROTO else 8 * np.dtype(DTYPES[row.data_type]).itemsize


def _type_name(row: TensorRow) -> str:
    names = TensorProto.DataType
    return names.Name(row.data_type).lower() if row.data_type in names.values() else "unknown"
