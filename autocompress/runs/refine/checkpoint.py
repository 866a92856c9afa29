"""Where a long training stands, on disk: tensors and a few facts, whole or not there."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from autocompress.atomic_file import write_atomically
from autocompress.errors import InputError, first_line

Groups = Mapping[str, Mapping[str, Tensor]]


def write_checkpoint(path: Path, groups: Groups, facts: Mapping[str, Any]) -> None:
    """Write tensors in named groups, and facts as JSON; the file appears at once or not at all.

    Args:
        path: Where to; its folder is created, an old file is replaced.
        groups: Group -> name -> tensor, on any device.
        facts: What JSON can hold.

    Raises:
        InputError: If the file cannot be written.
    """
    tensors = {
        f"{group}/{name}": tensor.detach().cpu().contiguous().clone()
        for group, named in groups.items()
        for name, tensor in named.items()
    }
    content = safetensors.torch.save(tensors, {"facts": json.dumps(facts)})
    write_atomically(path, content)


def read_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Inverse of `write_checkpoint`.

    Raises:
        InputError: If the file is damaged.
    """
    groups: dict[str, dict[str, Tensor]] = {}
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            for key in file.keys():  # noqa: SIM118
                group, _, name = key.partition("/")
                groups.setdefault(group, {})[name] = file.get_tensor(key)
    except (OSError, safetensors.SafetensorError, KeyError, ValueError) as error:
        raise unreadable(path, error) from error
    return groups, facts


def unreadable(path: Path, error: Exception) -> InputError:
    """The error of a checkpoint that is damaged, or of another version."""
    return InputError(
        f"The checkpoint {path} cannot be read: {first_line(error)}.",
        "Delete it to start this training anew.",
    )
