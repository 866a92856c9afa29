"""How well the sensitivity table predicts whole plans: additivity, checked against measurements."""

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping

import numpy as np

from autocompress.errors import TrialError
from autocompress.evaluate.sensitivity import ProbePlan, SensitivityCache, TablePlans
from autocompress.plan import CompressionPlan
from autocompress.space.prediction import Predictor
from autocompress.space.sensitivity_table import Figures


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WholePlan:
    """A plan with many options, beside what the table predicts for it.

    Attributes:
        label: What tables call it.
        est_divergence: Predicted, as are all that begin with `est_`.
        est_size_bytes: In bytes.
        est_latency_ratio: Time over the original model's; None if latency was not measured.
        figures: What was measured; None if it failed.
        reason: Why it failed, one line; None if it did not.
    """

    label: str
    est_divergence: float
    est_size_bytes: float
    est_latency_ratio: float | None
    figures: Figures | None
    reason: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PredictionError:
    """How far predictions lie from what was measured, over several plans.

    Attributes:
        median: Median of the errors.
        worst: The largest.
        n_plans: How many plans there were to compare.
    """

    median: float
    worst: float
    n_plans: int


def additivity(
    predictor: Predictor,
    wholes: Mapping[str, CompressionPlan],
    probe: ProbePlan,
    cache: SensitivityCache,
) -> tuple[WholePlan, ...]:
    """Measure whole plans and predict them from their options.

    Args:
        predictor: Predicts from the table; knows the space.
        wholes: Label -> a plan of that space. Equal plans count once, and those that the table was
            measured on not at all: nothing has to be predicted of them.
        probe: As for `measure_levels`.
        cache: As for `measure_levels`.
    """
    found: dict[str, WholePlan] = {}
    known = TablePlans(predictor.space).by_digest
    for label, plan in wholes.items():
        digest = plan.effective.digest
        if digest in found or digest in known:
            continue
        chosen = predictor.space.encode(plan)
        levels = np.array([[chosen[knob.name] for knob in predictor.space.knobs]], dtype=np.int64)
        ratio = float(predictor.latency_ratio(levels)[0])
        figures, reason = None, None
        try:
            figures = cache.probed(plan, probe).figures
        except TrialError as error:
            reason = f"{error.reason}: {error.message}"
        found[digest] = WholePlan(
            label=label,
            est_divergence=float(predictor.divergence(levels)[0]),
            est_size_bytes=float(predictor.size_bytes(levels)[0]),
            est_latency_ratio=ratio if predictor.has_latency else None,
            figures=figures,
            reason=reason,
        )
    return tuple(found.values())


def prediction_errors(wholes: Iterable[WholePlan]) -> dict[str, PredictionError]:
    """How far off the table is: `size`, `latency` and `log_divergence`, where there is any.

    Errors of size and latency are relative to what was measured. Divergences span orders of
    magnitude: theirs is the difference of natural logarithms, 0.7 being a factor of 2, over the
    plans that diverge at all.
    """
    errors: dict[str, list[float]] = {"size": [], "latency": [], "log_divergence": []}
    for whole in wholes:
        figures = whole.figures
        if figures is None:
            continue
        if figures.size_bytes:
            errors["size"].append(abs(whole.est_size_bytes / figures.size_bytes - 1.0))
        if figures.latency_ratio and whole.est_latency_ratio is not None:
            errors["latency"].append(abs(whole.est_latency_ratio / figures.latency_ratio - 1.0))
        if figures.divergence > 0.0 and whole.est_divergence > 0.0:
            ratio = whole.est_divergence / figures.divergence
            errors["log_divergence"].append(abs(math.log(ratio)))
    return {
        name: PredictionError(median=statistics.median(found), worst=max(found), n_plans=len(found))
        for name, found in errors.items()
        if found
    }
