"""Data that stays where it is: rows are read as batches ask for them."""

import dataclasses
import hashlib
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from autocompress.errors import InputError, first_line
from autocompress.tasks.base import Collate, Inputs, Transform
from autocompress.tasks.task_file import files_of_tasks, import_task_files

# A fork has the user's data set as it is: no task file is imported again, nothing is pickled.
# Said by name, for it is the default in no process that was spawned, as workers of trials are, nor
# from Python 3.14 on. Elsewhere than on Linux the system's own libraries do not outlive a fork.
_START: Final = "fork" if sys.platform == "linux" else "spawn"


def read_ahead(
    dataset: Dataset[Any],
    collate: Callable[[list[Any]], Any],
    batches: Iterable[list[int]],
    n_workers: int,
) -> Iterator[Any]:
    """Read batches in other processes, and yield them in order.

    Args:
        dataset: Map-style.
        collate: Makes a batch of a list of rows.
        batches: Numbers of the rows of each batch.
        n_workers: How many processes read, >= 1.

    Raises:
        InputError: If the processes cannot be given the data set.
    """
    loader = DataLoader(
        dataset if _START == "fork" else _Sent(dataset),
        batch_sampler=batches,
        num_workers=n_workers,
        collate_fn=collate,
        generator=torch.Generator(),  # or it would draw from the global one
        multiprocessing_context=_START,
    )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Got pickle error")  # what is raised says it better
            read = iter(loader)  # starts the processes
    except OSError:
        raise
    except Exception as error:  # a user's class may refuse to be pickled in any way
        raise InputError(
            "A data set that other processes read, and its `collate`, must be picklable on this "
            f"system, but: {first_line(error)}.",
            "Define their classes and functions at the top of a file, or read without workers.",
        ) from error
    yield from read


class _Sent(Dataset[Any]):
    """A data set that is pickled behind what its classes need: the task file, imported."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        return self._dataset[index]

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (_TaskFiles(), self._dataset)  # read in this order


class _TaskFiles:
    """The task files of the process that pickles it, imported where it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return import_task_files, (files_of_tasks(), str(Path.cwd()))


def _received(_: None, dataset: Dataset[Any]) -> Dataset[Any]:
    return dataset


_N_HASHED: Final = 64
_PASS_SIZE: Final = 256


def stack_rows(rows: list[Any]) -> tuple[Any, Tensor]:
    """Rows (input, target) as a batch; an input may be a tuple or a mapping of arrays."""
    examples = [row[0] for row in rows]
    targets = torch.stack([torch.as_tensor(row[1]) for row in rows])
    first = examples[0]
    if isinstance(first, Mapping):
        return {key: _stack([e[key] for e in examples]) for key in first}, targets
    if isinstance(first, tuple | list) and all(isinstance(p, Tensor | np.ndarray) for p in first):
        columns = zip(*examples, strict=True)
        return tuple(_stack(list(column)) for column in columns), targets
    return (_stack(examples),), targets


def _stack(values: list[Any]) -> Tensor:
    return torch.stack([torch.as_tensor(value) for value in values])


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StreamedData:
    """A data set too large for memory, read row by row.

    Orders, augmentation and figures are those of `TensorData`; only reading takes longer.

    Attributes:
        dataset: Map-style: `len(dataset)` rows, `dataset[i]` always the same one.
        collate: Makes (inputs, targets) of a list of rows; the default stacks (input, target)
            pairs.
        transform: Applied to the inputs of a batch after augmentation; None means as they are.
        n_workers: Processes that read ahead (`DataLoader.num_workers`); 0 reads in this one.
        order: Rows that belong to it, shape (N,); None for all.
        known_targets: Targets of all its examples, where they are at hand: shape (N, ...). Else
            one pass over the data reads them when they are asked for.
    """

    dataset: Dataset[Any]
    collate: Collate = stack_rows
    transform: Transform | None = None
    n_workers: int = 0
    order: Tensor | None = None
    known_targets: Tensor | None = None
    _read: dict[str, Tensor] = dataclasses.field(default_factory=dict, init=False)

    def __len__(self) -> int:
        return len(self.dataset) if self.order is None else len(self.order)  # type: ignore[arg-type]

    @property
    def targets(self) -> Tensor:
        """Targets of all examples, shape (N, ...); read in one pass where they are not known."""
        if self.known_targets is not None:
            return self.known_targets
        if "targets" not in self._read:
            slices = (slice(at, at + _PASS_SIZE) for at in range(0, len(self), _PASS_SIZE))
            self._read["targets"] = torch.cat([rows[1] for rows in self._rows(slices)])
        return self._read["targets"]

    def batch(
        self, indices: Tensor | slice, augment: Callable[[Inputs], Inputs] | None = None
    ) -> tuple[Inputs, Tensor]:
        """The examples at `indices`: augmented, transformed inputs, and targets."""
        rows = [self.dataset[i] for i in self._numbers(indices)]
        return self._changed(self.collate(rows), augment)

    def batches(
        self,
        chosen: Iterable[Tensor | slice],
        augment: Callable[[Inputs], Inputs] | None = None,
    ) -> Iterator[tuple[Inputs, Tensor]]:
        """One batch after the other; `n_workers` processes read ahead."""
        for read in self._rows(chosen):
            yield self._changed(read, augment)

    def subset(self, indices: Tensor | slice) -> "StreamedData":
        """The examples at `indices` as a data set of their own."""
        order = torch.tensor(self._numbers(indices), dtype=torch.int64)
        known = None if self.known_targets is None else self.known_targets[indices]
        return dataclasses.replace(self, order=order, known_targets=known)

    def fingerprint(self) -> str:
        """sha256 over the number of rows and the content of 64 of them, spread evenly, in hex."""
        digest = hashlib.sha256(f"{len(self)}".encode())
        at = torch.linspace(0, len(self) - 1, min(_N_HASHED, len(self))).round().long()
        inputs, targets = self.collate([self.dataset[i] for i in self._numbers(at)])
        for tensor in (*inputs, targets):
            digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def _numbers(self, indices: Tensor | slice) -> list[int]:
        """Rows of the data set behind some examples."""
        if isinstance(indices, slice):
            numbers = list(range(*indices.indices(len(self))))
        elif indices.dtype == torch.bool:
            numbers = indices.nonzero().flatten().tolist()
        else:
            numbers = indices.tolist()
        return numbers if self.order is None else self.order[numbers].tolist()

    def _rows(self, chosen: Iterable[Tensor | slice]) -> Iterator[tuple[Inputs, Tensor]]:
        if self.n_workers == 0:
            for indices in chosen:
                yield self.collate([self.dataset[i] for i in self._numbers(indices)])
            return
        numbers = [self._numbers(indices) for indices in chosen]
        yield from read_ahead(self.dataset, self.collate, numbers, self.n_workers)

    def _changed(
        self, read: tuple[Inputs, Tensor], augment: Callable[[Inputs], Inputs] | None
    ) -> tuple[Inputs, Tensor]:
        inputs, targets = read
        if augment is not None:
            inputs = augment(inputs)
        if self.transform is not None:
            inputs = self.transform(inputs)
        return inputs, targets
