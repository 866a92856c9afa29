import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.compress.codes import CodebookTensor, GridTensor, HashedTensor
from autocompress.runtime.integer_codes import to_integer_codes

SCALE = np.array([0.5, 0.1, -3.0], np.float32)


def with_codebook(entries, scale=SCALE, seed=0):
    codebook = np.sort(np.array(entries, np.float32))
    codes = np.random.default_rng(seed).integers(0, len(codebook), (3, 40)).astype(np.uint8)
    return CodebookTensor(codes=codes, codebook=codebook, scale=scale, axis=0, bits=8)


def grid(codes, scale, zero_point, block_size=1000, bits=8):
    return GridTensor(
        codes=np.array(codes, np.uint8),
        scale=np.array(scale, np.float32),
        zero_point=np.array(zero_point, np.uint8),
        block_size=block_size,
        axis=0,
        bits=bits,
    )


@pytest.mark.parametrize(
    ("entries", "largest", "bits"),
    [
        ([-1, -0.5, -0.25, 0, 0.25, 0.5, 1], 4, 4),  # powers of two
        ([-1.5, -1, 0, 1, 1.5], 3, 3),  # sums of two
        ([-0.7, 0, 0.7], 1, 2),  # ternary
        ([-0.3, 0.3], 1, 2),  # binary
        ([1, 127], 127, 8),
        ([0], 0, 2),
    ],
)
def test_to_integer_codes_writes_multiples_of_a_step(entries, largest, bits):
    weight = with_codebook(entries)
    found = to_integer_codes(weight)
    np.testing.assert_array_equal(found.dequantize(), weight.dequantize())
    assert np.abs(found.codes.astype(int)).max() == largest
    assert found.bits == bits
    assert (found.scale > 0).all()


@pytest.mark.parametrize(
    "entries", [[1, 129], [0.1, 0.2, 0.35], [1, np.inf], [1, np.nan], [2.0**-9, 1]]
)
def test_to_integer_codes_finds_none_for_entries_that_are_no_small_multiples(entries):
    assert to_integer_codes(with_codebook(entries)) is None


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 999),
    step=st.floats(2**-8, 2**8, width=16),
    exponents=st.sets(st.integers(0, 6), min_size=1),
)
def test_to_integer_codes_keeps_every_value(seed, step, exponents):
    scale = np.random.default_rng(seed).normal(size=3).astype(np.float32)
    both_signs = [sign * step * 2.0**e for e in exponents for sign in (-1, 1)]
    weight = with_codebook(both_signs, scale, seed)
    found = to_integer_codes(weight)
    if found is not None:  # a step that is no power of two may round once more
        np.testing.assert_array_equal(found.dequantize(), weight.dequantize())
    if np.log2(step).is_integer():
        assert found is not None


def test_to_integer_codes_takes_the_zero_point_of_a_channel_off():
    found = to_integer_codes(grid([[0, 5, 15], [7, 8, 0]], [[0.5], [-0.1]], [[5], [7]], bits=4))
    np.testing.assert_array_equal(found.codes, [[-5, 0, 10], [0, -1, 7]])
    np.testing.assert_array_equal(found.scale, np.array([0.5, 0.1], np.float32))
    assert found.bits == 5


def test_to_integer_codes_uses_all_of_int8():
    found = to_integer_codes(grid([[0, 255]], [[1.0]], [[128]]))
    np.testing.assert_array_equal(found.codes, [[-128, 127]])
    assert found.bits == 8


@pytest.mark.parametrize(
    "weight",
    [
        grid([[0, 255]], [[1.0]], [[100]]),  # 155 is no int8
        grid([[0, 255]], [[-1.0]], [[128]]),  # nor is 128
        grid([[0, 9]], [[1.0, 2.0]], [[1, 1]], block_size=1),
        HashedTensor(
            shape=(2, 2), values=np.ones(2, np.float32), seed=0, scale=SCALE[:2], axis=0, bits=8
        ),
    ],
)
def test_to_integer_codes_finds_none_where_codes_leave_int8_or_scales_vary_in_a_channel(weight):
    assert to_integer_codes(weight) is None
