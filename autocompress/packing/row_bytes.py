"""What each tensor of a packed file takes, told from its table."""

import dataclasses
import itertools
from collections.abc import Sequence

from autocompress.packing.section import Section, payload_lengths
from autocompress.packing.table import CODEBOOK, HALF, HASHED, PROTO, RAW, SPARSE, TensorRow


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RowBytes:
    """Bytes of the payload that belong to one tensor, by what they hold.

    Attributes:
        payload: Its stream of coded integers.
        scales: Step sizes, zero points, codebook, hashed values.
        floats: Values that are not quantized.
    """

    payload: int
    scales: int
    floats: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.payload + self.scales + self.floats


def bytes_of_rows(section: Section) -> list[RowBytes]:
    """Bytes of the payload that belong to each row; their sum is the payload.

    Streams of symbols, float32 scales and raw values are counted exactly. Float16 values (scales
    and codebooks in one pool, biases and the like in another) are coded together over all tensors;
    each pool is shared out by the number of values.
    """
    lengths, rows = payload_lengths(section), section.rows
    scales = _shares(lengths.scale_stream + lengths.scale_lows, [_n_half_scales(r) for r in rows])
    halves = _shares(lengths.half_stream + lengths.half_lows, [_n_halves(r) for r in rows])
    return [
        RowBytes(
            payload=0 if row.codec == PROTO else row.n_stream,
            scales=row.n_zero_stream + 4 * (_n_scales(row) - _n_half_scales(row)) + in_halves,
            floats=_n_raw(row) + halves_of_row,
        )
        for row, in_halves, halves_of_row in zip(rows, scales, halves, strict=True)
    ]


def _n_raw(row: TensorRow) -> int:
    """Bytes of values that are stored as they are."""
    if row.codec == SPARSE and not row.has_half_entries:
        return 4 * row.n_entries
    return row.n_bytes if row.codec in (RAW, PROTO) else 0


def _n_scales(row: TensorRow) -> int:
    entries = row.n_entries if row.codec in (CODEBOOK, HASHED) else 0
    return row.n_stored_scales + entries


def _n_half_scales(row: TensorRow) -> int:
    entries = row.n_entries if row.codec in (CODEBOOK, HASHED) and row.has_half_entries else 0
    return entries + (row.n_stored_scales if row.has_half_scales else 0)


def _n_halves(row: TensorRow) -> int:
    if row.codec == SPARSE and row.has_half_entries:
        return row.n_entries
    return row.n_values if row.codec == HALF else 0


def _shares(total: int, weights: Sequence[int]) -> list[int]:
    """Share out a total by weights, in whole bytes that add up.

    >>> _shares(10, [1, 0, 2])
    [3, 0, 7]
    """
    ends = [0, *itertools.accumulate(weights)]
    before = [total * end // max(1, ends[-1]) for end in ends]
    return [after - start for start, after in itertools.pairwise(before)]
