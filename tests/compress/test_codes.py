import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.compress.codes import QuantizedTensor


@pytest.mark.parametrize("axis", [0, 1, 2])
@given(seed=st.integers(0, 1000))
def test_dequantize_multiplies_each_code_by_its_channels_scale(axis, seed):
    generator = np.random.default_rng(seed)
    shape = (3, 4, 5)
    codes = generator.integers(-8, 8, shape, dtype=np.int8)
    scale = generator.random(shape[axis], dtype=np.float32)
    values = QuantizedTensor(codes=codes, scale=scale, axis=axis, bits=4).dequantize()
    assert values.dtype == np.float32
    for index in np.ndindex(*shape):
        assert values[index] == np.float32(codes[index]) * scale[index[axis]]
