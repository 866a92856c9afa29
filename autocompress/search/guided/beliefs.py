"""What is believed about plans nobody has tuned: accuracy, bytes and time, from table and trials.

Dimension key: `N` measured plans, `M` plans to judge, `K` knobs, `C` costs.
"""

import dataclasses

import numpy as np
from scipy.optimize import isotonic_regression

from autocompress.search.guided.surrogate import Features, Surrogate
from autocompress.space.prediction import Array, Levels, Predictor
from autocompress.space.search_space import SearchSpace

_POWERS = (0.35, 0.6, 1.0)
_LEAST_DIVERGENCE = 1e-5  # nats; below it outputs are the same for every purpose
_KNOB_SHARE = 0.7
_MAX_LOOKS = 200  # what is learned from costs time that grows with the cube
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(7)
NODE_WEIGHTS: Array = _WEIGHTS / _WEIGHTS.sum()
"""Probabilities of the accuracies that `Beliefs.accuracy` returns."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Tuned trials as arrays.

    Attributes:
        levels: (N, K) level indices.
        accuracy: On the validation split; (N,).
        divergence: After tuning, on the validation split; (N,), nats.
        untuned: Training-free score; (N,), nats, NaN where it was not taken.
        costs: Log of each cost objective over the untouched model's; (N, C).
    """

    levels: Levels
    accuracy: Array
    divergence: Array
    untuned: Array
    costs: Array


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """Plans that were looked at without training, tuned later or not.

    Attributes:
        levels: (L, K) level indices, oldest first.
        untuned: Training-free score; (L,), nats.
    """

    levels: Levels
    untuned: Array


class Beliefs:
    """Predictions for one proposal.

    Accuracy saturates and jumps by whole examples; the divergence from the base model does neither.
    So the divergence after tuning is predicted (in logarithms), and accuracy read off a falling
    piecewise linear function fitted to all trials (isotonic regression).

    A plan that was only looked at counts as a trial that came out as its training-free score
    promises, with the uncertainty of that promise: a cheap and an expensive fidelity of one
    quantity (Kennedy & O'Hagan 2000).

    Args:
        space: The knobs.
        predictor: What the option table says; None to know nothing before the first trial.
        history: Tuned trials, without the baseline.
        looks: Plans that were looked at.
        baseline_accuracy: Accuracy of the untouched model.
        is_latency: For each cost, whether it is the latency (else the size).
        is_learning: Whether residuals of the prior are learned; False fits only the scale of
            the table's word.
    """

    def __init__(
        self,
        space: SearchSpace,
        predictor: Predictor | None,
        history: History,
        looks: Looks | None = None,
        *,
        baseline_accuracy: float,
        is_latency: tuple[bool, ...],
        is_learning: bool = True,
    ) -> None:
        self._space = space
        self._predictor = predictor
        self._is_latency = is_latency
        self._is_learning = is_learning
        self._n_levels = np.array([max(len(knob.levels) - 1, 1) for knob in space.knobs])
        kinds = sorted({knob.kind for knob in space.knobs})
        self._kind_of = np.array([[knob.kind == kind for kind in kinds] for knob in space.knobs])
        self._history = history
        self._log_divergence = np.log(np.maximum(history.divergence, _LEAST_DIVERGENCE))
        self._link = _falling(
            np.append(self._log_divergence, np.log(_LEAST_DIVERGENCE)),
            np.append(history.accuracy, max(baseline_accuracy, history.accuracy.max(initial=0.0))),
        )
        powers = _POWERS if predictor is not None and is_learning else (1.0,)
        fitted = [self._fit(power) for power in powers]
        self.power, self._tuned = max(fitted, key=lambda pair: pair[1].log_likelihood)
        self._cost_models = [self._fit_cost(c) for c in range(len(is_latency))]
        self._screened = self._fit_screened()
        if looks is not None and self._screened is not None:
            self._learn(self._screened, looks)

    def accuracy(self, levels: Levels, untuned: Array | None = None) -> Array:
        """Accuracies that plans may come out with after tuning, weighted by `NODE_WEIGHTS`.

        Args:
            levels: (M, K) level indices.
            untuned: Their training-free scores, if they were taken; (M,), nats.

        Returns:
            (M, 7).
        """
        if untuned is not None and self._screened is not None:
            mean, deviation = self._screened.predict(self._features(levels, self.power, untuned))
        else:
            mean, deviation = self._tuned.predict(self._features(levels, self.power))
        nodes = mean[:, None] + deviation[:, None] * _NODES
        return np.interp(nodes, *self._link)

    def divergence(self, levels: Levels) -> Array:
        """Expected divergence after tuning; (M, K) level indices -> (M,), nats."""
        return np.exp(self._tuned.predict(self._features(levels, self.power))[0])

    def costs(self, levels: Levels) -> Array:
        """Expected log of each cost over the untouched model's; (M, K) -> (M, C)."""
        columns = []
        for c, model in enumerate(self._cost_models):
            features = self._cost_features(levels, c)
            columns.append(features.prior if model is None else model.predict(features)[0])
        return np.stack(columns, axis=1)

    def _fit(self, power: float) -> tuple[float, Surrogate]:
        features = self._features(self._history.levels, power)
        if not self._is_learning:  # only where the scale of the table's word lies is fitted
            none = Features(
                prior=features.prior,
                linear=np.zeros((len(features.prior), 0)),
                position=np.zeros((len(features.prior), 0)),
            )
            return power, Surrogate(none, self._log_divergence)
        return power, Surrogate(features, self._log_divergence)

    def _fit_screened(self) -> Surrogate | None:
        known = np.isfinite(self._history.untuned)
        if known.sum() < 3 or not self._is_learning:
            return None
        features = self._features(
            self._history.levels[known], self.power, self._history.untuned[known]
        )
        return Surrogate(features, self._log_divergence[known])

    def _learn(self, screened: Surrogate, looks: Looks) -> None:
        """Fit again, with plans that were looked at and not tuned."""
        tuned = {row.tobytes() for row in self._history.levels}
        found = {row.tobytes(): i for i, row in enumerate(looks.levels)}
        only = [i for row, i in found.items() if row not in tuned][-_MAX_LOOKS:]
        if not only:
            return
        levels, untuned = looks.levels[only], looks.untuned[only]
        promised, deviation = screened.predict(self._features(levels, self.power, untuned))
        self._tuned = Surrogate(
            self._features(np.concatenate([self._history.levels, levels]), self.power),
            np.concatenate([self._log_divergence, promised]),
            np.concatenate([np.zeros(len(self._log_divergence)), deviation]),
        )

    def _fit_cost(self, c: int) -> Surrogate | None:
        if len(self._history.levels) == 0 or (
            self._predictor is not None and not self._is_learning
        ):
            return None
        features = self._cost_features(self._history.levels, c)
        return Surrogate(features, self._history.costs[:, c])

    def _features(self, levels: Levels, power: float, untuned: Array | None = None) -> Features:
        position = levels / self._n_levels
        if self._predictor is None:
            prior = np.zeros(len(levels))
            shares = position
        else:
            harms = self._predictor.divergences(levels) ** power
            total = np.maximum(harms.sum(axis=1), _LEAST_DIVERGENCE**power)
            prior = np.log(total) / power
            shares = harms / total[:, None]
        if untuned is not None:
            prior = np.log(np.maximum(untuned, _LEAST_DIVERGENCE))
        if not self._is_learning:
            empty = np.zeros((len(levels), 0))
            return Features(prior=prior, linear=empty, position=empty)
        linear = np.concatenate([shares @ self._kind_of, _KNOB_SHARE * shares], axis=1)
        return Features(prior=prior, linear=linear, position=position)

    def _cost_features(self, levels: Levels, c: int) -> Features:
        position = levels / self._n_levels
        if self._predictor is None:
            prior = np.zeros(len(levels))
        elif self._is_latency[c]:
            prior = np.log(self._predictor.latency_ratio(levels))
        else:
            base = float(self._predictor.table.baseline.size_bytes or 1)
            prior = np.log(np.maximum(self._predictor.size_bytes(levels), 1.0) / base)
        linear = np.concatenate([position @ self._kind_of, position], axis=1)
        return Features(prior=prior, linear=linear, position=position)


def _falling(x: Array, y: Array) -> tuple[Array, Array]:
    """Corners of the falling piecewise linear function nearest to points; ascending in x."""
    corners, index, counts = np.unique(x, return_inverse=True, return_counts=True)
    means = np.bincount(index, weights=y) / counts
    return corners, isotonic_regression(means, weights=counts, increasing=False).x
