import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from autocompress.runtime.half_precision import round_to_half

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
