"""A bench that answers from a model of real evaluations: for repeats that would take days.

The model is fitted to everything a `Lab` has tuned on one net, and its cross-validated error is
published beside every figure that rests on it. Three regressors of different kinds compete for each
figure, so that none is favoured for being the sampler's own.
"""

import json
from pathlib import Path

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from autocompress.measurement import Measurement
from autocompress.plan import CompressionPlan
from autocompress.space.option_table import Figures, OptionTable
from autocompress.space.prediction import Predictor
from quality.nets import Lab

_FOLDS = 10
_LEAST_DIVERGENCE = 1e-4


class RecordedBench:
    """Stands in for a `Lab`.

    Args:
        lab: Its recorded evaluations are what is modelled; nothing new is measured.
        table: Its option table.
    """

    def __init__(self, lab: Lab, table: OptionTable) -> None:
        self.space = lab.space
        self.n_shortlisted = lab.n_shortlisted
        self._lab = lab
        self._predictor = Predictor(lab.space, table)
        records = lab.tuned()
        self._plans = {plan.effective.digest for plan, _ in records}
        levels = np.array([self._levels(plan) for plan, _ in records])
        measured = [m for _, m in records]
        features = self._features(levels)
        sizes = np.array([m.size_bytes for m in measured])
        targets = {
            "accuracy": np.array([m.accuracy for m in measured]),
            "log_divergence": np.log([max(m.divergence, _LEAST_DIVERGENCE) for m in measured]),
            "log_untuned": np.log([max(m.untuned_divergence, _LEAST_DIVERGENCE) for m in measured]),
            "log_size": np.log(sizes / self._predictor.size_bytes(levels)),
        }
        self.errors: dict[str, dict[str, object]] = {}
        self._models = {name: self._fit(name, features, y) for name, y in targets.items()}
        self._noise = self.errors["accuracy"]["noise"]
        self._seconds = float(np.median([m.seconds for m in measured]))
        probed = [v["seconds"] for k, v in lab.recorded().items() if k.startswith("probe:")]
        self._probe_s = float(np.median(probed)) if probed else 0.0

    def evaluate(self, plan: CompressionPlan, seed: int, fidelity: int = 1) -> Measurement:
        """Predicted figures, with the noise of training drawn for plan and seed."""
        if plan.effective == CompressionPlan() or fidelity == 0:
            return self._lab.evaluate(plan, seed, fidelity)
        levels = np.array([self._levels(plan)])
        found = {n: float(m.predict(self._features(levels))[0]) for n, m in self._models.items()}
        chance = np.random.default_rng([int(plan.effective.digest[:8], 16), seed])
        size = float(self._predictor.size_bytes(levels)[0]) * np.exp(found["log_size"])
        return Measurement(
            fidelity=1,
            accuracy=float(np.clip(found["accuracy"] + self._noise * chance.normal(), 0.0, 1.0)),
            loss=0.0,
            size_bytes=int(size),
            latency_ms=None,
            latency_spread_ms=None,
            baseline_latency_ms=None,
            macs=0,
            n_params=0,
            seconds=self._seconds,
            divergence=float(np.exp(found["log_divergence"])),
            untuned_divergence=float(np.exp(found["log_untuned"])),
        )

    def probe(self, plan: CompressionPlan) -> tuple[Figures, float]:
        """Predicted divergence and size before tuning, and what a real look takes."""
        result = self.evaluate(plan, 0)
        figures = Figures(divergence=result.untuned_divergence, size_bytes=result.size_bytes)
        return figures, self._probe_s

    def write_errors(self, path: Path) -> None:
        """Cross-validated errors of the models, by figure."""
        path.write_text(json.dumps(self.errors, indent=2) + "\n")

    def _fit(self, name: str, features: np.ndarray, y: np.ndarray) -> RegressorMixin:
        folds = KFold(_FOLDS, shuffle=True, random_state=0)
        candidates = {
            "ridge": make_pipeline(StandardScaler(), RidgeCV(np.geomspace(1e-2, 1e4, 13))),
            "trees": ExtraTreesRegressor(400, min_samples_leaf=2, random_state=0),
            "process": make_pipeline(
                StandardScaler(),
                GaussianProcessRegressor(
                    ConstantKernel() * RBF(10.0) + WhiteKernel(0.1), normalize_y=True
                ),
            ),
        }
        rmse, predicted = {}, {}
        for kind, model in candidates.items():
            predicted[kind] = cross_val_predict(model, features, y, cv=folds)
            rmse[kind] = float(np.sqrt(np.mean((predicted[kind] - y) ** 2)))
        best = min(rmse, key=rmse.__getitem__)
        error = np.abs(predicted[best] - y)
        self.errors[name] = {
            "n": len(y),
            "model": best,
            "rmse": rmse,
            "median_error": float(np.median(error)),
            "spread": float(y.std()),
            "noise": float(np.median(error)),
        }
        return candidates[best].fit(features, y)

    def _features(self, levels: np.ndarray) -> np.ndarray:
        harms = self._predictor.divergences(levels) ** 0.5
        share = levels / np.array([max(len(k.levels) - 1, 1) for k in self.space.knobs])
        total = np.log(np.maximum(harms.sum(axis=1, keepdims=True), 1e-4))
        return np.concatenate([total, harms, share], axis=1)

    def _levels(self, plan: CompressionPlan) -> list[int]:
        levels = self.space.encode(plan)
        return [levels[knob.name] for knob in self.space.knobs]
