"""Text files that are either whole or not there."""

import contextlib
import os
from pathlib import Path

from autocompress.errors import InputError


def write_text_atomically(path: Path, text: str) -> None:
    """Write UTF-8 text beside its goal, flush it to disk, then rename it over the goal.

    A reader, or a crash at any moment, sees the old file or the new one and nothing in between.

    Args:
        path: Where the text goes; missing folders are made.
        text: Written as it is: line ends are not translated.

    Raises:
        InputError: If the folder or file cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("w", encoding="utf-8", newline="") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    except OSError as error:
        raise InputError(
            f"`{path}` must be writable, but: {error.strerror or error}.",
            "Choose another place with -o, or free some space.",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()
