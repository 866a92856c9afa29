"""Batches of rows that other processes read while this one computes."""

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import torch
from torch.utils.data import DataLoader, Dataset

from autocompress.errors import InputError, first_line
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
