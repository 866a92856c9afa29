"""PyTorch's exporters log and print what they raise; who calls them says it once.

In a file of its own: a process that only runs a file imports this, and must not wait for PyTorch.
"""

import contextlib
import io
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_exporters() -> Iterator[None]:
    """Drop errors that are logged and all that is printed: traced graphs, advice, tracebacks."""
    level = logging.root.manager.disable
    logging.disable(max(level, logging.ERROR))
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(level)
