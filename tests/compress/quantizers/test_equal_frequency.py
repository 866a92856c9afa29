import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.compress.quantizers.equal_frequency import EqualFrequencyQuantizer, bin_means
from autocompress.compress.quantizers.registry import parse_granularity


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 100))
@settings(deadline=None, max_examples=40)
def test_bins_hold_equally_many_values(n_values, n_bins, seed):
    values = torch.randn(n_values, generator=torch.Generator().manual_seed(seed)).double()
    means = bin_means(values, n_bins)
    assert means.shape == (n_bins,)
    assert (means.diff() >= 0).all()
    if n_values % n_bins == 0:
        expected = values.sort().values.reshape(n_bins, -1).mean(1)
        torch.testing.assert_close(means, expected)
    if n_values <= n_bins:
        assert set(means.tolist()) == set(values.tolist())


def test_bins_by_hand():
    assert bin_means(torch.tensor([9.0, 1.0, 3.0, 7.0]), 2).tolist() == [2.0, 8.0]


def test_entries_are_bin_means_of_the_weights_that_are_kept():
    weight = torch.randn(4, 16)
    mask = torch.rand(4, 16) > 0.5
    quantizer = EqualFrequencyQuantizer(weight, 2, parse_granularity("tensor"), 0, mask)
    torch.testing.assert_close(quantizer.codebook.detach(), bin_means(weight[mask], 3).float())


def test_channel_granularity_does_not_see_the_scale_of_channels():
    weight = torch.randn(4, 16)
    factors = torch.tensor([1.0, 4.0, 0.25, 8.0])[:, None]
    plain, scaled = (
        EqualFrequencyQuantizer(w, 3, parse_granularity("channel"), 0)(w).detach().numpy()
        for w in (weight, weight * factors)
    )
    np.testing.assert_allclose(plain * factors.numpy(), scaled, rtol=1e-5)
