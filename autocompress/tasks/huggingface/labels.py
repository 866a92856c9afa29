"""Labels of a data set as the model's own class numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from autocompress.errors import InputError
from autocompress.tasks.huggingface.extra import datasets
from autocompress.tasks.huggingface.request import Request
from autocompress.tasks.huggingface.rows import choose_column, fitting_columns

_USUAL = ("label", "labels", "target", "class", "category", "sentiment", "fine_label")
_HIDDEN = -1  # of test splits whose labels are kept back


def label_column(rows: Any, asked: str | None) -> str:
    """The column of labels.

    Raises:
        InputError: If there is none, or it cannot be told.
    """
    return choose_column(rows, asked, _USUAL, "label", _class_columns(rows))


def labelled_rows(rows: Any, request: Request, split: str) -> tuple[Any, Tensor] | None:
    """Rows of a split that have a label, and their class numbers, int64 (N,).

    Returns:
        None if no row has one, and nobody asked for this split by its name.

    Raises:
        InputError: If train or a split that was asked for has no labels, or a label cannot be used.
    """
    asked = getattr(request.wanted, f"{split}_split")
    is_needed = split == "train" or asked is not None
    if split != "train" and not _has_column(rows, request.label):
        problem = f"has no column of them (columns: {', '.join(rows.column_names)})"
    else:
        column = label_column(rows, request.label)
        labels, kept = read_labels(rows, column, request.config, split)
        if kept:
            return rows.select(kept), labels
        problem = "all of them are kept back"
    if not is_needed:
        return None
    raise InputError(
        f"The {split} split must have labels, but {problem}.",
        f"Name another one: `arguments.{split}_split=...`",
    )


def _has_column(rows: Any, asked: str | None) -> bool:
    if asked is not None:
        return asked in rows.column_names
    return bool(fitting_columns(rows, _USUAL, _class_columns(rows)))


def _class_columns(rows: Any) -> list[str]:
    is_class = datasets().ClassLabel
    return [name for name, feature in rows.features.items() if isinstance(feature, is_class)]


def check_single_label(config: Any) -> None:
    """Refuse models of other outputs than one class among several.

    Raises:
        InputError: For regression and for several labels at once.
    """
    problem = getattr(config, "problem_type", None)
    if config.num_labels < 2 or problem not in (None, "single_label_classification"):
        raise InputError(
            "The model must tell one class among several, but has "
            f"{config.num_labels} label(s) and problem_type {problem!r}.",
            "Write a task of your own with its loss and metric: autocompress init my_task.py",
        )


def read_labels(rows: Any, column: str, config: Any, split: str) -> tuple[Tensor, list[int]]:
    """Class numbers of the rows that have one.

    Names are looked up in the model's `id2label` (without regard to case); where none of the data
    set's names is one of the model's, its numbers count.

    Args:
        rows: Of one split.
        column: Of labels.
        config: Of the model.
        split: For messages.

    Returns:
        int64 labels (N,) and the numbers of their rows; rows whose label is kept back (-1, or
        none) are left out.

    Raises:
        InputError: If a label is none of the model's, or only some names are.
    """
    feature, values = rows.features[column], rows[column]
    numbers = {_plain(name): int(i) for i, name in config.id2label.items()}
    names = getattr(feature, "names", None)
    texts = [v for v in values if isinstance(v, str)] if names is None else names
    is_named = not numbers.keys().isdisjoint(map(_plain, texts))
    if names is not None and is_named:
        values = [v if v is None or v < 0 else names[v] for v in values]
    kept = [i for i, value in enumerate(values) if value is not None and value != _HIDDEN]
    unknown = sorted({_plain(values[i]) for i in kept} - numbers.keys()) if is_named else []
    if unknown:
        raise InputError(
            f"Labels of the {split} split must all be the model's classes, as some are, but column "
            f"{column!r} holds {_listed([repr(name[:40]) for name in unknown])}.",
            f"The model's id2label has: {_listed(list(numbers))}.",
        )
    labels = [_number(values[i], numbers, column, split) for i in kept]
    n_classes = config.num_labels
    wrong = next((label for label in labels if not 0 <= label < n_classes), None)
    if wrong is not None:
        raise InputError(
            f"Labels of the {split} split must lie in [0, {n_classes - 1}] (the model has "
            f"{n_classes} classes), but column {column!r} holds {wrong}.",
        )
    return torch.tensor(labels, dtype=torch.int64), kept


def _number(value: Any, numbers: Mapping[str, int], column: str, split: str) -> int:
    if isinstance(value, bool | int) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    text = _plain(value)
    if text in numbers:
        return numbers[text]
    if text.isdecimal():
        return int(text)
    raise InputError(
        f"Labels of the {split} split must be the model's, but column {column!r} holds "
        f"{str(value)[:40]!r}.",
        f"The model's id2label has: {_listed(list(numbers))}.",
    )


def _plain(name: object) -> str:
    return str(name).strip().lower()


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
