"""From the initializers of a graph to table rows and byte pools.

Values of one kind lie together in a pool over all tensors, so that what little structure scales and
biases have (signs, exponents) is coded once and not once per tensor.
"""

import dataclasses
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from autocompress.compress.codes import QuantizedTensor
from autocompress.errors import InputError
from autocompress.packing.coder import encode_symbols
from autocompress.packing.table import (
    DTYPES,
    HALF,
    INTEGER_KINDS,
    PROTO,
    QUANTIZED,
    RAW,
    SAME,
    SYMBOLS,
    Pools,
    TensorRow,
)

_MIN_SYMBOLS = 16  # below, a stream's own header outweighs its gain


class TensorWriter:
    """Turns initializers into rows, and their values into pools."""

    def __init__(self) -> None:
        self.pools = Pools()
        self.rows: list[TensorRow] = []
        self._known: dict[tuple[int, bytes], int] = {}

    def add(self, tensor: TensorProto, quantized: QuantizedTensor | None) -> bytes:
        """Append one tensor, stored by the first codec that fits.

        Returns:
            The bytes that decoding must give back.

        Raises:
            InputError: If the tensor is damaged, or `quantized` does not stand for it bit for bit.
        """
        row = TensorRow(data_type=tensor.data_type, dims=tuple(tensor.dims), codec=RAW)
        values = None if tensor.data_type not in DTYPES else _values(tensor)
        content = _message(tensor) if values is None else values.tobytes()
        is_transposed = quantized is not None and _is_transposed(quantized, tensor, content)
        earlier = self._known.setdefault((tensor.data_type, content), len(self.rows))
        if values is None:
            self.pools.raw += content
            row = dataclasses.replace(row, codec=PROTO, n_stream=len(content))
        elif earlier < len(self.rows) and content:
            row = dataclasses.replace(row, codec=SAME, n_stream=earlier)
        elif quantized is not None:
            row = self._store_quantized(
                dataclasses.replace(row, is_transposed=is_transposed), quantized
            )
        else:
            row = self._store_plain(row, values)
        self.rows.append(row)
        return content

    def _store_plain(self, row: TensorRow, values: NDArray[Any]) -> TensorRow:
        if values.dtype.kind in INTEGER_KINDS and values.size > _MIN_SYMBOLS:
            stream = _try_encode(values)
            if len(stream) < values.nbytes:
                self.pools.symbols += stream
                return dataclasses.replace(row, codec=SYMBOLS, n_stream=len(stream))
        halves = _as_halves(values) if row.data_type == TensorProto.FLOAT else None
        if halves is not None:
            self.pools.halves += halves
            return dataclasses.replace(row, codec=HALF)
        self.pools.raw += values.tobytes()
        return row

    def _store_quantized(self, row: TensorRow, quantized: QuantizedTensor) -> TensorRow:
        stream = encode_symbols(quantized.codes)
        self.pools.symbols += stream
        halves = _as_halves(quantized.scale)
        if halves is None:
            self.pools.scale_floats += quantized.scale.astype("<f4").tobytes()
        else:
            self.pools.scale_halves += halves
        return dataclasses.replace(
            row,
            codec=QUANTIZED,
            n_stream=len(stream),
            axis=quantized.axis,
            bits=quantized.bits,
            has_half_scales=halves is not None,
        )


def _message(tensor: TensorProto) -> bytes:
    message = TensorProto()
    message.CopyFrom(tensor)
    for field in ("name", "doc_string", "metadata_props"):
        message.ClearField(field)
    return bytes(message.SerializeToString(deterministic=True))


def _try_encode(values: NDArray[Any]) -> bytes:
    low, high = int(values.min()), int(values.max())
    is_codable = high < 1 << 63 and high - low < 1 << 63
    return encode_symbols(values) if is_codable else values.tobytes()


def _values(tensor: TensorProto) -> NDArray[Any]:
    try:
        array = onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"Initializer {tensor.name!r} must hold as many values as its shape says, but: {error}."
        ) from error
    return np.ascontiguousarray(array, dtype=DTYPES[tensor.data_type]).reshape(array.shape)


def _as_halves(values: NDArray[np.float32]) -> bytes | None:
    """Float16 bytes if these hold every value bit for bit, else None."""
    with np.errstate(over="ignore", invalid="ignore"):  # too large or NaN: the comparison decides
        halves = values.astype("<f2")
        back = halves.astype("<f4")
    return halves.tobytes() if back.tobytes() == values.astype("<f4").tobytes() else None


def _is_transposed(quantized: QuantizedTensor, tensor: TensorProto, content: bytes) -> bool:
    """Whether the tensor is the transpose of what `quantized` stands for, not that itself."""
    codes, axis, name = quantized.codes, quantized.axis, tensor.name
    if not 0 <= axis < min(codes.ndim, 16) or quantized.scale.shape != (codes.shape[axis],):
        raise InputError(
            f"Scales of {name!r} must run along a dimension of its codes {codes.shape}, "
            f"but have shape {quantized.scale.shape} along axis {axis}."
        )
    if not 1 <= quantized.bits <= 8:
        raise InputError(f"Codes of {name!r} must have 1 to 8 bits, but have {quantized.bits}.")
    dims, values = tuple(tensor.dims), quantized.dequantize().astype("<f4")
    if tensor.data_type == TensorProto.FLOAT:
        if values.shape == dims and values.tobytes() == content:
            return False
        if values.ndim == 2 and values.T.shape == dims and values.T.tobytes() == content:
            return True
    raise InputError(
        f"`codes * scale` of {name!r}, shape {codes.shape}, must equal its float32 initializer, "
        f"shape {dims}, or its transpose bit for bit, but does not.",
        "Export the graph from the dequantized weights themselves.",
    )
