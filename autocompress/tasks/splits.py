"""From what a user gives as data to examples that can be drawn, in memory if they fit."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import psutil
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from autocompress.errors import InputError, first_line
from autocompress.tasks.base import Collate, Examples, Inputs, TensorData
from autocompress.tasks.streamed import StreamedData, stack_rows

_MEMORY_SHARE: Final = 0.125  # of the machine's, for one split: every worker process has its own
_CHUNK: Final = 256
Names = tuple[str, ...]


def as_examples(
    data: object, split: str, collate: Collate | None = None
) -> tuple[Examples, Names | None]:
    """Bring a data set into the form in which batches are drawn from it.

    Args:
        data: `TensorData`, `StreamedData`, a pair (inputs, targets) of tensors, a map-style data
            set of (input, target) pairs, or a `DataLoader` of one.
        split: Name of the split, for messages.
        collate: See `Task.collate`.

    Returns:
        The examples, and the names of their inputs where those have names. What would take more
        than an eighth of the machine's memory is streamed.

    Raises:
        InputError: If `data` is something else, empty, its tensors differ in length, a row is
            another one when it is read again, or a loader's sampler says which come how often.
    """
    if isinstance(data, tuple) and len(data) == 2:
        data = TensorData(*data)
    if isinstance(data, TensorData):
        return _checked(data, split)
    n_workers = 0
    if isinstance(data, DataLoader):
        n_workers = data.num_workers
        collate = collate or _collate_of(data)
        data = _sampled(data, split)
    if isinstance(data, StreamedData):
        collating = _Collating(data.collate)
        data = dataclasses.replace(data, collate=collating)
        _first_rows(data, split)
        return data, collating.names
    return _from_rows(data, split, collate or stack_rows, n_workers)


def in_order_of(data: Examples, names: Names | None, wanted: Names | None, split: str) -> Examples:
    """The same examples with their inputs in the order of the training data's.

    Raises:
        InputError: If their inputs have other names.
    """
    if names == wanted:
        return data
    if names is None or wanted is None or set(names) != set(wanted):
        raise InputError(
            f"The inputs of the {split} split must be named as those of train, "
            f"{_listed(wanted)}, but are {_listed(names)}."
        )
    places = [names.index(name) for name in wanted]
    if isinstance(data, TensorData):
        return dataclasses.replace(data, inputs=tuple(data.inputs[i] for i in places))
    assert isinstance(data, StreamedData)
    return dataclasses.replace(data, collate=_Reordered(data.collate, places))


def _checked(data: TensorData, split: str) -> tuple[TensorData, Names | None]:
    names: Names | None = None
    inputs: Any = data.inputs
    if isinstance(inputs, Mapping):
        names, inputs = tuple(map(str, inputs)), tuple(inputs.values())
    inputs = inputs if isinstance(inputs, tuple | list) else (inputs,)
    for part in (*inputs, data.targets):
        if not isinstance(part, Tensor) or part.ndim == 0:
            got = "a single number" if isinstance(part, Tensor) else type(part).__name__
            raise InputError(
                f"The {split} split must hold tensors of shape (N, ...), but got {got}."
            )
    if len(inputs) == 0:
        raise InputError(f"The {split} split must hold at least one input tensor, but has none.")
    data = dataclasses.replace(data, inputs=tuple(inputs))
    lengths = [len(tensor) for tensor in data.inputs]
    if any(length != len(data) for length in lengths):
        raise InputError(
            f"Inputs and targets of the {split} split must be equally many, "
            f"but got {lengths} inputs and {len(data)} targets."
        )
    if len(data) == 0:
        raise _empty(split)
    return data, names


def _from_rows(
    data: object, split: str, collate: Collate, n_workers: int
) -> tuple[Examples, Names | None]:
    if isinstance(data, IterableDataset):
        raise InputError(
            f"The {split} split must be a map-style data set, whose rows can be drawn in any "
            "order, but got an IterableDataset.",
            "Give it `__getitem__` and `__len__`, or read it into tensors.",
        )
    if not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
        raise InputError(
            f"The {split} split must be TensorData, a pair of tensors or a map-style data set, "
            f"but got {type(data).__name__}."
        )
    n_rows = len(data)
    if n_rows == 0:
        raise _empty(split)
    collating = _Collating(collate)
    streamed = StreamedData(dataset=data, collate=collating, n_workers=n_workers)  # type: ignore[arg-type]
    inputs, targets = _first_rows(streamed, split)
    n_bytes = sum(t.nbytes for t in (*inputs, targets)) / len(targets) * n_rows
    if n_bytes > _MEMORY_SHARE * psutil.virtual_memory().total:
        return streamed, collating.names
    return _read(streamed, split, (*inputs, targets)), collating.names


def _first_rows(data: StreamedData, split: str) -> tuple[Inputs, Tensor]:
    """The first two examples, read twice.

    Raises:
        InputError: If they cannot be read, or are others the second time.
    """
    if len(data) == 0:
        raise _empty(split)
    with _naming(split, data.collate):
        plain = dataclasses.replace(data, transform=None)
        first, again = plain.batch(slice(0, 2)), plain.batch(slice(0, 2))
    parts = (*first[0], first[1])
    if not all(isinstance(part, Tensor) for part in parts) or len(first[1]) != min(2, len(data)):
        raise InputError(
            "`collate` must make input tensors and a target tensor, with a row for each example, "
            f"of the rows of the {split} split."
        )
    if not all(torch.equal(a, b) for a, b in zip(parts, (*again[0], again[1]), strict=True)):
        raise InputError(
            f"The {split} split must give the same example each time, but its first rows differ "
            "between two readings.",
            "Move random changes from the data set to `Task.augment`, which sees training only.",
        )
    return first


def _read(data: StreamedData, split: str, first: Sequence[Tensor]) -> TensorData:
    """All rows, in memory; `first` are the inputs and targets of the first two."""
    slices = [slice(at, at + _CHUNK) for at in range(0, len(data), _CHUNK)]
    with _naming(split, data.collate):
        chunks = [(*inputs, targets) for inputs, targets in data.batches(slices)]
        columns = list(zip(*chunks, strict=True))
        for column, few in zip(columns, first, strict=True):
            _check_equal_shapes((few, *column), split, data.collate)
        *inputs, targets = (torch.cat(column) for column in columns)
        return TensorData(tuple(inputs), targets)


def _check_equal_shapes(batches: Sequence[Tensor], split: str, collate: Collate) -> None:
    shapes = list(dict.fromkeys(tuple(batch.shape[1:]) for batch in batches))
    if len(shapes) == 1:
        return
    got = f"rows of shapes {shapes[0]} and {shapes[1]}"
    if isinstance(collate, _Collating) and collate.is_plain:
        raise InputError(
            f"The {split} split must yield (input, target) pairs of equal shapes, but has {got}.",
            "Rows of several lengths need `Task.collate`, which pads them.",
        )
    raise InputError(
        f"`collate` must pad every batch to the same length, but of the {split} split it "
        f"made {got}.",
        "Pad to a fixed length, such as that of the longest example of all splits.",
    )


@contextlib.contextmanager
def _naming(split: str, collate: Collate) -> Iterator[None]:
    """Turn whatever a data set raises into one line that names the split."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # a user's data set may raise anything
        got = f"{type(error).__name__}: {first_line(error)}"
        if isinstance(collate, _Collating) and not collate.is_plain:
            raise InputError(
                f"`collate` must make (inputs, targets) of rows of the {split} split, "
                f"but raised {got}."
            ) from error
        raise InputError(
            f"The {split} split must yield (input, target) pairs of equal shapes, but: {got}.",
            "Rows of another form, or of several lengths, need `Task.collate`.",
        ) from error


class _Collating:
    """Brings what a user's function makes of rows into one form; keeps the names of inputs."""

    def __init__(self, collate: Collate) -> None:
        self._collate = collate
        self.names: Names | None = None

    @property
    def is_plain(self) -> bool:
        """Whether rows are merely stacked."""
        return self._collate is stack_rows

    def __call__(self, rows: list[Any]) -> tuple[Inputs, Tensor]:
        inputs, targets = self._collate(rows)
        if isinstance(inputs, Mapping):
            self.names = tuple(map(str, inputs))
            inputs = tuple(inputs.values())
        inputs = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
        return inputs, targets


class _Reordered:
    """A collate whose inputs come in another order."""

    def __init__(self, collate: Collate, places: Sequence[int]) -> None:
        self._collate, self._places = collate, places

    def __call__(self, rows: list[Any]) -> tuple[Inputs, Tensor]:
        inputs, targets = self._collate(rows)
        return tuple(inputs[i] for i in self._places), targets


def _collate_of(loader: DataLoader[Any]) -> Collate | None:
    """The loader's own collate, if it is not PyTorch's default one."""
    default = torch.utils.data.default_collate
    return None if loader.collate_fn is default else loader.collate_fn


def _sampled(loader: DataLoader[Any], split: str) -> Dataset[Any]:
    """The rows that a loader draws from, whatever the order.

    Raises:
        InputError: If they do not follow from its sampler, come more or less often, or are batches.
    """
    dataset, batches = loader.dataset, loader.batch_sampler
    if isinstance(dataset, IterableDataset):
        return dataset
    if batches is None:
        raise InputError(
            f"Rows of the {split} split must be single examples, but its DataLoader has "
            "batch_size=None, so that they would be whole batches.",
            "If they are single examples, give the data set itself.",
        )
    sampler: Any = batches.sampler if type(batches) is BatchSampler else batches
    if type(sampler) is SubsetRandomSampler:
        return Subset(dataset, [int(index) for index in sampler.indices])
    if type(sampler) in (SequentialSampler, RandomSampler):
        source = sampler.data_source
        return dataset if source is dataset else Subset(dataset, range(len(source)))
    hint = "If it chooses rows, give `torch.utils.data.Subset(dataset, indices)`."
    if isinstance(sampler, WeightedRandomSampler):
        hint = "Give the data set itself, and weight rare classes in `Task.loss`."
    raise InputError(
        f"All rows of the {split} split must be drawn equally often, in order or at random, "
        f"but its DataLoader has a sampler of its own, {type(sampler).__name__}.",
        hint,
    )


def _empty(split: str) -> InputError:
    return InputError(f"The {split} split must hold at least one example, but it is empty.")


def _listed(names: Names | None) -> str:
    return "not named" if names is None else f"({', '.join(names)})"
