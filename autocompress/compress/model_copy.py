"""A deep copy of a model in less than half the time: most of what deepcopy spends goes to nothing.

A module holds a dozen empty containers for hooks, and every buffer is copied by way of its storage.
"""

import copy
from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


def copy_model(model: nn.Module) -> nn.Module:
    """What `copy.deepcopy(model)` returns, sooner.

    Empty containers, and buffers that share their storage with no other, are handed to deepcopy as
    done; the rest is its work, so that what is shared stays shared.

    Args:
        model: Not modified.
    """
    done: dict[int, Any] = {}
    for container in _empty_containers(model):
        done[id(container)] = type(container)()
    buffers = [b for b in model.buffers() if type(b) is Tensor and b.layout == torch.strided]
    owners = Counter(buffer.untyped_storage().data_ptr() for buffer in buffers)
    for buffer in buffers:
        is_whole = buffer.untyped_storage().nbytes() == buffer.nbytes
        is_plain = buffer.is_leaf and not buffer.requires_grad and not vars(buffer)
        if is_plain and is_whole and owners[buffer.untyped_storage().data_ptr()] == 1:
            done[id(buffer)] = buffer.clone()
    return copy.deepcopy(model, done)


def _empty_containers(model: nn.Module) -> Iterator[Any]:
    for module in model.modules():
        for value in vars(module).values():
            if type(value) in (OrderedDict, dict, set) and not value:
                yield value
