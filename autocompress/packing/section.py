"""The inside of the graph section, and the pools of the payload: what is where."""

import dataclasses

import numpy as np

from autocompress.errors import InputError
from autocompress.packing.byte_stream import ByteReader, Pools, varint
from autocompress.packing.coder import decode_symbols, encode_symbols
from autocompress.packing.table import (
    CODEBOOK,
    HALF,
    HASHED,
    MAX_ROWS,
    PROTO,
    RAW,
    SPARSE,
    TensorRow,
    read_row,
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Everything but the tensors' values.

    Attributes:
        skeleton: Serialised ONNX model without initializers, see `skeleton`.
        metadata: JSON text, UTF-8.
        kept: (index, name) of initializers that are graph inputs or outputs.
        rows: The tensor table.
        n_scale_stream: Bytes of the coded upper halves of the float16 scales.
        n_half_stream: The same of the float16 tensors.
    """

    skeleton: bytes
    metadata: bytes
    kept: tuple[tuple[int, str], ...]
    rows: tuple[TensorRow, ...]
    n_scale_stream: int
    n_half_stream: int

    def to_bytes(self) -> bytes:
        """Serialise; `read_section` is the inverse."""
        names = [(varint(i), name.encode()) for i, name in self.kept]
        return b"".join(
            [
                *(varint(len(self.skeleton)), self.skeleton),
                *(varint(len(self.rows)), *(row.to_bytes() for row in self.rows)),
                varint(len(names)),
                *(index + varint(len(name)) + name for index, name in names),
                *(varint(self.n_scale_stream), varint(self.n_half_stream)),
                *(varint(len(self.metadata)), self.metadata),
            ]
        )


def read_section(data: bytes) -> Section:
    """Inverse of `Section.to_bytes`.

    Raises:
        InputError: If `data` is anything else.
    """
    reader = ByteReader(data, "graph section")
    skeleton = bytes(reader.take(reader.varint()))
    rows: list[TensorRow] = []
    n_rows = reader.varint()
    if n_rows > MAX_ROWS:
        raise InputError(f"a file must have at most {MAX_ROWS} tensors, but claims {n_rows}")
    for i in range(n_rows):
        rows.append(read_row(reader, i))
    kept = _read_kept(reader, n_rows)
    n_scale_stream, n_half_stream = reader.varint(), reader.varint()
    metadata = bytes(reader.take(reader.varint()))
    reader.finish()
    return Section(
        skeleton=skeleton,
        metadata=metadata,
        kept=kept,
        rows=tuple(rows),
        n_scale_stream=n_scale_stream,
        n_half_stream=n_half_stream,
    )


def _read_kept(reader: ByteReader, n_rows: int) -> tuple[tuple[int, str], ...]:
    kept: list[tuple[int, str]] = []
    for _ in range(reader.varint()):
        index, name = reader.varint(), bytes(reader.take(reader.varint()))
        if not (kept[-1][0] if kept else -1) < index < n_rows:
            raise InputError(f"kept names must be those of {n_rows} tensors, in their order")
        try:
            kept.append((index, name.decode()))
        except UnicodeDecodeError as error:
            raise InputError(f"the name of tensor {index} must be UTF-8") from error
    return tuple(kept)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PayloadLengths:
    """Bytes of each part of the payload, in this order.

    Attributes:
        symbols: Streams of coded integers.
        zero_points: Streams of coded zero points.
        scale_stream: Upper bytes of the float16 scales and codebooks, coded.
        scale_lows: Lower bytes of the same.
        scale_floats: Float32 scales and codebooks.
        half_stream: Upper bytes of the tensors stored as float16, coded.
        half_lows: Lower bytes of the same.
        raw: Values and messages as they are.
    """

    symbols: int
    zero_points: int
    scale_stream: int
    scale_lows: int
    scale_floats: int
    half_stream: int
    half_lows: int
    raw: int


def payload_lengths(section: Section) -> PayloadLengths:
    """What the table says about the payload."""
    rows = section.rows
    entries = [row for row in rows if row.codec in (CODEBOOK, HASHED)]
    sparse = [row for row in rows if row.codec == SPARSE]

    def n_scales(is_half: bool) -> int:
        scales = sum(row.n_stored_scales for row in rows if row.has_half_scales == is_half)
        return scales + sum(r.n_entries for r in entries if r.has_half_entries == is_half)

    def n_sparse(is_half: bool) -> int:
        return sum(row.n_entries for row in sparse if row.has_half_entries == is_half)

    return PayloadLengths(
        symbols=sum(row.n_stream for row in rows if row.codec != PROTO),
        zero_points=sum(row.n_zero_stream for row in rows),
        scale_stream=section.n_scale_stream,
        scale_lows=n_scales(True),
        scale_floats=4 * n_scales(False),
        half_stream=section.n_half_stream,
        half_lows=sum(row.n_values for row in rows if row.codec == HALF) + n_sparse(True),
        raw=sum(row.n_bytes for row in rows if row.codec in (RAW, PROTO)) + 4 * n_sparse(False),
    )


def join_pools(pools: Pools) -> tuple[bytes, int, int]:
    """Payload of a file, with the lengths of its two coded streams of upper bytes."""
    scale_stream, scale_lows = _split_halves(pools.scale_halves)
    half_stream, half_lows = _split_halves(pools.halves)
    parts = (
        *(pools.symbols, pools.zero_points),
        *(scale_stream, scale_lows, pools.scale_floats),
        *(half_stream, half_lows, pools.raw),
    )
    return b"".join(parts), len(scale_stream), len(half_stream)


def split_payload(payload: bytes, section: Section) -> Pools:
    """Inverse of `join_pools`.

    Raises:
        InputError: If the payload is not as long as the table says, or a stream is damaged.
    """
    lengths = dataclasses.astuple(payload_lengths(section))
    if sum(lengths) != len(payload):
        raise InputError(
            f"the payload must have {sum(lengths)} bytes, as the table says, but has {len(payload)}"
        )
    reader = ByteReader(payload, "payload")
    parts = (bytes(reader.take(length)) for length in lengths)
    symbols, zero_points, *scales, half_stream, half_lows, raw = parts
    return Pools(
        symbols=bytearray(symbols),
        zero_points=bytearray(zero_points),
        scale_halves=_merge_halves(scales[0], scales[1]),
        scale_floats=bytearray(scales[2]),
        halves=_merge_halves(half_stream, half_lows),
        raw=bytearray(raw),
    )


def _split_halves(halves: bytearray) -> tuple[bytes, bytes]:
    """Upper bytes (sign, exponent, two bits of fraction) coded, lower bytes as they are: noise."""
    pairs = np.frombuffer(halves, dtype=np.uint8).reshape(-1, 2)
    return encode_symbols(pairs[:, 1]), pairs[:, 0].tobytes()


def _merge_halves(stream: bytes, lows: bytes) -> bytearray:
    pairs = np.empty((len(lows), 2), dtype=np.uint8)
    pairs[:, 0] = np.frombuffer(lows, dtype=np.uint8)
    pairs[:, 1] = decode_symbols(stream, len(lows), np.uint8)
    return bytearray(pairs.tobytes())
