"""Parts of a model that stay exactly as they are."""

import copy
import fnmatch
from collections.abc import Sequence
from typing import Final

from torch import nn

from autocompress.errors import InputError

_ATTRIBUTE: Final = "autocompress_frozen"


def freeze(model: nn.Module, patterns: Sequence[str]) -> nn.Module:
    """Mark modules, and all within them, as frozen.

    Args:
        model: Not modified.
        patterns: Qualified names, with wildcards.

    Returns:
        The model itself if there are no patterns, else a copy whose frozen parameters need no
        gradients.

    Raises:
        InputError: If the patterns are one text, one fits no module, or everything would be frozen.
    """
    if not patterns:
        return model
    if isinstance(patterns, str):
        raise InputError(
            f"`Task.frozen` must be a sequence of names, but got the text {patterns!r}.",
            f"Give frozen=({patterns!r},): a single name needs its comma.",
        )
    frozen = copy.deepcopy(model)
    if not any(parameter.requires_grad for parameter in frozen.parameters()):
        frozen.requires_grad_(True)  # loaded for inference
    modules = dict(frozen.named_modules())
    for pattern in patterns:
        chosen = [name for name in modules if name and fnmatch.fnmatchcase(name, pattern)]
        if not chosen:
            listed = ", ".join(name for name, _ in frozen.named_children())
            raise InputError(
                f"`Task.frozen` must name modules of the model, but {pattern!r} fits none.",
                f"Its top level has: {listed or 'no modules'}.",
            )
        for name in chosen:
            for module in modules[name].modules():
                object.__setattr__(module, _ATTRIBUTE, True)
    keep_frozen_(frozen)
    if not any(parameter.requires_grad for parameter in frozen.parameters()):
        raise InputError(
            "`Task.frozen` must leave something to compress, but it freezes every parameter."
        )
    return frozen


def is_frozen(module: nn.Module) -> bool:
    """Whether a module must stay as it is."""
    return bool(getattr(module, _ATTRIBUTE, False))


def keep_frozen_(model: nn.Module) -> None:
    """Bring frozen modules into eval mode and take their parameters out of training, in place."""
    for module in model.modules():
        if is_frozen(module):
            module.training = False
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
