import numpy as np
import pytest

from autocompress.errors import InputError
from autocompress.packing.adaptive import decode_adaptive, encode_adaptive
from autocompress.packing.byte_stream import ByteReader


def bell(level: int, shape: int, low: int, n_letters: int) -> list[int]:
    if shape == 0:
        return [2**20 // n_letters + 1] * n_letters
    ratio = 2**32 - (((7 - level % 4) * 2**32) >> (3 + level // 4))
    bend = 2**32 if shape == 1 else ratio**2 // 2**32
    side = [2**40]
    for _ in range(n_letters + abs(low)):
        side.append(side[-1] * ratio // 2**32)
        ratio = ratio * bend // 2**32
    distances = [abs(letter) for letter in range(low, low + n_letters)]
    weights = [side[d - min(distances)] for d in distances]
    return [64 * s // max(1, 64 * sum(weights) // 2**20) + 1 for s in weights]


def reference_decoder(data: bytes, low: int, n_letters: int, n_symbols: int) -> list[int]:
    """`docs/packed-format.md` in plain Python integers, without constriction and without numpy."""
    level, shape, trust = data[0], data[1] >> 4, data[1] & 15
    prior, counts = bell(level, shape, low, n_letters), [0] * n_letters
    stream = data[2:] + bytes(4 * n_symbols + 8)
    position, lower, width, point = 8, 0, 2**64 - 1, int.from_bytes(stream[:8], "big")
    symbols: list[int] = []
    while len(symbols) < n_symbols:
        weights = [(p << 2 * trust) + c * 2**20 for p, c in zip(prior, counts, strict=True)]
        excess = max(0, sum(weights).bit_length() - 38)
        weights = [w >> excess for w in weights]
        edges = [
            sum(weights[:i]) * (2**24 - n_letters) // sum(weights) + i for i in range(n_letters + 1)
        ]
        n_block = min(max(len(symbols) // 4, 16), 65536, n_symbols - len(symbols))
        for _ in range(n_block):
            step = width >> 24
            quantile = ((point - lower) % 2**64) // step
            letter = max(i for i in range(n_letters) if edges[i] <= quantile)
            lower = (lower + step * edges[letter]) % 2**64
            width = step * (edges[letter + 1] - edges[letter])
            if width < 2**32:
                lower, width = lower * 2**32 % 2**64, width * 2**32
                word = int.from_bytes(stream[position : position + 4], "big")
                point, position = (point * 2**32 + word) % 2**64, position + 4
            symbols.append(letter)
        for letter in symbols[-n_block:]:
            counts[letter] += 1
    return symbols


@pytest.mark.parametrize(
    ("low", "n_letters", "n_symbols", "seed"),
    [(-1, 3, 700, 0), (-2, 4, 1, 1), (-8, 16, 900, 2), (-128, 256, 400, 3), (5, 30, 300, 4)],
)
def test_encode_adaptive_follows_the_documented_format(
    low: int, n_letters: int, n_symbols: int, seed: int
) -> None:
    normal = np.random.default_rng(seed).normal(size=n_symbols)
    offsets = np.clip(np.rint(normal * n_letters / 6) - low, 0, n_letters - 1).astype(np.int32)
    data = encode_adaptive(offsets, low, n_letters)
    assert reference_decoder(data, low, n_letters, n_symbols) == offsets.tolist()


@pytest.mark.parametrize("n_symbols", [1, 16, 17, 1000, 400_000])
def test_decode_adaptive_inverts_encode_adaptive(n_symbols: int) -> None:
    offsets = np.random.default_rng(0).binomial(6, 0.3, size=n_symbols).astype(np.int32)
    reader = ByteReader(encode_adaptive(offsets, -3, 7), "test")
    blocks = list(decode_adaptive(reader, -3, 7, n_symbols))
    np.testing.assert_array_equal(np.concatenate([part for _, part in blocks]), offsets)
    assert blocks[-1][0].stop == n_symbols
    assert reader.n_left == 0


@pytest.mark.parametrize("head", [b"\x50\x00", b"\x00\x30", b"\x00\x08"])
def test_decode_adaptive_refuses_an_unknown_prior(head: bytes) -> None:
    with pytest.raises(InputError, match="level, shape and trust must be below 80, 3 and 8"):
        list(decode_adaptive(ByteReader(head, "test"), -1, 3, 1))
