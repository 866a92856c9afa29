"""Values of all tensors by kind: filled while a file is written, drained while one is read.

Values of one kind lie together over all tensors, so that what little structure scales and biases
have (signs, exponents) is coded once and not once per tensor.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from autocompress.packing.byte_stream import ByteReader


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
