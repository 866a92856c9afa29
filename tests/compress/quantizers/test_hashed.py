import numpy as np
import pytest
import torch

from autocompress.compress.codes import buckets
from autocompress.compress.quantizers.hashed import HashedQuantizer, bucket_count, bucket_means
from autocompress.compress.quantizers.registry import parse_granularity, why_not_quantize


def _quantizer(weight, bits, seed=0):
    return HashedQuantizer(weight, bits, parse_granularity("tensor"), 0, seed=seed)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_distinct_values_and_their_bytes_are_the_budget(bits):
    weight = torch.randn(16, 32)
    values = _quantizer(weight, bits)(weight)
    n_buckets = bucket_count(weight.numel(), bits)
    assert n_buckets * 16 == weight.numel() * bits
    assert len(values.unique()) <= n_buckets
    assert len(values.unique()) > 0.8 * n_buckets  # the hash leaves few buckets empty


def test_even_one_weight_has_a_bucket():
    assert bucket_count(1, 1) == 1


def test_values_are_means_of_their_buckets():
    weight = torch.randn(6, 10)
    index = buckets(60, 15, 3)
    quantizer = HashedQuantizer(weight, 4, parse_granularity("tensor"), 0, seed=3)
    for bucket in range(15):
        members = weight.flatten().numpy()[index == bucket]
        expected = members.mean() if len(members) else 0.0
        assert quantizer.values[bucket].item() == pytest.approx(expected, abs=1e-6)
    assert quantizer.freeze(weight).seed == 3


def test_means_have_the_least_squared_error():
    weight, index = torch.randn(40), torch.from_numpy(buckets(40, 7, 0))
    means = bucket_means(weight, index, 7)
    design = np.eye(7)[index.numpy()]
    expected = np.linalg.lstsq(design, weight.numpy(), rcond=None)[0]
    np.testing.assert_allclose(means.numpy(), expected, atol=1e-6)


def test_gradient_of_a_value_is_the_sum_over_its_weights():
    weight, grad = torch.randn(6, 10), torch.randn(6, 10)
    quantizer = _quantizer(weight, 4)
    quantizer(weight).backward(grad)
    expected = np.bincount(buckets(60, 15, 0), weights=grad.flatten().numpy(), minlength=15)
    np.testing.assert_allclose(quantizer.values.grad.numpy(), expected, atol=1e-5)


def test_positions_are_not_stored():
    assert list(_quantizer(torch.randn(6, 10), 4).state_dict()) == ["values"]


def test_recurrent_weights_are_refused():
    assert "gate by gate" in why_not_quantize("hashed", "tensor", 4, "recurrent", ())
