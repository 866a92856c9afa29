"""Load configurations, weights, tokenizers and image processors: from folders, or by hub names.

Nothing that is loaded runs code: `trust_remote_code` is False, and weights are safetensors.
A folder is read as it is, without a look at the hub.
"""

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autocompress.errors import InputError, first_line
from autocompress.tasks.huggingface.extra import transformers

_SAVE = "Write it with `save_pretrained` of transformers."
_VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model", "*.vocab", "spm.*", "tekken.json")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.msgpack", "*.h5")


def read_config(model: str) -> Any:
    """The configuration of a model.

    Args:
        model: A folder that `save_pretrained` wrote, or a name on the hub.

    Raises:
        InputError: If there is none, or of an architecture that transformers does not know.
    """
    folder = Path(model).expanduser()
    if folder.is_file():
        raise InputError(f"`model` must be a folder or a hub name, but {folder} is a file.", _SAVE)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise InputError(f"The model's folder {folder} must hold config.json, but does not.", _SAVE)
    if not folder.exists() and _looks_like_path(model):
        raise InputError(f"The model's folder must exist, but {folder} does not.")
    try:
        return transformers().AutoConfig.from_pretrained(model, **_place(model))
    except Exception as error:  # of the hub's client, of JSON, of configurations
        text = str(error)
        if "does not recognize this architecture" in text or "Unrecognized model" in text:
            raise InputError(
                f"The model {model!r} is of an architecture that transformers "
                f"{transformers().__version__} does not know: {first_line(error)}.",
                "Code that comes with a model is never run.",
            ) from error
        raise _not_read("configuration", model, error) from error


def read_model(auto_class: str, model: str, config: Any, **overrides: Any) -> nn.Module:
    """The weights of a model, in float32 and eval mode, all of them from its files.

    Args:
        auto_class: Name of the class of transformers, such as `AutoModelForImageClassification`.
        model: As in `read_config`.
        config: What that returned.
        overrides: Fields of the configuration that differ.

    Raises:
        InputError: If there are no safetensors, they cannot be read, or a weight of the
            architecture is not among them.
    """
    folder = Path(model).expanduser()
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        found = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
        raise InputError(
            f"The model's folder {folder} must hold safetensors, but has "
            f"{', '.join(found) or 'no weights'}.",
            "A pickle may run code, so none is read. Load it where you trust it, and save it again "
            "with `save_pretrained`."
            if found
            else _SAVE,
        )
    for name, value in overrides.items():
        setattr(config, name, value)
    try:
        loaded, info = getattr(transformers(), auto_class).from_pretrained(
            model,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            attn_implementation="eager",  # the one whose layers and products can all be seen
            output_loading_info=True,
            **_place(model),
        )
    except Exception as error:  # of the hub's client, of safetensors, of any architecture
        raise _not_read("weights", model, error) from error
    missing = sorted({*info["missing_keys"], *(str(key) for key in info["mismatched_keys"])})
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if missing[3:] else "")
        raise InputError(
            f"The weights of {model!r} must be those of a trained "
            f"{type(loaded).__name__}, but lack {shown}.",
            "Give a model that was trained for this task, or another `arguments.kind=...`",
        )
    module: nn.Module = loaded.eval()
    return module


def read_tokenizer(model: str, tokenizer: str | None = None) -> Any:
    """The tokenizer beside a model; one without a padding token pads with its end of text.

    Args:
        model: As in `read_config`.
        tokenizer: Where it lies if elsewhere.

    Raises:
        InputError: If there is none.
    """
    source = tokenizer or model
    folder = Path(source).expanduser()
    if folder.is_dir() and not any(p for name in _VOCABULARIES for p in folder.glob(name)):
        # transformers would make one that knows no word at all
        raise _not_read("tokenizer", source, FileNotFoundError("it has no vocabulary"))
    try:
        found = transformers().AutoTokenizer.from_pretrained(source, **_place(source))
    except Exception as error:  # of the hub's client, of JSON, of tokenizers
        raise _not_read("tokenizer", source, error) from error
    if found.pad_token is None:
        found.pad_token = found.eos_token
    return found


def read_image_processor(model: str) -> Any:
    """The image processor beside a model, on Pillow, which makes the same of an image anywhere.

    Raises:
        InputError: If there is none.
    """
    try:
        auto_class = transformers().AutoImageProcessor
        return auto_class.from_pretrained(model, backend="pil", **_place(model))
    except Exception as error:  # of the hub's client, of JSON, of processors
        raise _not_read("image processor", model, error) from error


def _not_read(what: str, model: str, error: Exception) -> InputError:
    if Path(model).expanduser().is_dir():
        hint = f"Save it into that folder: `{what.replace(' ', '_')}.save_pretrained(folder)`."
    elif _is_offline():
        hint = "HF_HUB_OFFLINE is set: give a folder that `save_pretrained` wrote."
    else:
        hint = "Check the name and the connection, or give a folder that `save_pretrained` wrote."
    return InputError(
        f"The {what} of {model!r} could not be read: {type(error).__name__}: {first_line(error)}.",
        hint,
    )


def _is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}


def _looks_like_path(model: str) -> bool:
    """Whether this can be no name on the hub, which is `name` or `owner/name`."""
    return model.startswith((".", "~", "/", "\\")) or model.count("/") > 1 or "\\" in model


def _place(model: str) -> dict[str, Any]:
    """Where to look, and never to run code that lies beside a model, nor to ask whether to."""
    is_here = Path(model).expanduser().is_dir()
    return {"trust_remote_code": False, **({"local_files_only": True} if is_here else {})}
