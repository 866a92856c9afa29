"""Multiply-accumulate operations, counted by running the model on shapes only."""

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from autocompress.tasks.base import Inputs


def count_macs(model: nn.Module, example_inputs: Inputs) -> dict[str, int]:
    """Count the MACs of one example per module.

    Runs on the `meta` device: there torch's counter sees attention and fused encoder layers, which
    it misses on the CPU. Falls back to the CPU where a model's control flow needs real values.

    Args:
        model: Not modified.
        example_inputs: Inputs of shape (N, ...), N >= 1; only the first example is used.

    Returns:
        Qualified module name -> MACs of everything inside it; `""` is the whole model.
    """
    single = tuple(tensor[:1] for tensor in example_inputs)
    try:
        on_meta = tuple(tensor.to("meta") for tensor in single)
        flops = _count_flops(copy.deepcopy(model).to("meta"), on_meta)
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        flops = _count_flops(copy.deepcopy(model), single)
    root = type(model).__name__
    return {_qualified(name, root): count // 2 for name, count in flops.items()}


def _count_flops(model: nn.Module, inputs: Inputs) -> dict[str, int]:
    counter = FlopCounterMode(display=False)
    model.requires_grad_(False)  # the counter stumbles over a parameter that a layer is called on
    with torch.no_grad(), counter:
        model.eval()(*inputs)
    return {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}


def _qualified(name: str, root: str) -> str:
    return "" if name in ("Global", root) else name.removeprefix(f"{root}.")
