"""The tensor table: one row for each tensor, saying what it is and how its values are stored."""

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
SAME: Final = 5  # the values of an earlier tensor
_CODEC_MASK, _TRANSPOSED, _HALF_SCALES = 0x07, 0x08, 0x10

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
_MAX_DIMS = 32
_MAX_VALUES = 1 << 31


@dataclasses.dataclass(slots=True, kw_only=True)
class Pools:
    """Bytes of all tensors by kind, while a file is being written."""

    symbols: bytearray = dataclasses.field(default_factory=bytearray)
    scale_halves: bytearray = dataclasses.field(default_factory=bytearray)
    scale_floats: bytearray = dataclasses.field(default_factory=bytearray)
    halves: bytearray = dataclasses.field(default_factory=bytearray)
    raw: bytearray = dataclasses.field(default_factory=bytearray)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TensorRow:
    """What the table says about one tensor.

    Attributes:
        data_type: ONNX data type.
        dims: Shape.
        codec: One of the codecs above.
        n_stream: Bytes of its stream (SYMBOLS, QUANTIZED) or message (PROTO); index of the earlier
            tensor (SAME); 0 otherwise.
        axis: Dimension of the codes that the scales run along (QUANTIZED).
        bits: Nominal bits per code (QUANTIZED).
        is_transposed: Whether the codes are stored as the transpose of the tensor (QUANTIZED).
        has_half_scales: Whether the scales are float16 (QUANTIZED).
    """

    data_type: int
    dims: tuple[int, ...]
    codec: int
    n_stream: int = 0
    axis: int = 0
    bits: int = 0
    is_transposed: bool = False
    has_half_scales: bool = False

    @property
    def n_values(self) -> int:
        """Number of values."""
        return math.prod(self.dims)

    @property
    def code_dims(self) -> tuple[int, ...]:
        """Shape of the codes (QUANTIZED)."""
        return self.dims[::-1] if self.is_transposed else self.dims

    @property
    def n_bytes(self) -> int:
        """Bytes of the decoded values."""
        if self.codec == PROTO:
            return self.n_stream
        return self.n_values * np.dtype(DTYPES[self.data_type]).itemsize

    def to_bytes(self) -> bytes:
        """Serialise; `read_row` is the inverse."""
        flags = self.is_transposed * _TRANSPOSED | self.has_half_scales * _HALF_SCALES
        out = bytes([self.codec | flags])
        out += b"".join(map(varint, (self.data_type, len(self.dims), *self.dims)))
        if self.codec == QUANTIZED:
            out += bytes([self.axis << 4 | self.bits])
        return out + (varint(self.n_stream) if self.codec not in (RAW, HALF) else b"")


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
    axis_and_bits = reader.byte() if codec == QUANTIZED else 0
    row = TensorRow(
        data_type=data_type,
        dims=dims,
        codec=codec,
        n_stream=reader.varint() if codec not in (RAW, HALF) else 0,
        axis=axis_and_bits >> 4,
        bits=axis_and_bits & 15,
        is_transposed=bool(flags & _TRANSPOSED),
        has_half_scales=bool(flags & _HALF_SCALES),
    )
    _check_row(row, flags, n_rows_before)
    return row


def _check_row(row: TensorRow, flags: int, n_rows_before: int) -> None:
    is_float = row.data_type == TensorProto.FLOAT
    kind = np.dtype(DTYPES.get(row.data_type, "V")).kind
    is_sound = {
        RAW: kind != "V",
        PROTO: True,
        SYMBOLS: kind in INTEGER_KINDS,
        HALF: is_float,
        QUANTIZED: is_float
        and row.axis < len(row.dims)
        and 1 <= row.bits <= 8
        and (not row.is_transposed or len(row.dims) == 2),
        SAME: kind != "V" and row.n_stream < n_rows_before,
    }.get(row.codec, False)
    allowed = _CODEC_MASK | (_TRANSPOSED | _HALF_SCALES if row.codec == QUANTIZED else 0)
    is_small = math.prod(max(1, dim) for dim in row.dims) <= _MAX_VALUES
    if not is_sound or not is_small or flags & ~allowed:
        raise InputError(
            f"tensor {n_rows_before} has an impossible description: codec byte {flags}, data type "
            f"{row.data_type}, shape {list(row.dims)}"
        )
