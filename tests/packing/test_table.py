import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from autocompress.errors import InputError
from autocompress.packing.byte_stream import ByteReader
from autocompress.packing.table import (
    HALF,
    PROTO,
    QUANTIZED,
    RAW,
    SAME,
    SYMBOLS,
    TensorRow,
    read_row,
)

FLOAT = TensorProto.FLOAT


@given(
    dims=st.lists(st.integers(0, 40), min_size=2, max_size=2).map(tuple),
    n_stream=st.integers(0, 2**40),
    axis=st.integers(0, 1),
    bits=st.integers(1, 8),
    flags=st.tuples(st.booleans(), st.booleans()),
)
def test_read_row_inverts_to_bytes_when_quantized(
    dims: tuple[int, ...], n_stream: int, axis: int, bits: int, flags: tuple[bool, bool]
) -> None:
    row = TensorRow(
        data_type=FLOAT,
        dims=dims,
        codec=QUANTIZED,
        n_stream=n_stream,
        axis=axis,
        bits=bits,
        is_transposed=flags[0],
        has_half_scales=flags[1],
    )
    reader = ByteReader(row.to_bytes(), "table")
    assert read_row(reader, 0) == row
    reader.finish()
    assert row.code_dims == (dims[::-1] if flags[0] else dims)
    assert row.n_bytes == 4 * dims[0] * dims[1]


@pytest.mark.parametrize(
    ("codec", "data_type", "n_stream"),
    [
        (RAW, TensorProto.DOUBLE, 0),
        (PROTO, TensorProto.STRING, 77),
        (SYMBOLS, TensorProto.INT8, 5),
        (HALF, FLOAT, 0),
        (SAME, FLOAT, 2),
    ],
)
def test_read_row_inverts_to_bytes(codec: int, data_type: int, n_stream: int) -> None:
    row = TensorRow(data_type=data_type, dims=(3, 0, 5), codec=codec, n_stream=n_stream)
    assert read_row(ByteReader(row.to_bytes(), "table"), 3) == row


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(bytes([6, FLOAT, 0]), id="unknown codec"),
        pytest.param(bytes([0x20, FLOAT, 0]), id="unknown flag"),
        pytest.param(bytes([0x08, FLOAT, 0]), id="transposed without codes"),
        pytest.param(bytes([RAW, TensorProto.STRING, 0]), id="raw strings"),
        pytest.param(bytes([HALF, TensorProto.INT8, 0]), id="integers as halves"),
        pytest.param(bytes([SYMBOLS, FLOAT, 1, 3, 3]), id="floats as symbols"),
        pytest.param(bytes([SAME, FLOAT, 1, 3, 1]), id="same as itself"),
        pytest.param(bytes([QUANTIZED, FLOAT, 1, 3, 0x18, 1]), id="axis beyond the shape"),
        pytest.param(bytes([QUANTIZED, FLOAT, 1, 3, 0x09, 1]), id="nine bits"),
        pytest.param(bytes([QUANTIZED | 8, FLOAT, 1, 3, 0x08, 1]), id="transposed vector"),
        pytest.param(bytes([RAW, FLOAT, 4] + [0xFF, 0x7F] * 4), id="too large"),
        pytest.param(bytes([RAW, FLOAT, 5, 0] + [0xFF, 0x7F] * 4), id="too large beside a zero"),
        pytest.param(bytes([RAW, FLOAT, 33] + [1] * 33), id="too many dimensions"),
    ],
)
def test_read_row_refuses_what_contradicts_itself(data: bytes) -> None:
    with pytest.raises(InputError):
        read_row(ByteReader(data, "table"), 1)
