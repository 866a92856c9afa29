"""From table rows and byte pools to the initializers of a graph, bit for bit."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from onnx import TensorProto

from autocompress.compress.codes import Floats, GridTensor, QuantizedTensor, StoredWeight
from autocompress.errors import InputError
from autocompress.packing.byte_stream import PoolReader, Pools
from autocompress.packing.coder import decode_symbols
from autocompress.packing.shared_codes import as_weight, shape_of, with_signs
from autocompress.packing.sparse import read_sparse
from autocompress.packing.stored_codec import read_stored, take_scales
from autocompress.packing.table import (
    DTYPES,
    HALF,
    PROTO,
    RAW,
    SAME,
    SCALED,
    SHARED,
    SPARSE,
    SYMBOLS,
    TensorRow,
)


def read_tensors(rows: Sequence[TensorRow], pools: Pools) -> list[bytes]:
    """Decoded bytes of every tensor: values, or a serialised TensorProto (PROTO).

    Args:
        rows: The table.
        pools: What `TensorWriter` filled.

    Raises:
        InputError: If rows and pools do not match.
    """
    return [content for _, content in read_stored_tensors(rows, pools)]


def read_stored_tensors(
    rows: Sequence[TensorRow], pools: Pools
) -> Iterator[tuple[StoredWeight | None, bytes]]:
    """What every tensor is stored as (None for plain values), and its decoded bytes, row by row.

    Raises:
        InputError: As `read_tensors`.
    """
    reader = PoolReader(pools)
    lenders = {row.earlier for row in rows if row.codec == SHARED}
    lent: dict[int, StoredWeight | bytes] = {}
    contents: list[bytes] = []
    codebook: Floats | None = None
    for i, row in enumerate(rows):
        weight = None
        if row.codec == SHARED:
            weight = _borrow(row, rows, lent, reader)
        elif row.codec in SCALED:
            weight = read_stored(row, reader, codebook)
            codebook = getattr(weight, "codebook", codebook)
        if row.codec == SAME:
            content = _same(row, rows, contents)
        elif weight is None:
            content = _plain(row, reader)
        else:
            content = _values_of(weight, row)
        if i in lenders and row.codec != SHARED:
            lent[i] = content if weight is None else weight
        contents.append(content)
        yield weight, content
    reader.finish()


def to_proto(row: TensorRow, name: str, content: bytes) -> TensorProto:
    """One initializer from its row, its name and its decoded bytes."""
    tensor = TensorProto()
    if row.codec == PROTO:
        tensor.ParseFromString(content)
        if (tensor.data_type, tuple(tensor.dims)) != (row.data_type, row.dims):
            raise InputError(f"tensor {name!r} must be of the type and shape that the table says")
    else:
        tensor.data_type, tensor.raw_data = row.data_type, content
        tensor.dims.extend(row.dims)
    tensor.name = name
    return tensor


def _plain(row: TensorRow, pools: PoolReader) -> bytes:
    if row.codec in (RAW, PROTO):
        return bytes(pools.raw.take(row.n_bytes))
    if row.codec == HALF:
        return pools.floats(row.n_values, is_half=True).tobytes()
    if row.codec == SPARSE:
        return read_sparse(row, pools).tobytes()
    stream = pools.symbols.take(row.n_stream)
    return decode_symbols(stream, row.n_values, DTYPES[row.data_type]).tobytes()


def _values_of(weight: StoredWeight, row: TensorRow) -> bytes:
    if row.data_type == TensorProto.INT8:
        assert isinstance(weight, QuantizedTensor)  # as `_borrow` returns it
        return weight.codes.tobytes()
    with np.errstate(over="ignore", invalid="ignore"):  # damaged scales; the digest decides
        return weight.dequantize().astype("<f4").tobytes()


def _same(row: TensorRow, rows: Sequence[TensorRow], contents: Sequence[bytes]) -> bytes:
    earlier = rows[row.earlier]
    is_turned = row.is_transposed and earlier.dims != row.dims[::-1]
    if is_turned or (earlier.data_type, earlier.n_bytes) != (row.data_type, row.n_bytes):
        raise InputError(f"a tensor cannot have the values of tensor {row.earlier}")
    if not row.is_transposed:
        return contents[row.earlier]
    values = np.frombuffer(contents[row.earlier], DTYPES[row.data_type])
    return values.reshape(earlier.dims).T.tobytes()


def _borrow(
    row: TensorRow,
    rows: Sequence[TensorRow],
    lent: Mapping[int, StoredWeight | bytes],
    pools: PoolReader,
) -> StoredWeight:
    """Codes of an earlier row, transposed, with signs flipped and with scales of their own."""
    weight = _lender(row, rows[row.earlier], lent.get(row.earlier))
    if row.is_transposed:
        weight = weight.transposed()
    block_size = weight.block_size if isinstance(weight, GridTensor) else 0
    if (shape_of(weight), weight.axis, block_size) != (row.dims, row.axis, row.block_size):
        raise InputError(f"a tensor cannot have the codes of tensor {row.earlier}")
    if row.n_stream:
        if not isinstance(weight, QuantizedTensor):
            raise InputError("only integer codes can change their signs")
        stream = pools.symbols.take(row.n_stream)
        flips = decode_symbols(stream, row.dims[row.axis], np.int8)
        if not {*np.unique(flips)} <= {0, 1}:
            raise InputError("flipped signs must be 0 or 1")
        weight = with_signs(weight, (1 - 2 * flips).astype(np.int8))
    if row.data_type == TensorProto.INT8 and not isinstance(weight, QuantizedTensor):
        raise InputError(f"an int8 tensor cannot have the codes of tensor {row.earlier}")
    return dataclasses.replace(weight, scale=take_scales(row, pools), bits=row.bits)


def _lender(row: TensorRow, earlier: TensorRow, found: StoredWeight | bytes | None) -> StoredWeight:
    """What an earlier row has to lend: codes of a stored weight, or of an int8 tensor."""
    n_dims = len(earlier.dims)
    axis = 1 - row.axis if row.is_transposed else row.axis
    if isinstance(found, bytes) and earlier.codec == SYMBOLS and 0 <= axis < n_dims:
        if earlier.data_type == TensorProto.INT8:
            return as_weight(np.frombuffer(found, np.int8).reshape(earlier.dims), axis)
    elif (
        found is not None
        and not isinstance(found, bytes)
        and (n_dims == 2 or not row.is_transposed)
    ):
        return found
    raise InputError(f"tensor {row.earlier} has no codes that another could have")
