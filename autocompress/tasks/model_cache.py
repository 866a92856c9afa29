"""Keep the trained weights of embedded tasks in the user's cache folder, as safetensors."""

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import platformdirs
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from autocompress.atomic_file import write_atomically
from autocompress.errors import InputError

_logger = logging.getLogger(__name__)

CACHE_VARIABLE = "AUTOCOMPRESS_CACHE"
_DIGEST_KEY = "sha256"


def cache_folder() -> Path:
    """The folder named by AUTOCOMPRESS_CACHE, or `autocompress` in the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("autocompress"))


def load_or_train(model: nn.Module, name: str, content: str, train: Callable[[], None]) -> None:
    """Fill `model` with cached weights; if there are none that fit, train it and keep the result.

    A cached file that is damaged, cut off or of other shapes counts as absent. A folder that cannot
    be written is no error: the model is trained anew next time, and the log says why.

    Args:
        model: Changed in place and left in eval mode.
        name: Begins the file's name.
        content: Hash of everything the trained weights depend on; ends the file's name.
        train: Trains `model` in place.
    """
    path = cache_folder() / f"{name}-{content[:16]}.safetensors"
    if not _load_(model, path):
        train()
        _save(model, path)
    model.eval()


def _load_(model: nn.Module, path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
            expected = (file.metadata() or {}).get(_DIGEST_KEY)
        if expected != _digest(state):
            _logger.warning("The cached weights %s are damaged and are made anew.", path)
            return False
        model.load_state_dict(state)
    except (SafetensorError, OSError, RuntimeError) as error:
        _logger.warning("The cached weights %s cannot be used and are made anew: %s", path, error)
        return False
    return True


def _save(model: nn.Module, path: Path) -> None:
    state = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    try:
        write_atomically(path, save(state, metadata={_DIGEST_KEY: _digest(state)}))
    except (SafetensorError, InputError) as error:
        _logger.warning("The trained weights could not be kept: %s", error)


def _digest(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key]
        digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    return digest.hexdigest()
