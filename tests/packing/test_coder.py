import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autocompress.errors import InputError
from autocompress.packing.coder import (
    ADAPTIVE,
    CONSTANT,
    FIXED_LENGTH,
    decode_symbols,
    encode_symbols,
)

GOLDEN = (
    "0205061023071cd7dbc673f771765d742ae16a773413f32da26ce9d60df8806f49666e942d115e7e"
    "2f0d4f92360a0fd01ed7533e58b5f8559ad5fff5c5f06d725f7bdfcf31"
)
DTYPES = ("int8", "uint8", "int16", "int32", "uint32", "int64")


def entropy_bytes(symbols: np.ndarray) -> float:
    counts = np.unique(symbols, return_counts=True)[1]
    return float(-(counts * np.log2(counts / counts.sum())).sum() / 8)


def gaussian_codes(n_symbols: int, bits: int) -> np.ndarray:
    high = 2 ** (bits - 1) - 1
    spread = {8: 127 / 4, 4: 7 / 3, 3: 3 / 2.3, 2: 1.0}[bits]
    normal = np.random.default_rng(bits).normal(size=n_symbols)
    return np.clip(np.rint(normal * spread), -high - 1, high).astype(np.int8)


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(DTYPES).flatmap(lambda d: hnp.arrays(d, st.integers(0, 60))))
def test_decode_symbols_inverts_encode_symbols(symbols: np.ndarray) -> None:
    if symbols.size and int(symbols.max()) - int(symbols.min()) >= 2**63:
        symbols = symbols // 2
    decoded = decode_symbols(encode_symbols(symbols), symbols.size, symbols.dtype)
    assert decoded.dtype == symbols.dtype
    np.testing.assert_array_equal(decoded, symbols)


@settings(deadline=None, max_examples=50)
@given(
    n_symbols=st.integers(1, 5000),
    width=st.floats(0.1, 300),
    offset=st.integers(-(2**30), 2**30),
    seed=st.integers(0, 99),
)
def test_decode_symbols_inverts_encode_symbols_when_they_are_many(
    n_symbols: int, width: float, offset: int, seed: int
) -> None:
    normal = np.random.default_rng(seed).normal(size=n_symbols)
    symbols = (np.rint(normal * width) + offset).astype(np.int32)
    np.testing.assert_array_equal(decode_symbols(encode_symbols(symbols), n_symbols), symbols)


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_encode_symbols_comes_within_a_permille_of_the_entropy(bits: int) -> None:
    symbols = gaussian_codes(100_000, bits)
    assert len(encode_symbols(symbols)) <= 1.001 * entropy_bytes(symbols)


@pytest.mark.parametrize(("bits", "n_extra_bytes"), [(8, 60), (4, 12), (3, 10), (2, 10)])
def test_encode_symbols_spends_few_bytes_on_its_model(bits: int, n_extra_bytes: int) -> None:
    symbols = gaussian_codes(2304, bits)
    assert len(encode_symbols(symbols)) <= entropy_bytes(symbols) + n_extra_bytes


def test_encode_symbols_adapts_when_no_bell_fits() -> None:
    symbols = np.random.default_rng(0).choice([-8, 0, 7], size=20_000, p=[0.2, 0.7, 0.1])
    assert len(encode_symbols(symbols)) <= entropy_bytes(symbols) + 25


def test_encode_symbols_takes_the_smallest_code() -> None:
    assert encode_symbols(np.zeros(0, dtype=np.int8)) == b""
    assert encode_symbols(np.full(10**6, -3)) == bytes([CONSTANT, 5])
    assert encode_symbols(np.array([0, 1, 1, 0]))[0] == FIXED_LENGTH
    assert encode_symbols(np.arange(0, 10**6, 999))[0] == FIXED_LENGTH
    assert encode_symbols(gaussian_codes(1000, 4))[0] == ADAPTIVE


def test_encode_symbols_gives_the_same_bytes_on_every_machine() -> None:
    symbols = (np.arange(200) * np.arange(200)) % 11 % 7 - 3
    assert encode_symbols(symbols).hex() == GOLDEN


def test_encode_symbols_refuses_what_no_reader_takes() -> None:
    with pytest.raises(ValueError, match="9223372036854775807"):
        encode_symbols(np.array([-2, 2**63 - 1]))


@pytest.mark.parametrize(
    ("data", "n_symbols", "match"),
    [
        (b"", 3, "more bytes"),
        (b"\x00", 1, "more bytes"),
        (b"\x07\x00", 1, "must be 0, 1 or 2, but is 7"),
        (b"\x00\x00\x00", 1, "1 bytes follow"),
        (b"\x00\x00", 0, "2 bytes follow"),
        (b"\x00\x80\x02", 1, r"range over \[128, 128\]"),
        (b"\x01\x00\x00\x00", 1, "width"),
        (b"\x01\x00\x40\x00", 1, "width"),
        (b"\x01\x00\x08", 9, "9 more bytes"),
        (b"\x01\x02\x07\x7f", 1, r"range over \[1, 128\]"),
        (b"\x02\x00\x01\x00\x00", 1, "2 to 4096 letters, but has 1"),
        (b"\x02\x00\x81\x20\x00\x00", 1, "4097"),
        (b"\x02\x00\x02\x50\x00", 1, "80"),
        (b"\x02\x00\x02\x00\x30", 1, "shape"),
        (b"\x02\x00\x02\x00\x08", 1, "trust"),
    ],
)
def test_decode_symbols_refuses_invalid_data(data: bytes, n_symbols: int, match: str) -> None:
    with pytest.raises(InputError, match=match):
        decode_symbols(data, n_symbols, np.int8)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=60), st.integers(0, 300))
def test_decode_symbols_raises_nothing_else_when_data_is_random(data: bytes, n: int) -> None:
    for code in range(3):
        try:
            decoded = decode_symbols(bytes([code]) + data, n, np.int8)
        except InputError:
            continue
        assert decoded.shape == (n,)
