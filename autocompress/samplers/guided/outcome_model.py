"""What is believed about plans nobody has tuned: accuracy, bytes and time, from table and trials.

Dimension key: `N` measured plans, `M` plans to judge, `K` knobs, `C` costs.
"""

import dataclasses
from typing import Final

import numpy as np
import scipy  # its parts are loaded when they are used, by the first proposal

from autocompress.objective import LATENCY
from autocompress.samplers.guided.gaussian_process import Features, GaussianProcess
from autocompress.space.prediction import Predictor
from autocompress.space.search_space import SearchSpace
from autocompress.space.sensitivity_table import Array, Levels

_POWERS = (0.35, 0.6, 1.0)
_LEAST_DIVERGENCE = 1e-5  # nats; below it outputs are the same for every purpose
_KNOB_SHARE = 0.7
# What a divergence costs as long as no trial says so: accuracy falls as exp(-divergence / 14), as
# it did, within a factor of two, in one run each of digits and a CIFAR-10 ResNet-20. Without it
# nothing would be known of the accuracy beyond the largest divergence of a trial.
_USUAL: Array = np.geomspace(0.01, 10.0, 10)
_USUAL_LOSS = 14.0
_USUAL_DOUBT = 0.2  # of a cost's logarithm, before trials have shown how far the table errs
_DOUBTED = 0.1  # what each of these counts beside a trial
MAX_PROBES: Final = 200
"""How many probes are learned from: time grows with the cube."""
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(7)
NODE_WEIGHTS: Array = _WEIGHTS / _WEIGHTS.sum()
"""Probabilities of the accuracies that `OutcomeModel.accuracy` returns."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Tuned trials as arrays.

    Attributes:
        levels: (N, K) level indices.
        accuracy: On the validation split; (N,).
        divergence: After tuning, on the validation split; (N,), nats.
        untuned: Training-free score; (N,), nats, NaN where it was not taken.
        costs: Log of each cost objective over the original model's; (N, C).
    """

    levels: Levels
    accuracy: Array
    divergence: Array
    untuned: Array
    costs: Array


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """Plans that were probed without training, tuned later or not.

    Attributes:
        levels: (L, K) level indices, oldest first.
        untuned: Training-free score; (L,), nats, NaN for what cannot be built.
        costs: Log of each cost over the original model's; (L, C), NaN likewise, and where a probe
            does not take it.
    """

    levels: Levels
    untuned: Array
    costs: Array

    def joined(self, newer: "Probes") -> "Probes":
        """These and newer ones."""
        return Probes(
            levels=np.concatenate([self.levels, newer.levels]),
            untuned=np.concatenate([self.untuned, newer.untuned]),
            costs=np.concatenate([self.costs, newer.costs]),
        )


def no_probes(space: SearchSpace, n_costs: int) -> Probes:
    """None, at plans of a space."""
    nothing = np.empty((0, len(space.knobs)), dtype=np.int64)
    return Probes(levels=nothing, untuned=np.empty(0), costs=np.empty((0, n_costs)))


class OutcomeModel:
    """Predictions for one proposal.

    Accuracy saturates and jumps by whole examples; the divergence from the base model does neither.
    So the divergence after tuning is predicted (in logarithms), and accuracy read off a falling
    piecewise linear function fitted to all trials (isotonic regression).

    Once plans were probed that were not tuned, it is predicted in two steps: the training-free
    score from probes and trials, and from it what tuning makes of it, from trials alone (a cheap
    and an expensive fidelity of one quantity; Kennedy & O'Hagan 2000).

    Args:
        space: The knobs.
        predictor: What the sensitivity table says; None to know nothing before the first trial.
        history: Tuned trials, without the baseline.
        baseline_accuracy: Accuracy of the original model.
        costs: Fields of `Measurement` that are minimised.
        is_learning: Whether residuals of the prior are learned; False fits only the scale of
            the table's word.
    """

    def __init__(
        self,
        space: SearchSpace,
        predictor: Predictor | None,
        history: History,
        *,
        baseline_accuracy: float,
        costs: tuple[str, ...],
        is_learning: bool = True,
    ) -> None:
        self._space = space
        self._predictor = predictor
        self._costs = costs
        self._is_learning = is_learning
        self._n_levels = np.array([max(len(knob.levels) - 1, 1) for knob in space.knobs])
        kinds = sorted({knob.kind for knob in space.knobs})
        self._kind_of = np.array([[knob.kind == kind for kind in kinds] for knob in space.knobs])
        self._history = history
        self._log_divergence = _log(history.divergence)
        best = max(baseline_accuracy, history.accuracy.max(initial=0.0))
        self._link = _falling(
            np.concatenate([self._log_divergence, [np.log(_LEAST_DIVERGENCE)], np.log(_USUAL)]),
            np.concatenate([history.accuracy, [best], best * np.exp(-_USUAL / _USUAL_LOSS)]),
            np.concatenate([np.ones(len(history.accuracy) + 1), np.full(len(_USUAL), _DOUBTED)]),
        )
        self._powers = _POWERS if predictor is not None and is_learning else (1.0,)
        self.power, self._tuned = self._fitted(history.levels, self._log_divergence)
        self._tuning = self._fit_tuning()
        self._untuned: tuple[float, GaussianProcess] | None = None
        self._cost_models = [self._fit_cost(c) for c in range(len(costs))]

    def learn(self, probes: Probes) -> None:
        """Take in probes, in place of those taken in before.

        Args:
            probes: Of those at plans that were not tuned, up to 200 of the newest count.
        """
        tuned = {row.tobytes() for row in self._history.levels}
        newest = {row.tobytes(): i for i, row in enumerate(probes.levels)}
        only = sorted(
            i for row, i in newest.items() if row not in tuned and np.isfinite(probes.untuned[i])
        )[-MAX_PROBES:]
        if not only or not self._is_learning:
            return
        levels, untuned = probes.levels[only], probes.untuned[only]
        known = np.isfinite(self._history.untuned)
        if self._tuning is not None:
            self._untuned = self._fitted(
                np.concatenate([self._history.levels[known], levels]),
                _log(np.concatenate([self._history.untuned[known], untuned])),
            )
        for c in range(len(self._costs)):
            found = probes.costs[only, c]
            taken = np.isfinite(found)
            self._cost_models[c] = self._fit_cost(c, levels[taken], found[taken])

    def accuracy(self, levels: Levels, untuned: Array | None = None) -> Array:
        """Accuracies that plans may come out with after tuning, weighted by `NODE_WEIGHTS`.

        Args:
            levels: (M, K) level indices.
            untuned: Their training-free scores, if they were taken; (M,), nats.

        Returns:
            (M, 7).
        """
        mean, deviation = self._log_divergences(levels, untuned)
        nodes = mean[:, None] + deviation[:, None] * _NODES
        return np.interp(nodes, *self._link)

    def denoised(self, history: History) -> Array:
        """The accuracies that the divergences of tuned trials promise; (N,)."""
        return np.asarray(np.interp(_log(history.divergence), *self._link))

    def with_expected(self, levels: Levels) -> History:
        """The trials and those under way, as if these had come out as predicted.

        What is learned from that is no expectation but less doubt about plans near them.

        Args:
            levels: Of the trials under way; (R, K).
        """
        past = self._history
        divergence = self.divergence(levels)
        accuracy = np.interp(_log(divergence), *self._link)
        return History(
            levels=np.concatenate([past.levels, levels]),
            accuracy=np.concatenate([past.accuracy, accuracy]),
            divergence=np.concatenate([past.divergence, divergence]),
            untuned=np.concatenate([past.untuned, np.full(len(levels), np.nan)]),
            costs=np.concatenate([past.costs, self.costs(levels)]),
        )

    def divergence(self, levels: Levels) -> Array:
        """Expected divergence after tuning; (M, K) level indices -> (M,), nats."""
        return np.exp(self._log_divergences(levels)[0])

    def _log_divergences(self, levels: Levels, untuned: Array | None = None) -> tuple[Array, Array]:
        """Mean and standard deviation of the log of the divergence after tuning; (M,) each."""
        if self._tuning is not None and untuned is not None:
            return self._tuning.predict(self._features(levels, self.power, untuned))
        if self._tuning is None or self._untuned is None:
            return self._tuned.predict(self._features(levels, self.power))
        power, of_looks = self._untuned
        before, doubt = of_looks.predict(self._features(levels, power))
        mean, deviation = self._tuning.predict(self._features(levels, self.power, np.exp(before)))
        return mean, np.hypot(deviation, doubt)

    def costs(self, levels: Levels) -> Array:
        """Expected log of each cost over the original model's; (M, K) -> (M, C)."""
        return self.costs_and_doubts(levels)[0]

    def costs_and_doubts(self, levels: Levels) -> tuple[Array, Array]:
        """What `costs` returns, and its standard deviations, 0 but for latency; (M, C) each.

        Bytes follow from codes, and those of the likeliest plans are measured; how fast a runtime
        is at a structure that it was not timed at is anybody's guess.
        """
        means, doubts = [], []
        for c, model in enumerate(self._cost_models):
            features = self._cost_features(levels, c)
            if model is None:
                means.append(features.prior)
                doubts.append(np.full(len(levels), _USUAL_DOUBT if self._is_learning else 0.0))
            else:
                mean, doubt = model.predict(features)
                means.append(mean)
                doubts.append(doubt)
        is_noisy = np.array([field == LATENCY.field for field in self._costs])
        return np.stack(means, axis=1), np.stack(doubts, axis=1) * is_noisy

    def _fitted(self, levels: Levels, targets: Array) -> tuple[float, GaussianProcess]:
        """The likeliest power of single divergences, and the process on what it gets wrong."""
        fitted = [
            (power, GaussianProcess(self._features(levels, power), targets))
            for power in self._powers
        ]
        return max(fitted, key=lambda pair: pair[1].log_likelihood)

    def _fit_tuning(self) -> GaussianProcess | None:
        """What tuning makes of a training-free score; None before three trials have shown it."""
        known = np.isfinite(self._history.untuned)
        if known.sum() < 3 or not self._is_learning:
            return None
        features = self._features(
            self._history.levels[known], self.power, self._history.untuned[known]
        )
        return GaussianProcess(features, self._log_divergence[known])

    def _fit_cost(
        self, c: int, probed: Levels | None = None, log_costs: Array | None = None
    ) -> GaussianProcess | None:
        """The process on what the table gets wrong of a cost, from trials and probes."""
        levels, costs = self._history.levels, self._history.costs[:, c]
        if probed is not None and log_costs is not None:
            levels, costs = np.concatenate([levels, probed]), np.concatenate([costs, log_costs])
        is_told = self._predictor is not None and (
            self._predictor.log_cost(self._costs[c], levels) is not None
        )
        if len(levels) == 0 or (is_told and not self._is_learning):
            return None
        return GaussianProcess(self._cost_features(levels, c), costs)

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
            prior = _log(untuned)
        if not self._is_learning:
            empty = np.zeros((len(levels), 0))
            return Features(prior=prior, linear=empty, position=empty)
        linear = np.concatenate([shares @ self._kind_of, _KNOB_SHARE * shares], axis=1)
        return Features(prior=prior, linear=linear, position=position)

    def _cost_features(self, levels: Levels, c: int) -> Features:
        position = levels / self._n_levels
        told = None if self._predictor is None else self._predictor.log_cost(self._costs[c], levels)
        prior = np.zeros(len(levels)) if told is None else told
        linear = np.concatenate([position @ self._kind_of, position], axis=1)
        return Features(prior=prior, linear=linear, position=position)


def _log(divergence: Array) -> Array:
    return np.asarray(np.log(np.maximum(divergence, _LEAST_DIVERGENCE)))


def _falling(x: Array, y: Array, weights: Array) -> tuple[Array, Array]:
    """Corners of the falling piecewise linear function nearest to points; ascending in x."""
    corners, index = np.unique(x, return_inverse=True)
    total = np.bincount(index, weights=weights)
    means = np.bincount(index, weights=weights * y) / total
    return corners, scipy.optimize.isotonic_regression(means, weights=total, increasing=False).x
