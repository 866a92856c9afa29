"""Lottery tickets: what survives pruning starts again from weights of early in training.

Frankle & Carbin 2019 rewind to the initial weights, Frankle et al. 2020 to those of a few hundred
steps later. Which weights survive is decided from the trained ones.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from autocompress.compress.model_copy import copy_model


def early_model(model: nn.Module, initial_state: Mapping[str, Tensor] | None) -> nn.Module | None:
    """A copy of an uncut model with its weights of early in training, to be cut as the model is.

    Args:
        model: The trained model; not modified.
        initial_state: Its state dict early in training, as `prepare_task` checked it; None for no
            copy.
    """
    if initial_state is None:
        return None
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
