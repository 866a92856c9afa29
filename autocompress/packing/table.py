"""The tensor table: one row for each tensor, saying what it is and how its values are stored.

Dimension key: `C` channels along the axis of the scales, `G` blocks of a channel.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Final

import numpy as np
from onnx import TensorProto

from autocompress.errors import InputError
from autocompress.packing.byte_stream import ByteReader, varint

RAW: Final = 0  # values as they are, little-endian
PROTO: Final = 1  # a serialised TensorProto: strings and formats numpy does not know
SYMBOLS: Final = 2  # integers through the coder
HALF: Final = 3  # float32 that float16 holds exactly
QUANTIZED: Final = 4  # integers through the coder, times a scale per channel
SAME: Final = 5  # the values of an earlier tensor, or their transpose
GRID: Final = 6  # integers through the coder, with a scale and a zero point per block
CODEBOOK: Final = 7  # indices through the coder, into a codebook, times a scale per channel
HASHED: Final = 8  # values found by a hash of the position, times a scale per channel
SPARSE: Final = 9  # float32: which values are not 0 through the coder, then these
SHARED: Final = 10  # codes of an earlier tensor, with other signs and scales

EACH_HALF, EACH_FLOAT, ONE_HALF, ONE_FLOAT, NO_SCALES = range(5)  # how scales are stored

DTYPES: Final[Mapping[int, str]] = {
    TensorProto.FLOAT: "<f4",
    TensorProto.UINT8: "u1",
    TensorProto.INT8: "i1",
    TensorProto.UINT16: "<u2",
    TensorProto.INT16: "<i2",
    TensorProto.INT32: "<i4",
    TensorProto.INT64: "<i8",
    TensorProto.BOOL: "?",
    TensorProto.FLOAT16: "<f2",
    TensorProto.DOUBLE: "<f8",
    TensorProto.UINT32: "<u4",
    TensorProto.UINT64: "<u8",
}
INTEGER_KINDS = frozenset("ui")
MAX_ENTRIES: Final = 256  # of a codebook: an index is a byte
MAX_ROWS: Final = 1 << 16  # a row may take next to nothing in a file, but costs a reader memory

_NUMBERS: Final[Mapping[int, tuple[str, ...]]] = {  # what follows the head of a row, by codec
    RAW: (),
    PROTO: ("n_stream",),
    SYMBOLS: ("n_stream",),
    HALF: (),
    QUANTIZED: ("n_stream",),
    SAME: ("earlier",),
    GRID: ("n_stream", "block_size", "n_zero_stream"),
    CODEBOOK: ("n_stream", "n_entries"),
    HASHED: ("n_entries", "seed"),
    SPARSE: ("n_stream", "n_entries"),
    SHARED: ("n_stream", "block_size", "earlier"),
}
SCALED: Final = frozenset({QUANTIZED, GRID, CODEBOOK, HASHED, SHARED})
_DETAILED = SCALED | {SPARSE}  # have a byte for axis, bits and width of entries
_TRANSPOSABLE = frozenset({SAME, HASHED, SHARED})
_CODEC_MASK, _TRANSPOSED, _SCALES_SHIFT = 0x0F, 0x10, 5
_MAX_DIMS = 32
_MAX_VALUES = 1 << 31
_MAX_SEED = 1 << 32


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TensorRow:
    """What the table says about one tensor; 0 or False where it does not apply.

    Attributes:
        data_type: ONNX data type.
        dims: Shape.
        codec: One of the codecs above.
        n_stream: Bytes of its symbol stream or message; of its flipped signs (SHARED, 0 for none).
        axis: Dimension that the scales run along.
        bits: Nominal bits per weight, 1 to 8.
        is_transposed: Whether the values or codes of `earlier`, or the positions that are hashed,
            are those of the transpose.
        scales: How scales are stored: a number each or one for all, as float16 or float32, or none
            because all are 1.
        has_half_entries: Whether entries are stored as float16.
        is_relative: Whether codes are stored as distances from their zero points (GRID).
        n_entries: Entries of the codebook, 0 for that of the latest row with this codec (CODEBOOK);
            hashed values (HASHED); values other than 0 (SPARSE).
        block_size: Weights that share a scale; 0 for a whole channel (GRID, SHARED).
        n_zero_stream: Bytes of the coded zero points (GRID).
        seed: Of the hash (HASHED).
        earlier: Row whose values (SAME) or codes (SHARED) these are.
    """

    data_type: int
    dims: tuple[int, ...]
    codec: int
    n_stream: int = 0
    axis: int = 0
    bits: int = 1
    is_transposed: bool = False
    scales: int = EACH_HALF
    has_half_entries: bool = False
    is_relative: bool = False
    n_entries: int = 0
    block_size: int = 0
    n_zero_stream: int = 0
    seed: int = 0
    earlier: int = 0

    @property
    def n_values(self) -> int:
        """Number of values."""
        return math.prod(self.dims)

    @property
    def n_bytes(self) -> int:
        """Bytes of the decoded values."""
        if self.codec == PROTO:
            return self.n_stream
        return self.n_values * np.dtype(DTYPES[self.data_type]).itemsize

    @property
    def n_decoded_bytes(self) -> int:
        """Bytes that decoding asks for: values, and scales, which may be more than the values."""
        return self.n_bytes + (4 * math.prod(self.scale_dims) if self.codec in SCALED else 0)

    @property
    def scale_dims(self) -> tuple[int, ...]:
        """Shape of the scales: (C,), or (C, G) with blocks."""
        n_channels = self.dims[self.axis]
        if self.block_size == 0:
            return (n_channels,)
        return n_channels, -(-(self.n_values // n_channels) // self.block_size)

    @property
    def n_stored_scales(self) -> int:
        """Numbers that the scales take."""
        if self.codec not in SCALED or self.scales == NO_SCALES:
            return 0
        return 1 if self.scales in (ONE_HALF, ONE_FLOAT) else math.prod(self.scale_dims)

    @property
    def has_half_scales(self) -> bool:
        """Whether scales are stored as float16."""
        return self.scales in (EACH_HALF, ONE_HALF)

    def to_bytes(self) -> bytes:
        """Serialise; `read_row` is the inverse."""
        flags = self.is_transposed * _TRANSPOSED | self.scales << _SCALES_SHIFT
        out = bytes([self.codec | flags])
        out += b"".join(map(varint, (self.data_type, len(self.dims), *self.dims)))
        if self.codec in _DETAILED:
            flag = self.has_half_entries or self.is_relative
            out += bytes([self.axis << 4 | self.bits - 1 << 1 | flag])
        return out + b"".join(varint(getattr(self, name)) for name in _NUMBERS[self.codec])


def read_row(reader: ByteReader, n_rows_before: int) -> TensorRow:
    """Read one row of the table.

    Raises:
        InputError: If it contradicts itself or the limits.
    """
    flags = reader.byte()
    codec, data_type, n_dims = flags & _CODEC_MASK, reader.varint(), reader.varint()
    if n_dims > _MAX_DIMS:
        raise InputError(f"a tensor must have at most {_MAX_DIMS} dimensions, but has {n_dims}")
    dims = tuple(reader.varint() for _ in range(n_dims))
    details = reader.byte() if codec in _DETAILED else 0
    row = TensorRow(
        data_type=data_type,
        dims=dims,
        codec=codec,
        axis=details >> 4,
        bits=(details >> 1 & 7) + 1,
        is_transposed=bool(flags & _TRANSPOSED),
        scales=flags >> _SCALES_SHIFT,
        has_half_entries=bool(details & 1) and codec != GRID,
        is_relative=bool(details & 1) and codec == GRID,
        **{name: reader.varint() for name in _NUMBERS.get(codec, ())},
    )
    if not _is_small(row) or not _is_sound(row, n_rows_before):
        raise InputError(
            f"tensor {n_rows_before} has an impossible description: codec byte {flags}, data type "
            f"{row.data_type}, shape {list(row.dims)}"
        )
    return row


def _is_small(row: TensorRow) -> bool:
    return math.prod(max(1, dim) for dim in row.dims) <= _MAX_VALUES


def _is_sound(row: TensorRow, n_rows_before: int) -> bool:
    """Whether a row agrees with itself and with the number of rows before it."""
    is_float = row.data_type == TensorProto.FLOAT
    kind = np.dtype(DTYPES.get(row.data_type, "V")).kind
    if row.is_transposed and (row.codec not in _TRANSPOSABLE or len(row.dims) != 2):
        return False
    if row.codec not in SCALED and row.scales != EACH_HALF:
        return False
    if row.codec in SCALED and (row.axis >= len(row.dims) or row.scales > NO_SCALES):
        return False
    if row.block_size and row.n_values == 0:
        return False
    return {
        RAW: kind != "V",
        PROTO: True,
        SYMBOLS: kind in INTEGER_KINDS,
        HALF: is_float,
        QUANTIZED: is_float,
        SAME: kind != "V" and row.earlier < n_rows_before,
        GRID: is_float and 1 <= row.block_size <= row.n_values,
        CODEBOOK: is_float and row.n_entries <= MAX_ENTRIES,
        HASHED: is_float and 1 <= row.n_entries <= row.n_values and row.seed < _MAX_SEED,
        SPARSE: is_float and row.n_entries <= row.n_values,
        SHARED: (is_float or (row.data_type == TensorProto.INT8 and row.scales == NO_SCALES))
        and row.block_size <= row.n_values
        and row.earlier < n_rows_before,
    }.get(row.codec, False)
