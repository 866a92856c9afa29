"""A user's task file as a module: imported under a name of its own, the same in every process."""

import contextlib
import hashlib
import importlib.util
import random
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from autocompress.errors import InputError
from autocompress.tasks.user_code import describe_error

FILE_MODULE = "autocompress_task_"
"""How the names of modules begin that task files are imported as."""

_SEED = 0


@contextlib.contextmanager
def reproducible() -> Iterator[None]:
    """Seed all global random generators and run torch on one thread; the caller's state returns."""
    n_threads = torch.get_num_threads()
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.set_num_threads(1)
        torch.manual_seed(_SEED)
        random.seed(_SEED)
        np.random.seed(_SEED)
        try:
            yield
        finally:
            torch.set_num_threads(n_threads)
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def import_file(path: Path) -> types.ModuleType:
    """Import a task file, read afresh at each call.

    Raises:
        InputError: If it raises; the message names the user's line.
    """
    name = module_name_of(path)
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    previous = sys.modules.get(name)
    sys.modules[name] = module  # before it runs: dataclasses look their module up there
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        if previous is None:
            del sys.modules[name]
        else:
            sys.modules[name] = previous
        raise InputError(
            f"The task file must be importable, but raised {describe_error(error, str(path))}."
        ) from error
    return module


def files_of_tasks() -> list[str]:
    """The task files that this process has imported."""
    modules = [module for name, module in sys.modules.items() if name.startswith(FILE_MODULE)]
    return [module.__file__ for module in modules if module.__file__ is not None]


def import_task_files(files: Sequence[str], folder: str) -> None:
    """Make what is pickled in one process known in another, for as long as that lives.

    Args:
        files: Task files, which are imported; their folders become importable.
        folder: Another folder that becomes importable.
    """
    sys.path += [*(str(Path(file).parent) for file in files), folder]
    with reproducible():
        for file in files:
            import_file(Path(file))


def module_name_of(path: Path) -> str:
    """Stable, so that what was pickled in one process is found again in another."""
    return f"{FILE_MODULE}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
