"""Integers to bytes and back, by the shortest of three codes: constant, fixed length, adaptive."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from autocompress.errors import InputError
from autocompress.packing.adaptive import MAX_LETTERS, decode_adaptive, encode_adaptive
from autocompress.packing.byte_stream import ByteReader, signed_varint, varint

Integers = NDArray[np.integer[Any]]
CONSTANT: Final = 0


FIXED_LENGTH: Final = 1


ADAPTIVE: Final = 2


def encode_symbols(symbols: Integers) -> bytes:
    """Encode integers, shape and dtype not included; the smallest of the codes is taken.

    Args:
        symbols: Any shape, read in C order, any integer dtype.

    Returns:
        A byte with the code's id, then its data; nothing at all for no symbols.

    Raises:
        ValueError: If the symbols span 2**63 or more, or one is not below it.
    """
    flat = symbols.reshape(-1)
    if flat.size == 0:
        return b""
    low, high = int(flat.min()), int(flat.max())
    if high >= 1 << 63 or high - low >= 1 << 63:
        msg = f"`symbols` must be below and span less than 2**63, but range over [{low}, {high}]."
        raise ValueError(msg)
    if low == high:
        return bytes([CONSTANT]) + signed_varint(low)
    offsets = flat.astype(np.int64) - low
    n_letters = high - low + 1
    width = (n_letters - 1).bit_length()
    head = bytes([FIXED_LENGTH]) + signed_varint(low) + bytes([width])
    n_fixed = len(head) + (flat.size * width + 7) // 8
    if n_letters <= MAX_LETTERS:
        adaptive = bytes([ADAPTIVE]) + signed_varint(low) + varint(n_letters)
        adaptive += encode_adaptive(offsets.astype(np.int32), low, n_letters)
        if len(adaptive) < n_fixed:
            return adaptive
    return head + _pack_fixed(offsets, width)


def decode_symbols(data: bytes | memoryview, n_symbols: int, dtype: Any = np.int64) -> Integers:
    """Inverse of `encode_symbols`.

    Args:
        data: What `encode_symbols` returned.
        n_symbols: Number of symbols; the caller bounds it.
        dtype: Integer dtype of the result.

    Returns:
        Shape (N,).

    Raises:
        InputError: If `data` is not a valid code of `n_symbols` symbols of this dtype.
    """
    reader = ByteReader(data, "symbol stream")
    out: Integers = np.empty(n_symbols, dtype=dtype)
    if n_symbols == 0:
        reader.finish()
        return out
    code, low = reader.byte(), reader.signed_varint()
    if code == CONSTANT:
        _check_fits(low, low, out.dtype)
        out[:] = low
    elif code == FIXED_LENGTH:
        _unpack_fixed(reader, low, out)
    elif code == ADAPTIVE:
        _decode_adaptive(reader, low, out)
    else:
        raise InputError(f"the code of a symbol stream must be 0, 1 or 2, but is {code}")
    reader.finish()
    return out


def _check_fits(low: int, high: int, dtype: np.dtype[Any]) -> None:
    limits = np.iinfo(dtype)
    if low < limits.min or high > limits.max:
        raise InputError(f"symbols of a {dtype} tensor range over [{low}, {high}]")


def _pack_fixed(offsets: NDArray[np.int64], width: int) -> bytes:
    bits = np.empty((offsets.size, width), dtype=np.uint8)
    for position in range(width):
        bits[:, position] = offsets >> position & 1
    return np.packbits(bits, bitorder="little").tobytes()


def _unpack_fixed(reader: ByteReader, low: int, out: Integers) -> None:
    width = reader.byte()
    if not 1 <= width <= 63:
        raise InputError(f"the width of a symbol must be in [1, 63] bits, but is {width}")
    packed = np.frombuffer(reader.take((out.size * width + 7) // 8), dtype=np.uint8)
    bits = np.unpackbits(packed, count=out.size * width, bitorder="little").reshape(-1, width)
    offsets = np.zeros(out.size, dtype=np.int64)
    for position in range(width):
        offsets |= bits[:, position].astype(np.int64) << position
    _check_fits(low, low + int(offsets.max()), out.dtype)
    out[:] = low + offsets


def _decode_adaptive(reader: ByteReader, low: int, out: Integers) -> None:
    n_letters = reader.varint()
    if not 2 <= n_letters <= MAX_LETTERS:
        raise InputError(f"an alphabet must have 2 to {MAX_LETTERS} letters, but has {n_letters}")
    _check_fits(low, low + n_letters - 1, out.dtype)
    for block, offsets in decode_adaptive(reader, low, n_letters, out.size):
        out[block] = offsets.astype(np.int64) + low
