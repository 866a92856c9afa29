"""Bytes in and out: unsigned varints, and a reader that never runs past the end."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from autocompress.errors import InputError

_VARINT_MAX_BYTES = 10  # 64 bits at 7 bits a byte


def varint(value: int) -> bytes:
    """Encode an unsigned integer below 2**64: seven bits a byte, low ones first (LEB128).

    >>> varint(300).hex()
    'ac02'
    """
    if not 0 <= value < 1 << 64:
        msg = f"`value` must lie in [0, 2**64), but got {value}."
        raise ValueError(msg)
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def signed_varint(value: int) -> bytes:
    """Encode a signed 64-bit integer; 0, -1, 1, -2, 2 … are written as 0, 1, 2, 3, 4 …

    >>> signed_varint(-8).hex()
    '0f'
    """
    return varint(value << 1 if value >= 0 else (-value << 1) - 1)


class ByteReader:
    """Reads from the front of a byte string; every read is checked against what is left.

    Args:
        data: What to read.
        what: Name of the part, for messages.
    """

    def __init__(self, data: bytes | bytearray | memoryview, what: str) -> None:
        self._data = memoryview(data)
        self._at = 0
        self._what = what

    @property
    def n_left(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self._at

    @property
    def position(self) -> int:
        """Bytes read so far."""
        return self._at

    def take(self, n_bytes: int) -> memoryview:
        """The next `n_bytes` bytes, not copied.

        Raises:
            InputError: If fewer are left.
        """
        if n_bytes > self.n_left:
            raise InputError(
                f"the {self._what} must hold {n_bytes} more bytes at offset {self._at}, "
                f"but only {self.n_left} are left"
            )
        part = self._data[self._at : self._at + n_bytes]
        self._at += n_bytes
        return part

    def byte(self) -> int:
        """The next byte as an unsigned integer.

        Raises:
            InputError: If none is left.
        """
        return self.take(1)[0]

    def varint(self) -> int:
        """Inverse of `varint`.

        Raises:
            InputError: If the number is cut off, too long, or not written in its shortest form.
        """
        value = 0
        for i in range(_VARINT_MAX_BYTES):
            byte = self.byte()
            value |= (byte & 0x7F) << (7 * i)
            if byte < 0x80:
                if (byte == 0 and i > 0) or value >= 1 << 64:
                    break
                return value
        raise InputError(
            f"the {self._what} must hold a valid varint, but has none before offset {self._at}"
        )

    def signed_varint(self) -> int:
        """Inverse of `signed_varint`.

        Raises:
            InputError: As `varint`.
        """
        value = self.varint()
        return -((value + 1) >> 1) if value & 1 else value >> 1

    def finish(self) -> None:
        """Check that everything was read.

        Raises:
            InputError: If bytes are left.
        """
        if self.n_left:
            raise InputError(
                f"the {self._what} must end at offset {self._at}, but {self.n_left} bytes follow"
            )


@dataclasses.dataclass(slots=True, kw_only=True)
class Pools:
    """Bytes of all tensors by kind.

    Attributes:
        symbols: Streams of coded integers.
        zero_points: Streams of coded zero points.
        scale_halves: Float16 scales, and entries of codebooks.
        scale_floats: Float32 scales, and entries of codebooks.
        halves: Values of float32 tensors that float16 holds exactly.
        raw: Values and messages as they are.
    """

    symbols: bytearray = dataclasses.field(default_factory=bytearray)
    zero_points: bytearray = dataclasses.field(default_factory=bytearray)
    scale_halves: bytearray = dataclasses.field(default_factory=bytearray)
    scale_floats: bytearray = dataclasses.field(default_factory=bytearray)
    halves: bytearray = dataclasses.field(default_factory=bytearray)
    raw: bytearray = dataclasses.field(default_factory=bytearray)


class PoolReader:
    """Takes values from the front of each pool.

    Args:
        pools: What was read from a file.
    """

    def __init__(self, pools: Pools) -> None:
        self.symbols = ByteReader(pools.symbols, "symbol pool")
        self.zero_points = ByteReader(pools.zero_points, "pool of zero points")
        self.raw = ByteReader(pools.raw, "pool of raw values")
        self._scale_halves = ByteReader(pools.scale_halves, "pool of half scales")
        self._scale_floats = ByteReader(pools.scale_floats, "pool of scales")
        self._halves = ByteReader(pools.halves, "pool of half floats")

    def scales(self, n_values: int, *, is_half: bool) -> NDArray[np.float32]:
        """The next scales, or entries of a codebook.

        Raises:
            InputError: If fewer are left.
        """
        if is_half:
            return _from_halves(self._scale_halves.take(2 * n_values))
        return np.frombuffer(self._scale_floats.take(4 * n_values), dtype="<f4")

    def floats(self, n_values: int, *, is_half: bool) -> NDArray[np.float32]:
        """The next values of a float32 tensor.

        Raises:
            InputError: If fewer are left.
        """
        if is_half:
            return _from_halves(self._halves.take(2 * n_values))
        return np.frombuffer(self.raw.take(4 * n_values), dtype="<f4")

    def finish(self) -> None:
        """Check that everything was read.

        Raises:
            InputError: If bytes are left.
        """
        pools = (self.symbols, self.zero_points, self._scale_halves, self._scale_floats)
        for pool in (*pools, self._halves, self.raw):
            pool.finish()


def to_halves(values: NDArray[np.float32]) -> bytes | None:
    """Float16 bytes if these hold every value bit for bit, else None."""
    with np.errstate(over="ignore", invalid="ignore"):  # too large or NaN: the comparison decides
        halves = values.astype("<f2")
        back = halves.astype("<f4")
    return halves.tobytes() if back.tobytes() == values.astype("<f4").tobytes() else None


def _from_halves(data: memoryview) -> NDArray[np.float32]:
    return np.frombuffer(data, dtype="<f2").astype("<f4")
