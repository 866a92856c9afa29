import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from autocompress.compress.quantizers.kmeans import KMeansQuantizer, fit_kmeans, lloyd, sort_points
from autocompress.compress.quantizers.registry import parse_granularity
from autocompress.compress.quantizers.uniform import UniformQuantizer


@given(st.integers(2, 16), st.integers(0, 500))
@settings(deadline=None, max_examples=25)
def test_lloyd_matches_scikit_learn_from_the_same_start(size, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(200, generator=generator, dtype=torch.float64)
    importance = torch.rand(200, generator=generator, dtype=torch.float64) + 0.1
    start = values[torch.randperm(200, generator=generator)[:size]].sort().values
    entries, error = lloyd(sort_points(values, importance), start)
    reference = KMeans(size, init=start[:, None].numpy(), n_init=1, max_iter=100, tol=0.0)
    reference.fit(values[:, None].numpy(), sample_weight=importance.numpy())
    expected = torch.from_numpy(reference.cluster_centers_[:, 0]).sort().values
    torch.testing.assert_close(entries, expected)
    assert error == pytest.approx(reference.inertia_)


def test_lloyd_by_hand():
    values = torch.tensor([0.0, 1.0, 10.0, 12.0])
    points = sort_points(values, torch.tensor([1.0, 1.0, 1.0, 3.0]))
    entries, error = lloyd(points, torch.tensor([0.0, 9.0]))
    assert entries.tolist() == [0.5, 11.5]
    assert error == pytest.approx(0.5 + 1.5**2 + 3 * 0.5**2)


def test_lloyd_leaves_empty_clusters_and_the_pinned_zero_where_they_are():
    points = sort_points(torch.tensor([5.0, 1.2, 1.0]), torch.ones(3))
    start = torch.tensor([-9.0, 0.0, 4.0])
    entries, _ = lloyd(points, start, zero_index=1)
    assert entries.tolist() == [-9.0, 0.0, 5.0]
    entries, _ = lloyd(points, start)
    assert entries.tolist() == pytest.approx([-9.0, 1.1, 5.0])


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@given(st.sampled_from([1, 1.58, 2, 3, 4, 5, 6, 7, 8]), st.integers(0, 200), st.booleans())
@settings(deadline=None, max_examples=25)
def test_error_is_never_above_the_uniform_grid_s(granularity, bits, seed, is_masked):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(4, 30, generator=generator) * torch.rand(4, 1, generator=generator)
    mask = torch.rand(4, 30, generator=generator) > 0.5 if is_masked else None
    target = weight if mask is None else weight * mask
    shared = parse_granularity(granularity)
    errors = [
        (make(weight, bits, shared, 0, mask)(weight, mask) - target).square().sum().item()
        for make in (KMeansQuantizer, UniformQuantizer)
    ]
    assert errors[0] <= errors[1] * (1 + 1e-4) + 1e-12


def test_few_distinct_weights_are_kept_exactly():
    weight = torch.tensor([-2.0, 0.1, 0.3, 7.0]).repeat(30).reshape(6, 20)
    quantizer = KMeansQuantizer(weight, 2, parse_granularity("tensor"), 0)
    torch.testing.assert_close(quantizer(weight).detach(), weight)


def test_tensor_granularity_stores_no_scale():
    weight = torch.randn(6, 20)
    quantizer = KMeansQuantizer(weight, 3, parse_granularity("tensor"), 0)
    assert [name for name, _ in quantizer.named_parameters()] == ["codebook"]
    assert quantizer.freeze(weight).scale.tolist() == [1.0] * 6


def test_masked_zero_stays_in_the_codebook_through_training():
    weight, mask = torch.randn(6, 20), torch.rand(6, 20) > 0.5
    quantizer = KMeansQuantizer(weight, 2, parse_granularity("channel"), 0, mask)
    assert len(quantizer.codebook) == 3
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=0.1)
    for _ in range(10):
        (quantizer(weight, mask) - 3.0).square().mean().backward()
        optimizer.step()
    assert 0.0 in quantizer.freeze(weight, mask).codebook
    assert (quantizer(weight, mask)[~mask] == 0).all()


def test_fit_survives_a_mask_that_keeps_nothing():
    entries, scale = fit_kmeans(
        torch.zeros(2, 5),
        torch.zeros(2, 5, dtype=torch.bool),
        3,
        pins_zero=True,
        has_scales=True,
    )
    assert len(entries) == 8
    assert (scale > 0).all()
