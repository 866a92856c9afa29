import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.compress.codes import (
    CodebookTensor,
    GridTensor,
    HashedTensor,
    QuantizedTensor,
    buckets,
)


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


def matrices(axis, seed=0):
    generator = np.random.default_rng(seed)
    shape = (6, 10)
    codes = generator.integers(0, 8, shape).astype(np.uint8)
    scale = generator.normal(size=shape[axis]).astype(np.float32)
    wide = (shape[axis], -(-shape[1 - axis] // 4))
    return [
        QuantizedTensor(codes=codes.astype(np.int8), scale=scale, axis=axis, bits=4),
        GridTensor(
            codes=codes,
            scale=generator.normal(size=wide).astype(np.float32),
            zero_point=generator.integers(0, 8, wide).astype(np.uint8),
            block_size=4,
            axis=axis,
            bits=3,
        ),
        CodebookTensor(
            codes=codes,
            codebook=np.arange(8, dtype=np.float32) ** 2,
            scale=scale,
            axis=axis,
            bits=3,
        ),
        HashedTensor(
            shape=shape,
            values=generator.normal(size=7).astype(np.float32),
            seed=9,
            scale=scale,
            axis=axis,
            bits=8,
        ),
    ]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("kind", range(4))
def test_transposed_stands_for_the_transpose(axis, kind):
    weight = matrices(axis)[kind]
    turned = weight.transposed()
    assert turned.axis == 1 - axis
    np.testing.assert_array_equal(turned.dequantize(), weight.dequantize().T)
    np.testing.assert_array_equal(turned.transposed().dequantize(), weight.dequantize())


def test_dequantize_looks_up_hashed_values_in_chunks(monkeypatch):
    weight = matrices(0)[3]
    whole = weight.dequantize()
    monkeypatch.setattr("autocompress.compress.codes._CHUNK", 7)
    np.testing.assert_array_equal(weight.dequantize(), whole)


@given(start=st.integers(0, 50), n_weights=st.integers(0, 50), seed=st.integers(0, 2**32 - 1))
def test_buckets_of_a_part_are_a_part_of_the_buckets(start, n_weights, seed):
    whole = buckets(100, 13, seed)
    np.testing.assert_array_equal(
        buckets(n_weights, 13, seed, start), whole[start : start + n_weights]
    )
