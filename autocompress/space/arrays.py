"""Many plans and their figures at once, as arrays."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
"""Figures."""

Levels = NDArray[np.int64]
"""Level indices, one column per knob."""
