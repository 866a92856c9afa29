"""From table rows and byte pools to the initializers of a graph, bit for bit."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from autocompress.compress.codes import QuantizedTensor
from autocompress.errors import InputError
from autocompress.packing.byte_stream import ByteReader
from autocompress.packing.coder import decode_symbols
from autocompress.packing.table import DTYPES, HALF, PROTO, QUANTIZED, RAW, SAME, Pools, TensorRow


class TensorReader:
    """Turns rows and pools back into values.

    Args:
        rows: The table.
        pools: What `TensorWriter` filled.
    """

    def __init__(self, rows: Sequence[TensorRow], pools: Pools) -> None:
        self._rows = rows
        self._symbols = ByteReader(pools.symbols, "symbol pool")
        self._scale_halves = ByteReader(pools.scale_halves, "pool of half scales")
        self._scale_floats = ByteReader(pools.scale_floats, "pool of scales")
        self._halves = ByteReader(pools.halves, "pool of half floats")
        self._raw = ByteReader(pools.raw, "pool of raw values")

    def read_all(self) -> list[bytes]:
        """Decoded bytes of every tensor: values, or a serialised TensorProto (PROTO).

        Raises:
            InputError: If rows and pools do not match.
        """
        contents: list[bytes] = []
        for row in self._rows:
            contents.append(self._same(row, contents) if row.codec == SAME else self._content(row))
        for pool in (
            self._symbols,
            self._scale_halves,
            self._scale_floats,
            self._halves,
            self._raw,
        ):
            pool.finish()
        return contents

    def _same(self, row: TensorRow, contents: Sequence[bytes]) -> bytes:
        earlier = self._rows[row.n_stream]
        if (earlier.data_type, earlier.n_bytes) != (row.data_type, row.n_bytes):
            raise InputError(f"a tensor cannot have the values of tensor {row.n_stream}")
        return contents[row.n_stream]

    def _content(self, row: TensorRow) -> bytes:
        if row.codec in (RAW, PROTO):
            return bytes(self._raw.take(row.n_bytes))
        if row.codec == HALF:
            halves = np.frombuffer(self._halves.take(2 * row.n_values), dtype="<f2")
            return halves.astype("<f4").tobytes()
        dtype = "i1" if row.codec == QUANTIZED else DTYPES[row.data_type]
        symbols = decode_symbols(self._symbols.take(row.n_stream), row.n_values, dtype)
        return self._dequantize(row, symbols) if row.codec == QUANTIZED else symbols.tobytes()

    def _dequantize(self, row: TensorRow, symbols: NDArray[Any]) -> bytes:
        n_scales = row.code_dims[row.axis]
        if row.has_half_scales:
            halves = np.frombuffer(self._scale_halves.take(2 * n_scales), dtype="<f2")
            scale = halves.astype("<f4")
        else:
            scale = np.frombuffer(self._scale_floats.take(4 * n_scales), dtype="<f4")
        tensor = QuantizedTensor(
            codes=symbols.reshape(row.code_dims), scale=scale, axis=row.axis, bits=row.bits
        )
        with np.errstate(over="ignore", invalid="ignore"):  # damaged scales; the digest decides
            values = tensor.dequantize()
        return (values.T if row.is_transposed else values).astype("<f4").tobytes()


def to_proto(row: TensorRow, name: str, content: bytes) -> TensorProto:
    """One initializer from its row, its name and its decoded bytes."""
    tensor = TensorProto()
    if row.codec == PROTO:
        tensor.ParseFromString(content)
    else:
        tensor.data_type, tensor.raw_data = row.data_type, content
        tensor.dims.extend(row.dims)
    tensor.name = name
    return tensor
