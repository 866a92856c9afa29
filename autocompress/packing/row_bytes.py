"""What each tensor takes of a packed file, and what it is stored as."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from autocompress.packing.section import Section, payload_lengths
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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RowBytes:
    """Bytes of the payload that belong to one tensor, by what they hold.

    Attributes:
        payload: Its stream of coded integers.
        scales: Step sizes, zero points, codebook, hashed values.
        floats: Values that are not quantized.
    """

    payload: int
    scales: int
    floats: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.payload + self.scales + self.floats


def bytes_of_rows(section: Section) -> list[RowBytes]:
    """Bytes of the payload that belong to each row; their sum is the payload.

    Streams of symbols, float32 scales and raw values are counted exactly. Float16 values (scales
    and codebooks in one pool, biases and the like in another) are coded together over all tensors;
    each pool is shared out by the number of values.
    """
    lengths, rows = payload_lengths(section), section.rows
    scales = _shares(lengths.scale_stream + lengths.scale_lows, [_n_half_scales(r) for r in rows])
    halves = _shares(lengths.half_stream + lengths.half_lows, [_n_halves(r) for r in rows])
    return [
        RowBytes(
            payload=0 if row.codec == PROTO else row.n_stream,
            scales=row.n_zero_stream + 4 * (_n_scales(row) - _n_half_scales(row)) + in_halves,
            floats=_n_raw(row) + halves_of_row,
        )
        for row, in_halves, halves_of_row in zip(rows, scales, halves, strict=True)
    ]


def _n_raw(row: TensorRow) -> int:
    """Bytes of values that are stored as they are."""
    if row.codec == SPARSE and not row.has_half_entries:
        return 4 * row.n_entries
    return row.n_bytes if row.codec in (RAW, PROTO) else 0


def _n_scales(row: TensorRow) -> int:
    entries = row.n_entries if row.codec in (CODEBOOK, HASHED) else 0
    return row.n_stored_scales + entries


def _n_half_scales(row: TensorRow) -> int:
    entries = row.n_entries if row.codec in (CODEBOOK, HASHED) and row.has_half_entries else 0
    return entries + (row.n_stored_scales if row.has_half_scales else 0)


def _n_halves(row: TensorRow) -> int:
    if row.codec == SPARSE and row.has_half_entries:
        return row.n_entries
    return row.n_values if row.codec == HALF else 0


def _shares(total: int, weights: Sequence[int]) -> list[int]:
    """Share out a total by weights, in whole bytes that add up.

    >>> _shares(10, [1, 0, 2])
    [3, 0, 7]
    """
    ends = [0, *itertools.accumulate(weights)]
    before = [total * end // max(1, ends[-1]) for end in ends]
    return [after - start for start, after in itertools.pairwise(before)]
