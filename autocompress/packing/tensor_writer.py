"""From the initializers of a graph to table rows and byte pools."""

import dataclasses
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from autocompress.compress.codes import Floats, StoredWeight
from autocompress.errors import InputError
from autocompress.packing.coder import encode_symbols
from autocompress.packing.pools import Pools, to_halves
from autocompress.packing.shared_codes import KnownCodes, Occurrence, as_weight
from autocompress.packing.sparse import write_sparse
from autocompress.packing.stored_check import in_layout_of
from autocompress.packing.stored_codec import put_scales, write_stored
from autocompress.packing.table import (
    DTYPES,
    HALF,
    INTEGER_KINDS,
    NO_SCALES,
    PROTO,
    RAW,
    SAME,
    SHARED,
    SYMBOLS,
    TensorRow,
)

_MIN_SYMBOLS = 16  # below, a stream's own header outweighs its gain


class TensorWriter:
    """Turns initializers into rows, and their values into pools."""

    def __init__(self) -> None:
        self.pools = Pools()
        self.rows: list[TensorRow] = []
        self._known: dict[tuple[int, bytes], int] = {}
        self._codes = KnownCodes()
        self._codebook: Floats | None = None

    def add(self, tensor: TensorProto, quantized: StoredWeight | None) -> bytes:
        """Append one tensor, stored by the first codec that fits.

        Returns:
            The bytes that decoding must give back.

        Raises:
            InputError: If the tensor is damaged, or `quantized` does not stand for it bit for bit.
        """
        row = TensorRow(data_type=tensor.data_type, dims=tuple(tensor.dims), codec=RAW)
        values = None if tensor.data_type not in DTYPES else _values(tensor)
        content = _message(tensor) if values is None else values.tobytes()
        stored = None if quantized is None else in_layout_of(quantized, tensor, content)
        if values is None:
            self.pools.raw += content
            row = dataclasses.replace(row, codec=PROTO, n_stream=len(content))
        else:
            row = self._same(row, values) or (
                self._store_plain(row, values) if stored is None else self._store(row, stored)
            )
            self._known.setdefault((tensor.data_type, content), len(self.rows))
        self.rows.append(row)
        return content

    def _same(self, row: TensorRow, values: NDArray[Any]) -> TensorRow | None:
        """The row of values that occurred before, as they are or transposed."""
        if values.size == 0:
            return None
        earlier = self._known.get((row.data_type, values.tobytes()))
        if earlier is not None:
            return dataclasses.replace(row, codec=SAME, earlier=earlier)
        if len(row.dims) == 2 and 1 not in row.dims:
            earlier = self._known.get((row.data_type, values.T.tobytes()))
            if earlier is not None and self.rows[earlier].dims == row.dims[::-1]:
                return dataclasses.replace(row, codec=SAME, earlier=earlier, is_transposed=True)
        return None

    def _store_plain(self, row: TensorRow, values: NDArray[Any]) -> TensorRow:
        if row.data_type == TensorProto.INT8:
            return self._store_int8(row, values)
        if values.dtype.kind in INTEGER_KINDS:
            return self._store_integers(row, values)
        halves = None
        if row.data_type == TensorProto.FLOAT and values.size > 0:
            sparse = write_sparse(values, self.pools)
            if sparse is not None:
                return dataclasses.replace(row, **sparse)
        if row.data_type == TensorProto.FLOAT:
            halves = to_halves(values)
        if halves is not None:
            self.pools.halves += halves
            return dataclasses.replace(row, codec=HALF)
        self.pools.raw += values.tobytes()
        return row

    def _store_integers(self, row: TensorRow, values: NDArray[Any]) -> TensorRow:
        stream = _try_encode(values) if values.size > _MIN_SYMBOLS else b""
        if 0 < len(stream) < values.nbytes:
            self.pools.symbols += stream
            return dataclasses.replace(row, codec=SYMBOLS, n_stream=len(stream))
        self.pools.raw += values.tobytes()
        return row

    def _store_int8(self, row: TensorRow, values: NDArray[np.int8]) -> TensorRow:
        """Codes of integer layers: channels run along one of the first two dimensions."""
        if values.size <= _MIN_SYMBOLS:
            return self._store_integers(row, values)
        layouts = [as_weight(values, axis) for axis in range(min(2, values.ndim))]
        for weight in layouts:
            occurrence = self._codes.find(weight)
            if occurrence is not None:
                row = dataclasses.replace(row, axis=weight.axis, bits=8, scales=NO_SCALES)
                return self._store_shared(row, occurrence)
        row = self._store_integers(row, values)
        for weight in layouts if row.codec == SYMBOLS else ():
            self._codes.add(weight, len(self.rows))
        return row

    def _store(self, row: TensorRow, weight: StoredWeight) -> TensorRow:
        occurrence = self._codes.find(weight) if row.n_values > _MIN_SYMBOLS else None
        if occurrence is None:
            self._codes.add(weight, len(self.rows))
            row = dataclasses.replace(row, **write_stored(weight, self.pools, self._codebook))
            self._codebook = getattr(weight, "codebook", self._codebook)
            return row
        shared = self._store_shared(
            dataclasses.replace(row, axis=weight.axis, bits=weight.bits), occurrence
        )
        return dataclasses.replace(
            shared,
            scales=put_scales(weight.scale, self.pools),
            block_size=getattr(weight, "block_size", 0),
        )

    def _store_shared(self, row: TensorRow, occurrence: Occurrence) -> TensorRow:
        flips = b""
        if (occurrence.signs < 0).any():
            flips = encode_symbols((occurrence.signs < 0).astype(np.int8))
            self.pools.symbols += flips
        return dataclasses.replace(
            row,
            codec=SHARED,
            n_stream=len(flips),
            earlier=occurrence.row,
            is_transposed=occurrence.is_transposed,
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
