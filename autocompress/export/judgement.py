"""How far one model answers as another does: each output is judged by what it seems to be."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

import numpy as np

from autocompress.errors import InputError, first_line
from autocompress.runtime.base import Array
from autocompress.tasks.factory import load_function
from autocompress.tasks.user_code import describe_error

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


def metric_of(
    labels: Path, answers: Answers, judges: Mapping[str, Judge], function: str | None
) -> Callable[[Answers], float]:
    """What outputs are worth, by the labels in a `.npy` file.

    Args:
        labels: The file; one label for each example, or for each place of it; negative ones are
            passed over.
        answers: What the original gives.
        judges: How outputs are judged: the first that holds classes is scored.
        function: `file.py:function` that is called with the outputs (the only one's array, or a
            mapping of names to arrays) and the labels, and returns a number, instead.

    Raises:
        InputError: If the file or the function cannot be used, or labels do not fit.
    """
    try:
        wanted = np.load(labels, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{labels} must be a .npy file of labels, but: {first_line(error)}."
        ) from error
    if not isinstance(wanted, np.ndarray):
        raise InputError(f"{labels} must be a .npy file of one array, but holds several.")
    if function is not None:
        return _metric_of_user(function, wanted)
    name = next((name for name, judge in judges.items() if judge.kind == "classes"), None)
    if name is None:
        raise InputError(
            f"`labels` are of classes, but no output is: {', '.join(answers)}.",
            "Give `metric=file.py:function`, or say which output holds classes with `judge`.",
        )
    axis = judges[name].axis
    shape = answers[name].argmax(axis=axis).shape
    if wanted.shape != shape or wanted.dtype.kind not in "iu":
        raise InputError(
            f"{labels} must hold integers of shape {shape}, but holds {wanted.dtype} of "
            f"{wanted.shape}."
        )
    return lambda found: float((found[name].argmax(axis=axis) == wanted)[wanted >= 0].mean())


def _metric_of_user(function: str, labels: Array) -> Callable[[Answers], float]:
    call = load_function(function)

    def metric(found: Answers) -> float:
        given = next(iter(found.values())) if len(found) == 1 else dict(found)
        try:
            return float(call(given, labels))
        except Exception as error:
            raise InputError(
                f"The metric {function} must return a number, but raised {describe_error(error)}."
            ) from error

    return metric


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
