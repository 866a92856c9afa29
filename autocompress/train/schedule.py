"""What changes in the course of a training, as shares of what the recipe says."""

import math

_WARM_UP_STEPS = 100
_WARM_UP_SHARE = 0.1


def rate_share(step: int, n_steps: int) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then half a cosine."""
    n_warm = min(_WARM_UP_STEPS, round(_WARM_UP_SHARE * n_steps))
    if step < n_warm:
        return (step + 1) / (n_warm + 1)
    progress = (step - n_warm) / max(1, n_steps - n_warm)
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def entropy_ramp(step: int, n_steps: int) -> float:
    """0 in the first half of a training, 1 in its last quarter."""
    return min(1.0, max(0.0, 4.0 * step / n_steps - 2.0))
