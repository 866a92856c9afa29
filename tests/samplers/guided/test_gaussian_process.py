"""The process against scikit-learn's, and against what it must do with little data."""

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from autocompress.samplers.guided.gaussian_process import Features, GaussianProcess


def _features(n: int, n_knobs: int = 5, seed: int = 0) -> Features:
    random = np.random.default_rng(seed)
    return Features(
        prior=random.normal(0.0, 2.0, size=n),
        linear=random.normal(size=(n, 3)),
        position=random.uniform(size=(n, n_knobs)),
    )


def test_without_data_the_prior_is_predicted():
    some = _features(4)
    mean, deviation = GaussianProcess(some[np.arange(0)], np.empty(0)).predict(some)
    np.testing.assert_array_equal(mean, some.prior)
    np.testing.assert_array_equal(deviation, np.ones(4))


def test_prediction_equals_scikit_learns_with_the_same_kernel():
    known, asked = _features(30, seed=1), _features(10, seed=2)
    zero = np.zeros(30), np.zeros(10)
    # only position and constant: a kernel that scikit-learn can be given
    known = Features(prior=zero[0], linear=np.zeros((30, 1)), position=known.position)
    asked = Features(prior=zero[1], linear=np.zeros((10, 1)), position=asked.position)
    targets = np.sin(3 * known.position).sum(axis=1)
    surrogate = GaussianProcess(known, targets)
    offset = np.median(targets)
    scale = np.sqrt(np.mean((targets - offset) ** 2))
    kernel = (
        ConstantKernel(1.0, "fixed")
        + surrogate._local**2 * RBF(surrogate._length, "fixed")
        + WhiteKernel(surrogate._noise**2, "fixed")
    )
    reference = GaussianProcessRegressor(kernel, alpha=1e-8, optimizer=None)
    reference.fit(known.position, (targets - offset) / scale)
    expected, spread = reference.predict(asked.position, return_std=True)
    mean, deviation = surrogate.predict(asked)
    np.testing.assert_allclose(mean, offset + scale * expected, rtol=1e-6)
    np.testing.assert_allclose(deviation, scale * spread, rtol=1e-5)


def test_linear_features_that_the_prior_misses_are_learned():
    known, asked = _features(60, seed=3), _features(200, seed=4)
    weights = np.array([1.0, -2.0, 0.5])
    surrogate = GaussianProcess(known, known.prior + known.linear @ weights)
    mean, _ = surrogate.predict(asked)
    errors = mean - (asked.prior + asked.linear @ weights)
    assert np.abs(errors).mean() < 0.2 * np.abs(asked.linear @ weights).mean()


def test_uncertainty_is_small_at_data_and_large_far_from_it():
    known = _features(40, seed=5)
    surrogate = GaussianProcess(known, known.prior + known.linear[:, 0])
    far = Features(prior=known.prior + 50.0, linear=known.linear * 10, position=known.position + 3)
    assert surrogate.predict(known)[1].mean() < 0.5 * surrogate.predict(far)[1].mean()


def test_intervals_hold_what_they_promise():
    random = np.random.default_rng(6)
    known, asked = _features(80, seed=7), _features(400, seed=8)

    def truth(f: Features) -> np.ndarray:
        smooth = np.sin(2 * f.position[:, 0]) + f.linear[:, 1]
        return f.prior + smooth + 0.3 * random.normal(size=len(f.prior))

    mean, deviation = GaussianProcess(known, truth(known)).predict(asked)
    inside = np.abs(truth(asked) - mean) < 2.0 * deviation
    assert 0.85 < inside.mean() <= 1.0


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_handful_of_equal_targets_is_no_problem(n):
    known = _features(n)
    mean, deviation = GaussianProcess(known, known.prior.copy()).predict(known)
    np.testing.assert_allclose(mean, known.prior, atol=1e-4)
    assert np.isfinite(deviation).all()
