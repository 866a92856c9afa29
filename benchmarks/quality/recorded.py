"""A bench that answers from a model of real evaluations: for repeats that would take days.

The model is fitted to everything a `Lab` has tuned on one net, and its cross-validated errors are
published beside every figure that rests on it. Regressors of several kinds compete for each figure,
with the sensitivity table's divergences among the inputs and without. Prediction errors are drawn
from the cross-validated residuals of measured plans of similar divergence, for all figures of a
plan at once: what our sampler learns from (divergences) is as uncertain as what the others learn
from (accuracy). Searches select the luckiest plans, so hypervolumes are higher than in reality;
such a bench can only compare the order of searches.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from autocompress.measurement import Measurement
from autocompress.plan import CompressionPlan
from autocompress.space.option_table import Figures, OptionTable
from autocompress.space.prediction import Predictor
from quality.nets import Lab

_FOLDS = 10
_LEAST_DIVERGENCE = 1e-4
_NEIGHBOURS = 20  # plans whose residuals are drawn from
_MODELS: dict[str, Callable[[], RegressorMixin]] = {
    "ridge": lambda: make_pipeline(StandardScaler(), RidgeCV(np.geomspace(1e-2, 1e4, 13))),
    "trees": lambda: ExtraTreesRegressor(400, min_samples_leaf=2, random_state=0),
    "process": lambda: make_pipeline(
        StandardScaler(),
        GaussianProcessRegressor(ConstantKernel() * RBF(10.0) + WhiteKernel(0.1), normalize_y=True),
    ),
}


class RecordedBench:
    """Stands in for a `Lab`.

    Args:
        lab: Its recorded evaluations are what is modelled; nothing new is measured.
        table: Its sensitivity table.
    """

    def __init__(self, lab: Lab, table: OptionTable) -> None:
        self.space = lab.space
        self.n_shortlisted = lab.n_shortlisted
        self._lab = lab
        self._predictor = Predictor(lab.space, table)
        records = lab.tuned()
        levels = np.array([self._levels(plan) for plan, _ in records])
        plans = [plan.effective.digest for plan, _ in records]
        measured = [m for _, m in records]
        sizes = np.array([m.size_bytes for m in measured])
        targets = {
            "accuracy": np.array([m.accuracy for m in measured]),
            "log_divergence": np.log([max(m.divergence, _LEAST_DIVERGENCE) for m in measured]),
            "log_untuned": np.log([max(m.untuned_divergence, _LEAST_DIVERGENCE) for m in measured]),
            "log_size": np.log(sizes / self._predictor.size_bytes(levels)),
        }
        self.errors: dict[str, dict[str, object]] = {}
        self._models: dict[str, tuple[str, RegressorMixin]] = {}
        self._residuals: dict[str, np.ndarray] = {}
        self._divergence = targets["log_divergence"]
        for name, y in targets.items():
            self._fit(name, levels, y, plans)
        self._seconds = float(np.median([m.seconds for m in measured]))
        probed = [v["seconds"] for k, v in lab.recorded().items() if k.startswith("probe:")]
        self._probe_s = float(np.median(probed)) if probed else 0.0

    def evaluate(self, plan: CompressionPlan, seed: int, fidelity: int = 1) -> Measurement:
        """Predicted figures plus residuals, drawn by plan and seed."""
        if plan.effective == CompressionPlan() or fidelity == 0:
            return self._lab.evaluate(plan, seed, fidelity)
        found = self._predicted(plan, seed)
        size = float(self._predictor.size_bytes(np.array([self._levels(plan)]))[0])
        return Measurement(
            fidelity=1,
            accuracy=float(np.clip(found["accuracy"], 0.0, 1.0)),
            loss=0.0,
            size_bytes=int(size * np.exp(found["log_size"])),
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
        """Predicted divergence and size before fine-tuning, and the time of a real probe."""
        result = self.evaluate(plan, 0)
        figures = Figures(divergence=result.untuned_divergence, size_bytes=result.size_bytes)
        return figures, self._probe_s

    def write_errors(self, path: Path) -> None:
        """Cross-validated errors of the models, by figure."""
        path.write_text(json.dumps(self.errors, indent=2) + "\n")

    def _predicted(self, plan: CompressionPlan, seed: int) -> dict[str, float]:
        """Figures of a plan; those of a probe do not depend on the seed, the others do."""
        levels = np.array([self._levels(plan)])
        found = {
            name: float(model.predict(self._features(levels, kind))[0])
            for name, (kind, model) in self._models.items()
        }
        distance = np.abs(self._divergence - found["log_divergence"])
        alike = np.argsort(distance, kind="stable")[:_NEIGHBOURS]
        number = int(plan.effective.digest[:8], 16)
        row = int(np.random.default_rng([number, seed]).choice(alike))
        looked = int(np.random.default_rng(number).choice(alike))
        for name, residuals in self._residuals.items():
            found[name] += residuals[looked if name == "log_untuned" else row]
        return found

    def _fit(self, name: str, levels: np.ndarray, y: np.ndarray, plans: list[str]) -> None:
        """Fit what predicts plans best that it has not seen, whatever their seed."""
        folds, predicted = GroupKFold(_FOLDS), {}
        for inputs in ("table", "levels"):
            features = self._features(levels, inputs)
            for kind, make in _MODELS.items():
                predicted[inputs, kind] = cross_val_predict(
                    make(), features, y, cv=folds, groups=plans
                )
        rmse = {key: float(np.sqrt(np.mean((p - y) ** 2))) for key, p in predicted.items()}
        inputs, kind = min(rmse, key=rmse.__getitem__)
        self._residuals[name] = y - predicted[inputs, kind]
        self.errors[name] = {
            "n": len(y),
            "model": f"{kind} on {inputs}",
            "rmse": {" on ".join(reversed(key)): error for key, error in rmse.items()},
            "median_error": float(np.median(np.abs(self._residuals[name]))),
            "spread": float(y.std()),
        }
        model = _MODELS[kind]().fit(self._features(levels, inputs), y)
        self._models[name] = (inputs, model)

    def _features(self, levels: np.ndarray, kind: str) -> np.ndarray:
        counts = [len(knob.levels) for knob in self.space.knobs]
        share = levels / np.maximum(np.array(counts) - 1, 1)
        if kind == "levels":
            chosen = [np.eye(n)[levels[:, k]] for k, n in enumerate(counts)]
            return np.concatenate([share, *chosen], axis=1)
        harms = self._predictor.divergences(levels) ** 0.5
        total = np.log(np.maximum(harms.sum(axis=1, keepdims=True), 1e-4))
        return np.concatenate([total, harms, share], axis=1)

    def _levels(self, plan: CompressionPlan) -> list[int]:
        levels = self.space.encode(plan)
        return [levels[knob.name] for knob in self.space.knobs]
