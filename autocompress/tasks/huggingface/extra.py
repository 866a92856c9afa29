"""The packages of the extra `hf`, imported when they are first needed."""

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from autocompress.errors import InputError

_INSTALL = "Install it: pip install 'autocompress[hf]'"


def transformers() -> Any:
    """The package `transformers`.

    Raises:
        InputError: If it is not installed.
    """
    return _package("transformers", "models")


def datasets() -> Any:
    """The package `datasets`.

    Raises:
        InputError: If it is not installed.
    """
    return _package("datasets", "data sets")


def _package(name: str, what: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"Hugging Face {what} need the package {name!r}, which cannot be imported: {error}.",
            _INSTALL,
        ) from error


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep both packages from drawing progress bars over the command's own."""
    logging, bars = transformers().utils.logging, datasets().utils
    had_models, had_data = logging.is_progress_bar_enabled(), bars.are_progress_bars_disabled()
    level = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    bars.disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if had_models:
            logging.enable_progress_bar()
        if not had_data:
            bars.enable_progress_bars()
