"""How much a loss of accuracy counts: one scale for hypervolume, proposals, knee and refinement."""

import dataclasses
from typing import Final

import numpy as np
from numpy.typing import NDArray

_UNIT: Final = 0.0025  # a quarter of a point: a loss that is hardly seen
_WIDTH: Final = 16  # units: nobody ships what loses more than 4 points
_Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyScale:
    """How much a loss of accuracy counts: as its logarithm, as costs do.

    From 0 to 0.25 point lost is as much as from 0.25 to 0.75, or from 1.75 to 3.75. So a front is
    resolved where people ship, and what loses several points is not searched as if it were as good.

    >>> scale = accuracy_scale(0.92)
    >>> scale.worth(np.array([0.93, 0.92, 0.9175, 0.9])).round(2)
    array([1.  , 1.  , 0.76, 0.22])

    Attributes:
        baseline: Accuracy of the original model.
        unit: Added to what is lost before the logarithm is taken, > 0: a loss hardly seen.
        width: Loss that is worth nothing, > 0.
    """

    baseline: float
    unit: float
    width: float

    @property
    def floor(self) -> float:
        """Accuracy that is worth nothing."""
        return self.baseline - self.width

    def worth(self, accuracy: _Array) -> _Array:
        """1 at the baseline's accuracy or a better one, 0 at the floor, less than 0 below it."""
        lost = np.maximum(self.baseline - accuracy, 0.0)
        return np.asarray(1.0 - np.log1p(lost / self.unit) / np.log1p(self.width / self.unit))


def accuracy_scale(
    baseline: float, metric: str = "accuracy", max_drop: float | None = None
) -> AccuracyScale:
    """The scale of a run.

    Accuracies count in points: a quarter of one is hardly seen, four are worth nothing. Other
    metrics count by what the baseline lacks to 1 where that is small: an R squared of 0.99 that
    falls by a point has doubled its error.

    Args:
        baseline: Accuracy of the original model.
        metric: What the metric is called.
        max_drop: Accuracy that may be lost; more than 4 points widen the scale.
    """
    unit = _UNIT
    if "accuracy" not in metric.lower():
        unit = min(_UNIT, max((1.0 - baseline) / (2 * _WIDTH), 0.001 * _UNIT))
    return AccuracyScale(baseline=baseline, unit=unit, width=max(_WIDTH * unit, max_drop or 0.0))
