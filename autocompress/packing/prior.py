"""What a coder believes about symbols before it has seen one: a bell around zero, in integers.

Only integer arithmetic is used, so that encoder and decoder agree on every machine.
Dimension key: `A` letters of the alphabet, the integers `low .. low + A - 1`.
"""

import dataclasses
import functools
from typing import Final

import numpy as np
from numpy.typing import NDArray

N_SHAPES: Final = 3
N_LEVELS: Final = 80
PRIOR_TOTAL: Final = 1 << 20  # weights of a prior sum to about this

_UNIFORM, _LAPLACE, _GAUSS = range(N_SHAPES)
_ONE = 1 << 32  # fixed point for ratios
_PEAK = 1 << 40  # weight of the symbol 0 before normalisation


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """One distribution of the family.

    Attributes:
        shape: 0 uniform, 1 two-sided geometric (Laplace), 2 discrete Gaussian.
        level: Width, 0 (narrowest) to 79. The weight falls from symbol 0 to symbol 1 by the
            ratio `1 - (7 - level % 4) / 2**(3 + level // 4)`; meaningless for the uniform shape.
    """

    shape: int
    level: int

    def weights(self, low: int, n_letters: int) -> NDArray[np.int64]:
        """Weights of the letters `low .. low + n_letters - 1`, all positive.

        Returns:
            Shape (A,); their sum is within A of `PRIOR_TOTAL`, or above it if A is larger.
        """
        if self.shape == _UNIFORM:
            return np.full(n_letters, PRIOR_TOTAL // n_letters + 1, dtype=np.int64)
        distance = np.abs(np.arange(low, low + n_letters, dtype=np.int64))
        distance -= distance.min()  # an alphabet without 0 peaks at the letter closest to it
        reach = 1 << int(distance.max()).bit_length()
        side = np.array(_one_side(self.shape, self.level, reach), dtype=np.int64)[distance]
        # side <= 2**40; dividing first keeps the product below 2**63
        return side * 64 // max(1, int(side.sum()) * 64 // PRIOR_TOTAL) + 1


@functools.lru_cache(maxsize=512)
def _one_side(shape: int, level: int, reach: int) -> tuple[int, ...]:
    """Weights at distance 0, 1, … reach - 1 from the peak.

    A Laplace bell falls by one ratio r. A Gaussian falls by r, r**3, r**5, …: the ratio itself
    falls by r**2 from step to step.
    """
    ratio = _ONE - ((7 - level % 4) * _ONE >> (3 + level // 4))
    bend = ratio * ratio // _ONE if shape == _GAUSS else _ONE
    weights = [_PEAK]
    for _ in range(reach - 1):
        weights.append(weights[-1] * ratio // _ONE)
        ratio = ratio * bend // _ONE
    return tuple(weights)


def fit_prior(low: int, counts: NDArray[np.int64]) -> Prior:
    """The prior under which symbols with these counts take the fewest bits.

    Args:
        low: First letter of the alphabet.
        counts: How often each letter occurs, shape (A,).
    """
    seen = counts > 0

    def bits(prior: Prior) -> float:
        weights = prior.weights(low, len(counts))
        return float(
            counts.sum() * np.log2(weights.sum()) - (counts[seen] * np.log2(weights[seen])).sum()
        )

    family = [Prior(shape=_UNIFORM, level=0)]
    for shape in (_LAPLACE, _GAUSS):
        # cost is unimodal in the width: a coarse pass, then the neighbours of the best
        coarse = [Prior(shape=shape, level=level) for level in range(0, N_LEVELS, 4)]
        centre = min(coarse, key=bits).level
        family += [
            Prior(shape=shape, level=level)
            for level in range(max(0, centre - 3), min(N_LEVELS, centre + 4))
        ]
    return min(family, key=bits)
