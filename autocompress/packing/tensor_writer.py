"""From the initializers of a graph to table rows and byte pools."""

import dataclasses
import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from autocompress.compress.codes import (
    CodebookTensor,
    Floats,
    GridTensor,
    HashedTensor,
    StoredWeight,
)
from autocompress.errors import InputError
from autocompress.packing.byte_stream import Pools, to_halves
from autocompress.packing.coder import encode_symbols
from autocompress.packing.shared_codes import KnownCodes, Occurrence, as_weight
from autocompress.packing.sparse import write_sparse
from autocompress.packing.stored_codec import put_scales, write_stored
from autocompress.packing.table import (
    DTYPES,
    HALF,
    INTEGER_KINDS,
    MAX_ENTRIES,
    NO_SCALES,
    PROTO,
    RAW,
    SAME,
    SHARED,
    SYMBOLS,
    TensorRow,
)

_MAX_AXIS = 16  # four bits of a row
_MAX_SEED = 1 << 32


def in_layout_of(weight: StoredWeight, tensor: TensorProto, content: bytes) -> StoredWeight:
    """The weight, or its transpose, whichever `tensor` holds bit for bit.

    Args:
        weight: What the initializer is stored as.
        tensor: The initializer.
        content: Its values, little-endian.

    Raises:
        InputError: If it holds neither, or the weight contradicts itself.
    """
    check_stored(weight, tensor.name)
    values = weight.dequantize().astype("<f4")
    if tensor.data_type == TensorProto.FLOAT:
        dims = tuple(tensor.dims)
        if values.shape == dims and values.tobytes() == content:
            return weight
        if values.ndim == 2 and values.T.shape == dims and values.T.tobytes() == content:
            return weight.transposed()
    raise InputError(
        f"What is stored of {tensor.name!r}, shape {values.shape}, must equal its float32 "
        f"initializer, shape {tuple(tensor.dims)}, or its transpose bit for bit, but does not.",
        "Export the graph from the dequantized weights themselves.",
    )


def check_stored(weight: StoredWeight, name: str) -> None:
    """Check what the format takes for granted.

    Raises:
        InputError: If shapes, bits, entries or the seed are impossible.
    """
    shape = weight.shape if isinstance(weight, HashedTensor) else weight.codes.shape
    if not 0 <= weight.axis < min(len(shape), _MAX_AXIS):
        raise InputError(
            f"Scales of {name!r} must run along a dimension of its shape {shape}, but run along "
            f"axis {weight.axis}."
        )
    n_channels, n_weights = shape[weight.axis], math.prod(shape)
    scale_shape: tuple[int, ...] = (n_channels,)
    if isinstance(weight, GridTensor):
        if not 1 <= weight.block_size <= n_weights:
            raise InputError(
                f"Blocks of {name!r} must have 1 to {n_weights} weights, but have "
                f"{weight.block_size}."
            )
        scale_shape = (n_channels, -(-(n_weights // n_channels) // weight.block_size))
        if weight.zero_point.shape != scale_shape:
            raise InputError(
                f"Zero points of {name!r} must have shape {scale_shape}, but have shape "
                f"{weight.zero_point.shape}."
            )
    if weight.scale.shape != scale_shape:
        raise InputError(
            f"Scales of {name!r}, shape {shape}, must have shape {scale_shape} along axis "
            f"{weight.axis}, but have shape {weight.scale.shape}."
        )
    if not 1 <= weight.bits <= 8:
        raise InputError(f"Codes of {name!r} must have 1 to 8 bits, but have {weight.bits}.")
    if isinstance(weight, CodebookTensor):
        _check_codebook(weight, name)
    if isinstance(weight, HashedTensor):
        _check_hashed(weight, n_weights, name)


def _check_codebook(weight: CodebookTensor, name: str) -> None:
    n_entries = len(weight.codebook)
    if not 1 <= n_entries <= MAX_ENTRIES:
        raise InputError(
            f"The codebook of {name!r} must have 1 to {MAX_ENTRIES} entries, but has {n_entries}."
        )
    largest = int(np.max(weight.codes, initial=0))
    if largest >= n_entries:
        raise InputError(
            f"Codes of {name!r} must be below the {n_entries} entries of its codebook, but reach "
            f"{largest}."
        )


def _check_hashed(weight: HashedTensor, n_weights: int, name: str) -> None:
    if not 1 <= len(weight.values) <= n_weights:
        raise InputError(
            f"Hashed values of {name!r} must be 1 to {n_weights}, one a weight at most, but are "
            f"{len(weight.values)}."
        )
    if not 0 <= weight.seed < _MAX_SEED:
        raise InputError(f"The seed of {name!r} must lie in [0, 2**32), but is {weight.seed}.")
    if weight.is_transposed and len(weight.shape) != 2:
        raise InputError(f"Only a matrix can be hashed transposed, but {name!r} is none.")


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
