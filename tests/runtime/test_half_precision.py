import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from autocompress.compress.codes import CodebookTensor, GridTensor, HashedTensor, QuantizedTensor
from autocompress.runtime.half_precision import halve_weight, round_to_half

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(FLOATS)
def test_round_to_half_keeps_scales_within_half_a_unit_of_float16(value):
    rounded = round_to_half(np.array([value], np.float32), is_scale=True)[0]
    if 2.0**-14 <= abs(value) <= 65504.0:
        assert np.float32(np.float16(rounded)) == rounded
        assert abs(rounded - np.float32(value)) <= abs(value) * 2.0**-11
    else:
        assert rounded == np.float32(value)


@given(FLOATS)
def test_round_to_half_makes_biases_two_bytes_wide(value):
    rounded = round_to_half(np.array([value], np.float32), is_scale=False)[0]
    if abs(value) <= 65504.0:
        assert np.float32(np.float16(rounded)) == rounded
        assert abs(rounded - np.float32(value)) <= max(abs(value) * 2.0**-11, 2.0**-25)
    else:
        assert rounded == np.float32(value)


def test_halve_weight_rounds_codebooks_and_hashed_values():
    third = np.float32(1 / 3)
    book = CodebookTensor(
        codes=np.zeros((2, 2), np.uint8),
        codebook=np.array([-third, 1e-9, third], np.float32),
        scale=np.array([third, 1.0], np.float32),
        axis=0,
        bits=2,
    )
    half = np.float32(np.float16(third))
    rounded = halve_weight(book)
    np.testing.assert_array_equal(rounded.codebook, [-half, 0, half])
    np.testing.assert_array_equal(rounded.scale, [half, 1])
    hashed = HashedTensor(
        shape=(2, 2),
        values=np.array([third, 70000], np.float32),
        seed=0,
        scale=book.scale,
        axis=0,
        bits=8,
    )
    np.testing.assert_array_equal(halve_weight(hashed).values, [half, 70000])


def test_halve_weight_gives_empty_channels_and_blocks_the_largest_scale():
    codes = np.array([[0, 0, 0], [1, 0, 2]], np.int8)
    scale = np.array([1e-8, 0.5], np.float32)
    weight = QuantizedTensor(codes=codes, scale=scale, axis=0, bits=4)
    np.testing.assert_array_equal(halve_weight(weight).scale, [0.5, 0.5])
    np.testing.assert_array_equal(halve_weight(weight).dequantize(), weight.dequantize())
    grid = GridTensor(
        codes=np.array([[3, 3, 0], [1, 0, 2]], np.uint8),
        scale=np.array([[1e-8, 0.5], [-2, 0.25]], np.float32),
        zero_point=np.array([[3, 3], [1, 1]], np.uint8),
        block_size=2,
        axis=0,
        bits=2,
    )
    np.testing.assert_array_equal(halve_weight(grid).scale, [[2, 0.5], [-2, 0.25]])
    np.testing.assert_array_equal(halve_weight(grid).dequantize(), grid.dequantize())
    nothing = QuantizedTensor(codes=np.zeros_like(codes), scale=scale, axis=0, bits=4)
    np.testing.assert_array_equal(halve_weight(nothing).scale, [0.5, 0.5])
