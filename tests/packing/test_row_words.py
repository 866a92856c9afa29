"""Rows of the table in words."""

import pytest
from onnx import TensorProto

from autocompress.packing.row_bytes import nominal_bits, stored_as
from autocompress.packing.table import (
    CODEBOOK,
    GRID,
    HALF,
    HASHED,
    NO_SCALES,
    ONE_HALF,
    PROTO,
    RAW,
    SAME,
    SHARED,
    SPARSE,
    SYMBOLS,
    TensorRow,
)

FLOAT = TensorProto.FLOAT


def row(codec: int, data_type: int = FLOAT, **fields: object) -> TensorRow:
    return TensorRow(data_type=data_type, dims=(8, 6), codec=codec, **fields)  # type: ignore[arg-type]


ROWS = {
    "float": (row(RAW), 32),
    "double": (row(RAW, TensorProto.DOUBLE), 64),
    "string message": (row(PROTO, TensorProto.STRING, n_stream=3), None),
    "unknown message": (row(PROTO, 12345, n_stream=3), None),
    "int8 codes": (row(SYMBOLS, TensorProto.INT8, n_stream=3), 8),
    "float16": (row(HALF), 16),
    "as tensor 3, transposed": (row(SAME, earlier=3, is_transposed=True), 16),
    "codes in blocks of 3, 16 scales": (row(GRID, block_size=3, bits=4), 4),
    "codebook of 5, 1 scale": (row(CODEBOOK, n_entries=5, scales=ONE_HALF, bits=3), 3),
    "the last codebook": (row(CODEBOOK, scales=NO_SCALES, bits=3), 3),
    "7 hashed values, 8 scales": (row(HASHED, n_entries=7, bits=2), 2),
    "4 other than 0 in float": (row(SPARSE, n_entries=4), 32),
    "4 other than 0 in float16": (row(SPARSE, n_entries=4, has_half_entries=True), 16),
    "codes of tensor 1, 6 scales": (row(SHARED, earlier=1, axis=1, bits=5), 5),
}
TABLE = [row(RAW), row(RAW), row(HALF), row(SAME, earlier=2)]


@pytest.mark.parametrize("words", ROWS)
def test_stored_as_and_nominal_bits(words: str) -> None:
    found, bits = ROWS[words]
    assert stored_as(found) == words
    assert nominal_bits(found, TABLE) == bits
