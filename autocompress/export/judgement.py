"""How far one model answers as another does: each output is judged by what it seems to be."""

import dataclasses
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias, get_args

import numpy as np

from autocompress.errors import InputError
from autocompress.runtime.base import Array

Kind: TypeAlias = Literal["classes", "threshold", "values", "cosine", "equal"]
Answers: TypeAlias = Mapping[str, Array]
"""Output name -> what a model gives for all examples; (N, ...)."""

_CLOSE: Final = 0.05  # of a column's spread
_ALIKE: Final = 0.99  # cosine
_EXACT: Final = 1e-3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """How an output is judged.

    Attributes:
        kind: `classes`: the largest along `axis` must stay, at each place. `threshold`: the side of
            one half, or of 0 if values lie beyond [0, 1]. `values`: each must stay within 5 % of
            its column's spread. `cosine`: an example's must be 0.99 at least. `equal`: integers.
        axis: Of classes, or of columns: a dimension of (N, ...), 0 for none.
    """

    kind: Kind
    axis: int = 1

    def agreement(self, expected: Array, found: Array) -> float:
        """Share of the decisions, values or examples that are as expected; outputs are (N, ...)."""
        if self.kind == "equal":
            return float((found == expected).mean())
        a, b = (np.asarray(x, np.float64) for x in (expected, found))
        if self.kind == "classes":
            return float((a.argmax(axis=self.axis) == b.argmax(axis=self.axis)).mean())
        if self.kind == "threshold":
            at = 0.5 if _within_unit(expected) else 0.0
            return float(((a > at) == (b > at)).mean())
        if self.kind == "cosine":
            a, b = (x.reshape(len(x), -1) for x in (a, b))
            norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
            return float(((a * b).sum(axis=1) >= _ALIKE * np.maximum(norms, 1e-12)).mean())
        others = tuple(axis for axis in range(a.ndim) if axis != self.axis)
        spread = np.where(np.isfinite(a), a, np.nan)
        spread = np.nanstd(spread, axis=others, keepdims=True)
        spread = np.maximum(spread, 1e-6 * max(float(np.abs(a[np.isfinite(a)]).max(initial=0)), 1))
        return float(((a == b) | (np.abs(a - b) <= _CLOSE * spread)).mean())


def judge_of(name: str, expected: Array, asked: str | None = None) -> Judge:
    """How an output is judged: as is asked for, or by what its values look like.

    Integers must be equal. Shares that sum to 1 along an axis are classes; vectors of length 1
    embeddings; single values within [0, 1] decisions; other vectors classes; anything else values:
    boxes, maps, sequences, one number.

    Args:
        name: Of the output.
        expected: What the original gives; (N, ...).
        asked: One of the kinds; None to look.

    Raises:
        InputError: If there is no such kind, or it does not fit the output.
    """
    shape = expected.shape[1:]
    columns = (1 if len(shape) == 3 else expected.ndim - 1) if shape else 0  # channels of a map
    if asked is not None:
        if asked not in get_args(Kind):
            choices = ", ".join(get_args(Kind))
            raise InputError(f"`judge` must be one of {choices}, but got {asked!r} for {name}.")
        if asked == "classes" and (not shape or expected.shape[columns] < 2):
            raise InputError(f"Classes need two values at least, but {name} has shape {shape}.")
        return Judge(kind=asked, axis=columns)  # type: ignore[arg-type]
    if expected.dtype.kind in "iub":
        return Judge(kind="equal")
    for axis in range(1, expected.ndim):
        if expected.shape[axis] > 1 and _are_shares(expected, axis):
            return Judge(kind="classes", axis=axis)
    if expected[0].size == 1:
        return Judge(kind="threshold" if _within_unit(expected) else "values", axis=0)
    if len(shape) == 1:
        norms = np.linalg.norm(expected.astype(np.float64), axis=1)
        is_unit = bool(np.abs(norms - 1.0).max() < _EXACT)
        return Judge(kind="cosine") if is_unit else Judge(kind="classes")
    return Judge(kind="values", axis=columns)


def error_of(expected: Array, found: Array) -> float:
    """Largest difference, as a share of the largest expected value; of finite ones."""
    a, b = (np.asarray(x, np.float64) for x in (expected, found))
    is_finite = np.isfinite(a) & np.isfinite(b)
    scale = float(np.abs(a[is_finite]).max(initial=0.0)) or 1.0
    return float(np.abs(a[is_finite] - b[is_finite]).max(initial=0.0)) / scale


def _within_unit(values: Array) -> bool:
    return bool(values.min() >= 0.0 and values.max() <= 1.0)


def _are_shares(values: Array, axis: int) -> bool:
    sums = values.astype(np.float64).sum(axis=axis)
    return bool(values.min() >= 0.0 and np.abs(sums - 1.0).max() < _EXACT)
