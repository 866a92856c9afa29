"""What finished trials teach about plans: a Gaussian process on the residual of a prior.

The prior carries most of what is known before the first trial, so the process only has to learn
where it errs: which kinds of damage tuning repairs, which layers matter more than their option
said, and what neighbours of measured plans did (Rasmussen & Williams 2006, chapter 2).

Dimension key: `N` measured plans, `M` plans to predict, `F` linear features, `K` knobs.
"""

import dataclasses
import itertools

import numpy as np
import scipy  # its parts are loaded when they are used, by the first proposal
from numpy.typing import NDArray

from autocompress.space.sensitivity_table import Array

_MAX_FOR_CHOICE = 200  # hyperparameters are chosen on so many: their cost grows with the cube
_JITTER = 1e-8


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What the surrogate sees of plans.

    Attributes:
        prior: Predicted target; (N,).
        linear: Features whose effect is linear; (N, F).
        position: Where a plan lies among its neighbours; each knob's level in [0, 1]; (N, K).
    """

    prior: Array
    linear: Array
    position: Array

    def __getitem__(self, index: NDArray[np.int64]) -> "Features":
        """Some of the plans."""
        return Features(
            prior=self.prior[index],
            linear=self.linear[index],
            position=self.position[index],
        )


class GaussianProcess:
    """A fitted process; without data it is the prior with unit uncertainty.

    The kernel sums a constant, the prior itself (its slope may be wrong), the linear features, a
    squared exponential of the positions, and noise. Its scales are chosen from a small grid by the
    marginal likelihood.

    Args:
        features: Of measured plans.
        targets: What came out; (N,).
    """

    def __init__(self, features: Features, targets: Array) -> None:
        self._features = features
        residual = targets - features.prior
        self._offset = float(np.median(residual)) if len(residual) else 0.0
        centred = residual - self._offset
        spread = float(np.sqrt(np.mean(centred**2))) if len(residual) else 1.0
        self._scale = max(spread, 1e-6)
        self._center = float(features.prior.mean()) if len(residual) else 0.0
        n_knobs = features.position.shape[1]
        self._length = 0.5 * max(np.sqrt(n_knobs), 1.0)
        self.log_likelihood = 0.0
        self._noise, self._local, self._slope = 0.3, 0.3, 0.3
        if len(residual):
            self._fit(centred / self._scale)

    def _fit(self, values: Array) -> None:
        chosen = np.linspace(0, len(values) - 1, min(len(values), _MAX_FOR_CHOICE)).astype(int)
        some = self._features[chosen]
        parts = self._parts(some, some)
        best = -np.inf
        for slope, local, noise in itertools.product((0.1, 0.5), (0.1, 0.4, 1.0), (0.1, 0.3, 0.6)):
            kernel = self._sum(parts, slope, local)
            kernel[np.diag_indices_from(kernel)] += noise**2 + _JITTER
            factor = np.linalg.cholesky(kernel)
            solved = scipy.linalg.solve_triangular(factor, values[chosen], lower=True)
            likelihood = -0.5 * float(solved @ solved) - float(np.log(np.diag(factor)).sum())
            if likelihood > best:
                best, self._slope, self._local, self._noise = likelihood, slope, local, noise
        # on the scale of the targets, so that other priors can be compared
        self.log_likelihood = best - len(chosen) * float(np.log(self._scale))
        kernel = self._sum(self._parts(self._features, self._features), self._slope, self._local)
        kernel[np.diag_indices_from(kernel)] += self._noise**2 + _JITTER
        self._factor = np.linalg.cholesky(kernel)
        self._weights = scipy.linalg.cho_solve((self._factor, True), values)

    def predict(self, features: Features) -> tuple[Array, Array]:
        """Mean and standard deviation of targets, noise included; (M,) each."""
        if not hasattr(self, "_weights"):
            return features.prior, np.ones(len(features.prior))
        parts = self._parts(features, self._features)
        cross = self._sum(parts, self._slope, self._local)
        mean = features.prior + self._offset + self._scale * (cross @ self._weights)
        solved = scipy.linalg.solve_triangular(self._factor, cross.T, lower=True)
        prior_variance = self._variance(features)
        variance = np.maximum(prior_variance - (solved**2).sum(axis=0), 0.0) + self._noise**2
        return mean, self._scale * np.sqrt(variance)

    def _parts(self, a: Features, b: Features) -> tuple[Array, Array, Array]:
        slope = np.outer(a.prior - self._center, b.prior - self._center)
        linear = a.linear @ b.linear.T
        squared = (
            (a.position**2).sum(axis=1)[:, None]
            + (b.position**2).sum(axis=1)[None, :]
            - 2.0 * a.position @ b.position.T
        )
        local = np.exp(-np.maximum(squared, 0.0) / (2.0 * self._length**2))
        return slope, linear, local

    @staticmethod
    def _sum(parts: tuple[Array, Array, Array], slope: float, local: float) -> Array:
        return np.asarray(1.0 + slope**2 * parts[0] + parts[1] + local**2 * parts[2])

    def _variance(self, a: Features) -> Array:
        slope = self._slope**2 * (a.prior - self._center) ** 2
        linear = (a.linear**2).sum(axis=1)
        return np.asarray(1.0 + slope + linear + self._local**2)
