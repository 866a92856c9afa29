from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from autocompress.compress.codes import QuantizedTensor
from autocompress.errors import InputError
from autocompress.packing.table import (
    EACH_FLOAT,
    EACH_HALF,
    HALF,
    PROTO,
    QUANTIZED,
    RAW,
    SAME,
    SYMBOLS,
)
from autocompress.packing.tensor_reader import read_tensors, to_proto
from autocompress.packing.tensor_writer import TensorWriter

RNG = np.random.default_rng(0)
MATRIX = QuantizedTensor(
    codes=RNG.integers(-4, 4, size=(3, 5)).astype(np.int8),
    scale=np.array([0.5, 0.1, 3.0], dtype=np.float32),
    axis=0,
    bits=3,
)


@pytest.mark.parametrize(
    ("array", "codec"),
    [
        pytest.param(RNG.normal(size=9).astype(np.float32), RAW, id="float32"),
        pytest.param(np.array([0.5, -0.0, 65504], dtype=np.float32), HALF, id="half"),
        pytest.param(np.array([65536], dtype=np.float32), RAW, id="too large for half"),
        pytest.param(np.array([1e-8], dtype=np.float32), RAW, id="too small for half"),
        pytest.param(RNG.integers(0, 3, size=99), SYMBOLS, id="few letters"),
        pytest.param(RNG.integers(0, 3, size=16), RAW, id="few integers"),
        pytest.param(np.array([0, 2**64 - 1] * 9, dtype=np.uint64), RAW, id="wide integers"),
        pytest.param(RNG.normal(size=99), RAW, id="float64"),
        pytest.param(np.zeros((0, 7), dtype=np.float32), HALF, id="empty"),
    ],
)
def test_add_takes_the_first_codec_that_fits(array: np.ndarray[Any, Any], codec: int) -> None:
    writer = TensorWriter()
    content = writer.add(numpy_helper.from_array(array, "x"), None)
    assert writer.rows[0].codec == codec
    assert content == array.tobytes()
    assert read_tensors(writer.rows, writer.pools) == [content]


def test_add_keeps_a_nan_with_its_payload() -> None:
    array = np.array([0x7FC00001, 0xFFC12345], dtype=np.uint32).view(np.float32)
    writer = TensorWriter()
    writer.add(numpy_helper.from_array(array, "x"), None)
    assert read_tensors(writer.rows, writer.pools) == [array.tobytes()]


def test_add_stores_equal_values_once_whatever_their_shape() -> None:
    writer = TensorWriter()
    for shape in ((6,), (2, 3)):
        writer.add(numpy_helper.from_array(np.arange(6.0).reshape(shape), "x"), None)
    writer.add(numpy_helper.from_array(np.arange(6.0).view(np.int64), "x"), None)
    assert [row.codec for row in writer.rows] == [RAW, SAME, RAW]
    contents = read_tensors(writer.rows, writer.pools)
    assert contents[0] == contents[1] == contents[2]


@pytest.mark.parametrize("is_transposed", [False, True])
@pytest.mark.parametrize("scale", [[0.5, 0.25, 2.0], [0.1, 0.2, 0.3]])
def test_add_stores_codes_instead_of_values(is_transposed: bool, scale: list[float]) -> None:
    quantized = QuantizedTensor(
        codes=MATRIX.codes, scale=np.array(scale, dtype=np.float32), axis=0, bits=3
    )
    values = quantized.dequantize().T if is_transposed else quantized.dequantize()
    writer = TensorWriter()
    content = writer.add(numpy_helper.from_array(np.ascontiguousarray(values), "x"), quantized)
    (row,) = writer.rows
    assert (row.codec, row.axis, row.bits) == (QUANTIZED, int(is_transposed), 3)
    assert row.scales == (EACH_HALF if scale[0] == 0.5 else EACH_FLOAT)
    assert read_tensors(writer.rows, writer.pools) == [content]
    assert len(writer.pools.raw) == len(writer.pools.halves) == 0


def test_add_tells_a_square_matrix_from_its_transpose() -> None:
    square = QuantizedTensor(
        codes=np.array([[1, 2], [3, 4]], dtype=np.int8),
        scale=np.array([1.0, 2.0], dtype=np.float32),
        axis=0,
        bits=4,
    )
    writer = TensorWriter()
    for values in (square.dequantize(), np.ascontiguousarray(square.dequantize().T)):
        writer.add(numpy_helper.from_array(values, "x"), square)
    assert [row.codec for row in writer.rows] == [QUANTIZED, SAME]
    assert [row.is_transposed for row in writer.rows] == [False, True]


@pytest.mark.parametrize("data_type", [TensorProto.STRING, TensorProto.BFLOAT16, TensorProto.INT4])
def test_add_keeps_a_type_numpy_does_not_know_as_a_message(data_type: int) -> None:
    values = [b"a", b"b"] if data_type == TensorProto.STRING else [1, 2]
    tensor = helper.make_tensor("odd", data_type, [2], values)
    writer = TensorWriter()
    writer.add(tensor, None)
    assert writer.rows[0].codec == PROTO
    (content,) = read_tensors(writer.rows, writer.pools)
    assert to_proto(writer.rows[0], "odd", content) == tensor


def test_add_refuses_values_that_do_not_match_the_shape() -> None:
    tensor = numpy_helper.from_array(np.arange(6.0), "x")
    tensor.dims[0] = 7
    with pytest.raises(InputError, match="'x' must hold as many values as its shape says"):
        TensorWriter().add(tensor, None)


def test_add_refuses_codes_of_a_tensor_that_is_not_float32() -> None:
    tensor = numpy_helper.from_array(MATRIX.dequantize().astype(np.float64), "x")
    with pytest.raises(InputError, match="bit for bit"):
        TensorWriter().add(tensor, MATRIX)


def test_read_all_refuses_values_of_another_length() -> None:
    writer = TensorWriter()
    writer.add(numpy_helper.from_array(np.arange(6.0), "x"), None)
    writer.pools.raw += b"\0"
    with pytest.raises(InputError, match="raw values must end at offset 48, but 1 bytes follow"):
        read_tensors(writer.rows, writer.pools)
