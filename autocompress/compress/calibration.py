"""What some techniques need to know beyond the weights themselves."""

import dataclasses
from collections.abc import Mapping
from typing import TypeAlias

from torch import Tensor

from autocompress.tasks.base import Inputs

Gradients: TypeAlias = Mapping[str, Tensor]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CalibrationStatistics:
    """Facts from data about the base model; empty where nobody asked for them.

    Attributes:
        gradients: Parameter name -> mean gradient of the loss over batches of train.
        squared_gradients: Parameter name -> mean over batches of the squared gradient, times the
            batch size: the diagonal of the empirical Fisher matrix.
        calibration: Batches of training inputs, each of shape (N, ...).
        initial_state: Parameter or buffer name -> its value early in training (lottery ticket).
    """

    gradients: Gradients | None = None
    squared_gradients: Gradients | None = None
    calibration: tuple[Inputs, ...] = ()
    initial_state: Mapping[str, Tensor] | None = None
