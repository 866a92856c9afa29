"""Lottery tickets: what survives pruning starts again from weights of early in training.

Frankle & Carbin 2019 rewind to the initial weights, Frankle et al. 2020 to those of a few hundred
steps later. Which weights survive is decided from the trained ones.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from autocompress.compress.model_copy import copy_model
from autocompress.errors import InputError


def early_model(model: nn.Module, initial_state: Mapping[str, Tensor] | None) -> nn.Module | None:
    """A copy of an uncut model with its weights of early in training, to be cut as the model is.

    Args:
        model: The trained model; not modified.
        initial_state: Its state dict early in training; None for no copy.

    Raises:
        InputError: If the state does not fit the model.
    """
    if initial_state is None:
        return None
    check_initial_state(model, initial_state)
    early = copy_model(model)
    early.load_state_dict(dict(initial_state))
    return early


def rewind_(model: nn.Module, early: nn.Module) -> None:
    """Put a model's parameters and buffers back to what they were early in training, in place.

    What only `model` has, such as masks, stays.

    Args:
        model: Changed; its parameters remain the same objects.
        early: The early model, cut as `model` was.

    Raises:
        ValueError: If the two were not cut alike.
    """
    state = model.state_dict()
    with torch.no_grad():
        for name, value in early.state_dict().items():
            if name not in state or state[name].shape != value.shape:
                msg = f"{name!r} of shape {tuple(value.shape)} must be in both models alike"
                raise ValueError(msg)
            state[name].copy_(value)


def check_initial_state(model: nn.Module, initial_state: Mapping[str, Tensor]) -> None:
    """Check that a state dict fits a model and holds finite numbers.

    Raises:
        InputError: Naming the first parameter or buffer that does not fit.
    """
    state = model.state_dict()
    missing = [name for name in state if name not in initial_state]
    extra = [name for name in initial_state if name not in state]
    if missing:
        problem = f"has no {missing[0]!r} (and lacks {len(missing) - 1} more)"
    elif extra:
        problem = f"has {extra[0]!r}, which the model has not (and {len(extra) - 1} more)"
    else:
        found = (_misfit(name, value, initial_state) for name, value in state.items())
        problem = next(filter(None, found), "")
    if problem:
        raise InputError(
            f"The initial state must be a state dict of the trained model, but it {problem}.",
            "Save `model.state_dict()` early in the training of this very model.",
        )


def _misfit(name: str, value: Tensor, initial_state: Mapping[str, Tensor]) -> str:
    initial = initial_state[name]
    if not isinstance(initial, Tensor):
        return f"holds a {type(initial).__name__} for {name!r}"
    if initial.shape != value.shape:
        shapes = tuple(initial.shape), tuple(value.shape)
        return f"has {name!r} of shape {shapes[0]} where the model's is {shapes[1]}"
    if initial.is_floating_point() != value.is_floating_point():
        return f"has {name!r} as {initial.dtype} where the model's is {value.dtype}"
    if initial.is_floating_point() and not initial.isfinite().all():
        return f"has numbers that are not finite in {name!r}"
    return ""
