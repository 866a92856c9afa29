import math

import numpy as np
import pytest

from autocompress.packing.adaptive import N_LEVELS, N_SHAPES, PRIOR_TOTAL, Prior, fit_prior


@pytest.mark.parametrize("shape", range(N_SHAPES))
@pytest.mark.parametrize("level", [0, 17, N_LEVELS - 1])
@pytest.mark.parametrize(("low", "n_letters"), [(-128, 256), (-1, 2), (3, 40), (-90, 7), (0, 4096)])
def test_weights_are_positive_and_normalised(
    shape: int, level: int, low: int, n_letters: int
) -> None:
    weights = Prior(shape=shape, level=level).weights(low, n_letters)
    assert weights.shape == (n_letters,)
    assert weights.min() >= 1
    assert abs(int(weights.sum()) - PRIOR_TOTAL) <= 0.02 * PRIOR_TOTAL + n_letters


def test_gaussian_weights_follow_the_bell() -> None:
    level = 20  # ratio 1 - 7/256 from 0 to 1
    weights = Prior(shape=2, level=level).weights(-20, 41)
    sigma = math.sqrt(-0.5 / math.log(1 - 7 / 256))
    expected = np.exp(-0.5 * (np.arange(-20, 21) / sigma) ** 2)
    np.testing.assert_allclose(weights / weights.sum(), expected / expected.sum(), atol=2e-5)


def test_laplace_weights_fall_by_one_ratio() -> None:
    weights = Prior(shape=1, level=8).weights(-6, 13).astype(float)
    np.testing.assert_allclose(weights[7:] / weights[6:-1], 1 - 7 / 32, rtol=1e-3)


def test_weights_are_the_same_on_every_machine() -> None:
    assert Prior(shape=2, level=9).weights(-3, 7).tolist() == [
        42524, 120092, 223894, 275561, 223894, 120092, 42524,
    ]  # fmt: skip


@pytest.mark.parametrize("sigma", [0.6, 3.0, 30.0])
def test_fit_prior_finds_the_bell_that_drew_the_symbols(sigma: float) -> None:
    symbols = np.rint(np.random.default_rng(0).normal(size=50_000) * sigma).astype(int)
    low = int(symbols.min())
    counts = np.bincount(symbols - low)
    weights = fit_prior(low, counts).weights(low, len(counts))
    share = counts[counts > 0] / counts.sum()
    entropy = -(share * np.log2(share)).sum()
    cost = -(share * np.log2(weights[counts > 0] / weights.sum())).sum()
    assert entropy <= cost < 1.01 * entropy
