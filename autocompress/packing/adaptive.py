"""An adaptive range coder for small integers.

No frequency table is sent. Symbols are coded block by block; each block's probabilities are the
counts of all symbols before it plus a prior whose shape takes two bytes. This costs about half a
logarithm of the count per letter (Krichevsky & Trofimov 1981), which is what a well-quantized table
would cost, and less where the prior fits. The range coder is `constriction`'s (Bamler 2022).

Dimension key: `N` symbols, `A` letters of the alphabet `low .. low + A - 1`, `B` blocks. Symbols
are given as offsets from `low`.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, Final

import constriction
import numpy as np
from numpy.typing import NDArray

from autocompress.errors import InputError
from autocompress.packing.byte_stream import ByteReader

N_SHAPES: Final = 3
N_LEVELS: Final = 80
PRIOR_TOTAL: Final = 1 << 20  # weights of a prior sum to about this

_UNIFORM, _LAPLACE, _GAUSS = range(N_SHAPES)
_ONE = 1 << 32  # fixed point for ratios
_PEAK = 1 << 40  # weight of the symbol 0 before normalisation


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """One distribution of the family.

    Attributes:
        shape: 0 uniform, 1 two-sided geometric (Laplace), 2 discrete Gaussian.
        level: Width, 0 (narrowest) to 79. The weight falls from symbol 0 to symbol 1 by the
            ratio `1 - (7 - level % 4) / 2**(3 + level // 4)`; meaningless for the uniform shape.
    """

    shape: int
    level: int

    def weights(self, low: int, n_letters: int) -> NDArray[np.int64]:
        """Weights of the letters `low .. low + n_letters - 1`, all positive.

        Returns:
            Shape (A,); their sum is within A of `PRIOR_TOTAL`, or above it if A is larger.
        """
        if self.shape == _UNIFORM:
            return np.full(n_letters, PRIOR_TOTAL // n_letters + 1, dtype=np.int64)
        distance = np.abs(np.arange(low, low + n_letters, dtype=np.int64))
        distance -= distance.min()  # an alphabet without 0 peaks at the letter closest to it
        reach = 1 << int(distance.max()).bit_length()
        side = np.array(_one_side(self.shape, self.level, reach), dtype=np.int64)[distance]
        # side <= 2**40; dividing first keeps the product below 2**63
        return side * 64 // max(1, int(side.sum()) * 64 // PRIOR_TOTAL) + 1


@functools.lru_cache(maxsize=512)
def _one_side(shape: int, level: int, reach: int) -> tuple[int, ...]:
    """Weights at distance 0, 1, … reach - 1 from the peak.

    A Laplace bell falls by one ratio r. A Gaussian falls by r, r**3, r**5, …: the ratio itself
    falls by r**2 from step to step.
    """
    ratio = _ONE - ((7 - level % 4) * _ONE >> (3 + level // 4))
    bend = ratio * ratio // _ONE if shape == _GAUSS else _ONE
    weights = [_PEAK]
    for _ in range(reach - 1):
        weights.append(weights[-1] * ratio // _ONE)
        ratio = ratio * bend // _ONE
    return tuple(weights)


def fit_prior(low: int, counts: NDArray[np.int64]) -> Prior:
    """The prior under which symbols with these counts take the fewest bits.

    Args:
        low: First letter of the alphabet.
        counts: How often each letter occurs, shape (A,).
    """
    seen = counts > 0

    def bits(prior: Prior) -> float:
        weights = prior.weights(low, len(counts))
        return float(
            counts.sum() * np.log2(weights.sum()) - (counts[seen] * np.log2(weights[seen])).sum()
        )

    family = [Prior(shape=_UNIFORM, level=0)]
    for shape in (_LAPLACE, _GAUSS):
        # cost is unimodal in the width: a coarse pass, then the neighbours of the best
        coarse = [Prior(shape=shape, level=level) for level in range(0, N_LEVELS, 4)]
        centre = min(coarse, key=bits).level
        family += [
            Prior(shape=shape, level=level)
            for level in range(max(0, centre - 3), min(N_LEVELS, centre + 4))
        ]
    return min(family, key=bits)


MAX_LETTERS: Final = 1 << 12  # wider alphabets gain next to nothing and slow the model down

_TRUST_SHIFTS = tuple(range(0, 16, 2))  # a prior counts as much as 2**shift symbols
_FIRST_BLOCK = 16
_LAST_BLOCK = 1 << 16
_PRECISION = 24  # bits of constriction's probabilities


def encode_adaptive(offsets: NDArray[np.int32], low: int, n_letters: int) -> bytes:
    """Encode `offsets`, shape (N,), values in [0, A).

    Returns:
        Two bytes that name the prior, then the range coder's stream.
    """
    counts = np.stack(
        [np.bincount(offsets[b], minlength=n_letters) for b in _blocks(offsets.size)]
    )  # (B, A)
    before = np.cumsum(counts, axis=0) - counts
    prior = fit_prior(low, counts.sum(axis=0))
    trust = _cheapest_trust(prior.weights(low, n_letters), before, counts)
    weights = prior.weights(low, n_letters)
    encoder = constriction.stream.queue.RangeEncoder()
    for i, block in enumerate(_blocks(offsets.size)):
        encoder.encode(offsets[block], _model(weights, before[i], trust))
    words = encoder.get_compressed()
    head = bytes([prior.level, prior.shape << 4 | trust])
    return head + _shorten(words, offsets, weights, trust)


def decode_adaptive(
    reader: ByteReader, low: int, n_letters: int, n_symbols: int
) -> Iterator[tuple[slice, NDArray[np.int32]]]:
    """Inverse of `encode_adaptive`: reads to the end, yields blocks (where they belong, offsets).

    Raises:
        InputError: If the stream is none that `encode_adaptive` writes.
    """
    level, shape_and_trust = reader.byte(), reader.byte()
    shape, trust = shape_and_trust >> 4, shape_and_trust & 15
    if level >= N_LEVELS or shape >= N_SHAPES or trust >= len(_TRUST_SHIFTS):
        raise InputError(
            f"a prior's level, shape and trust must be below {N_LEVELS}, {N_SHAPES} and "
            f"{len(_TRUST_SHIFTS)}, but are {level}, {shape} and {trust}"
        )
    weights = Prior(shape=shape, level=level).weights(low, n_letters)
    yield from _run_decoder(bytes(reader.take(reader.n_left)), weights, trust, n_symbols)


def _blocks(n_symbols: int) -> Iterator[slice]:
    """Cut N symbols into blocks that grow by a quarter of what came before."""
    start = 0
    while start < n_symbols:
        stop = min(n_symbols, start + min(max(start // 4, _FIRST_BLOCK), _LAST_BLOCK))
        yield slice(start, stop)
        start = stop


def _probabilities(
    prior: NDArray[np.int64], counts: NDArray[np.int64], trust_shift: int
) -> NDArray[np.float64]:
    """What constriction is given: whole numbers that sum to exactly 2**24 - A.

    constriction adds 1 to each of A probabilities, so that none is zero, and shares out the rest of
    2**24 in proportion. Given whole numbers with this very sum it has nothing left to round: the
    result is the same on every machine.
    """
    weights = (prior << trust_shift) + counts * PRIOR_TOTAL
    # keeps cumulated weight * 2**24 below 2**63
    weights >>= max(0, int(weights.sum()).bit_length() - 38)
    cumulated = np.concatenate([[0], np.cumsum(weights)])
    edges = cumulated * ((1 << _PRECISION) - len(weights)) // cumulated[-1]
    return np.diff(edges).astype(np.float64)


def _model(weights: NDArray[np.int64], counts: NDArray[np.int64], trust: int) -> Any:
    probabilities = _probabilities(weights, counts, _TRUST_SHIFTS[trust])
    return constriction.stream.model.Categorical(probabilities, perfect=False)


def _cheapest_trust(
    weights: NDArray[np.int64], before: NDArray[np.int64], counts: NDArray[np.int64]
) -> int:
    """Index of the trust in the prior that takes the fewest bits."""
    block, letter = np.nonzero(counts)
    times, seen, n_before = counts[block, letter], before[block, letter], before.sum(axis=1)[block]
    total = weights.sum() / PRIOR_TOTAL

    def bits(trust: int) -> float:
        strength = float(1 << _TRUST_SHIFTS[trust])
        share = (weights[letter] / PRIOR_TOTAL * strength + seen) / (total * strength + n_before)
        return float(-(times * np.log2(share)).sum())

    return min(range(len(_TRUST_SHIFTS)), key=bits)


def _shorten(
    words: NDArray[np.uint32], offsets: NDArray[np.int32], weights: NDArray[np.int64], trust: int
) -> bytes:
    """Drop the last bytes of a stream that the decoder can do without.

    constriction ends on a whole 32-bit word. The decoder reads zeros past the end, so any shorter
    number inside the coder's final interval serves: the one just above the cut-off is tried.
    """
    whole = words.astype(">u4").tobytes()
    number = int.from_bytes(whole, "big")
    for n_dropped in (4, 3, 2, 1):
        n_kept = len(whole) - n_dropped
        if n_kept < 0:
            continue
        shorter = (number >> 8 * n_dropped) + 1
        if shorter.bit_length() > 8 * n_kept:
            continue
        candidate = shorter.to_bytes(n_kept, "big")
        if _decodes_to(candidate, offsets, weights, trust):
            return candidate
    return whole


def _decodes_to(
    stream: bytes, offsets: NDArray[np.int32], weights: NDArray[np.int64], trust: int
) -> bool:
    try:
        blocks = _run_decoder(stream, weights, trust, offsets.size)
        return all(np.array_equal(decoded, offsets[block]) for block, decoded in blocks)
    except InputError:
        return False


def _run_decoder(
    stream: bytes, weights: NDArray[np.int64], trust: int, n_symbols: int
) -> Iterator[tuple[slice, NDArray[np.int32]]]:
    words = np.frombuffer(stream + bytes(-len(stream) % 4), dtype=">u4").astype(np.uint32)
    decoder = constriction.stream.queue.RangeDecoder(words)
    counts = np.zeros(len(weights), dtype=np.int64)
    for block in _blocks(n_symbols):
        try:
            offsets = decoder.decode(_model(weights, counts, trust), block.stop - block.start)
        except AssertionError as error:  # how constriction reports invalid data
            raise InputError("the range coder cannot have written this symbol stream") from error
        counts += np.bincount(offsets, minlength=len(weights))
        yield block, offsets
