import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from autocompress.errors import InputError
from autocompress.packing.byte_stream import ByteReader
from autocompress.packing.table import (
    CODEBOOK,
    EACH_FLOAT,
    GRID,
    HALF,
    HASHED,
    NO_SCALES,
    ONE_HALF,
    PROTO,
    QUANTIZED,
    RAW,
    SAME,
    SHARED,
    SPARSE,
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
    scales=st.integers(0, NO_SCALES),
)
def test_read_row_inverts_to_bytes_when_quantized(
    dims: tuple[int, ...], n_stream: int, axis: int, bits: int, scales: int
) -> None:
    row = TensorRow(
        data_type=FLOAT,
        dims=dims,
        codec=QUANTIZED,
        n_stream=n_stream,
        axis=axis,
        bits=bits,
        scales=scales,
    )
    reader = ByteReader(row.to_bytes(), "table")
    assert read_row(reader, 0) == row
    reader.finish()
    assert row.n_bytes == 4 * dims[0] * dims[1]


@pytest.mark.parametrize(
    "row",
    [
        TensorRow(data_type=TensorProto.DOUBLE, dims=(3, 0, 5), codec=RAW),
        TensorRow(data_type=TensorProto.STRING, dims=(3,), codec=PROTO, n_stream=77),
        TensorRow(data_type=TensorProto.INT8, dims=(3,), codec=SYMBOLS, n_stream=5),
        TensorRow(data_type=FLOAT, dims=(3, 0, 5), codec=HALF),
        TensorRow(data_type=FLOAT, dims=(3, 4), codec=SAME, earlier=2, is_transposed=True),
        TensorRow(
            data_type=FLOAT,
            dims=(5, 2, 7),
            codec=GRID,
            n_stream=300,
            axis=2,
            bits=3,
            scales=EACH_FLOAT,
            is_relative=True,
            block_size=4,
            n_zero_stream=9,
        ),
        TensorRow(
            data_type=FLOAT,
            dims=(5, 7),
            codec=CODEBOOK,
            n_stream=300,
            bits=8,
            scales=NO_SCALES,
            n_entries=256,
            has_half_entries=True,
        ),
        TensorRow(
            data_type=FLOAT,
            dims=(5, 7),
            codec=HASHED,
            axis=1,
            bits=8,
            is_transposed=True,
            n_entries=35,
            seed=2**32 - 1,
        ),
        TensorRow(data_type=FLOAT, dims=(99,), codec=SPARSE, n_stream=12, n_entries=3),
        TensorRow(
            data_type=FLOAT,
            dims=(5, 7),
            codec=SHARED,
            n_stream=3,
            axis=1,
            bits=4,
            scales=ONE_HALF,
            block_size=2,
            earlier=1,
            is_transposed=True,
        ),
    ],
)
def test_read_row_inverts_to_bytes(row: TensorRow) -> None:
    reader = ByteReader(row.to_bytes(), "table")
    assert read_row(reader, 3) == row
    reader.finish()


@pytest.mark.parametrize(
    ("scales", "block_size", "n_stored", "dims"),
    [
        (EACH_FLOAT, 0, 5, (5,)),
        (EACH_FLOAT, 3, 20, (5, 4)),  # 10 weights a channel: 3 + 3 + 3 + 1
        (ONE_HALF, 3, 1, (5, 4)),
        (NO_SCALES, 3, 0, (5, 4)),
    ],
)
def test_row_counts_its_scales(
    scales: int, block_size: int, n_stored: int, dims: tuple[int, ...]
) -> None:
    row = TensorRow(
        data_type=FLOAT,
        dims=(2, 5, 5),
        codec=GRID,
        axis=1,
        scales=scales,
        block_size=block_size,
    )
    assert (row.n_stored_scales, row.scale_dims) == (n_stored, dims)


def test_row_asks_for_its_values_and_for_all_of_its_scales() -> None:
    plain = TensorRow(data_type=FLOAT, dims=(6, 5), codec=RAW)
    assert plain.n_decoded_bytes == plain.n_bytes == 4 * 30
    scaled = TensorRow(data_type=FLOAT, dims=(6, 5), codec=QUANTIZED, axis=1, scales=NO_SCALES)
    assert scaled.n_decoded_bytes == 4 * 30 + 4 * 5
    empty = TensorRow(data_type=FLOAT, dims=(2**31, 0), codec=QUANTIZED, scales=NO_SCALES)
    assert empty.n_decoded_bytes == 4 * 2**31


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(bytes([11, FLOAT, 0]), id="unknown codec"),
        pytest.param(bytes([0x20, FLOAT, 0]), id="scales of a raw tensor"),
        pytest.param(bytes([0x10, FLOAT, 2, 1, 1]), id="raw transposed"),
        pytest.param(bytes([RAW, TensorProto.STRING, 0]), id="raw strings"),
        pytest.param(bytes([HALF, TensorProto.INT8, 0]), id="integers as halves"),
        pytest.param(bytes([SYMBOLS, FLOAT, 1, 3, 3]), id="floats as symbols"),
        pytest.param(bytes([SAME, FLOAT, 1, 3, 1]), id="same as itself"),
        pytest.param(bytes([SAME | 16, FLOAT, 1, 3, 0]), id="transpose of a vector"),
        pytest.param(bytes([QUANTIZED, FLOAT, 1, 3, 0x18, 1]), id="axis beyond the shape"),
        pytest.param(bytes([QUANTIZED | 0xA0, FLOAT, 1, 3, 0, 1]), id="unknown scales"),
        pytest.param(bytes([QUANTIZED | 16, FLOAT, 2, 3, 3, 0, 1]), id="transposed codes"),
        pytest.param(bytes([GRID, FLOAT, 1, 3, 0, 1, 0, 1]), id="blocks of nothing"),
        pytest.param(bytes([GRID, FLOAT, 1, 3, 0, 1, 4, 1]), id="blocks above the tensor"),
        pytest.param(bytes([GRID, FLOAT, 1, 0, 0, 1, 1, 1]), id="blocks of an empty tensor"),
        pytest.param(bytes([CODEBOOK, FLOAT, 1, 3, 0, 1, 0x81, 2]), id="257 entries"),
        pytest.param(bytes([HASHED, FLOAT, 1, 3, 0, 4, 0]), id="more values than weights"),
        pytest.param(bytes([HASHED, FLOAT, 1, 3, 0, 0, 0]), id="no hashed values"),
        pytest.param(
            bytes([HASHED, FLOAT, 1, 3, 0, 1, 0x80, 0x80, 0x80, 0x80, 0x10]), id="seed 2**32"
        ),
        pytest.param(bytes([SPARSE, FLOAT, 1, 3, 0, 1, 4]), id="more values than places"),
        pytest.param(bytes([SHARED, FLOAT, 1, 3, 0, 0, 0, 1]), id="codes of itself"),
        pytest.param(bytes([SHARED, TensorProto.INT8, 1, 3, 0, 0, 0, 0]), id="int8 with scales"),
        pytest.param(bytes([RAW, FLOAT, 4] + [0xFF, 0x7F] * 4), id="too large"),
        pytest.param(bytes([RAW, FLOAT, 5, 0] + [0xFF, 0x7F] * 4), id="too large beside a zero"),
        pytest.param(bytes([RAW, FLOAT, 33] + [1] * 33), id="too many dimensions"),
    ],
)
def test_read_row_refuses_what_contradicts_itself(data: bytes) -> None:
    with pytest.raises(InputError):
        read_row(ByteReader(data, "table"), 1)
