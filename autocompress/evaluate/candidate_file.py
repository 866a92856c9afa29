"""A candidate's tuned weights on disk: safetensors, rebuilt by applying its plan again."""

import json
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import nn

from autocompress.atomic_file import write_atomically
from autocompress.compress.input_quantizer import InputQuantizer
from autocompress.errors import InputError, first_line
from autocompress.plan import CompressionPlan


def save_candidate(path: Path, model: nn.Module, plan: CompressionPlan) -> None:
    """Write a candidate's weights; the file appears at once or not at all.

    Args:
        path: Where to; its folder is created, an old file is replaced.
        model: The tuned candidate, on any device.
        plan: What it was built from; stored beside the weights.

    Raises:
        InputError: If the file cannot be written.
    """
    tensors = {name: t.detach().cpu().contiguous() for name, t in _state(model).items()}
    content = safetensors.torch.save(tensors, {"plan": json.dumps(plan.to_json())})
    write_atomically(path, content)


def load_candidate_(path: Path, model: nn.Module, plan: CompressionPlan) -> None:
    """Load weights into a model that the same plan was applied to, in place.

    Args:
        path: File of `save_candidate`.
        model: The base model with `plan` applied; changed, left in eval mode.
        plan: What `model` was built from.

    Raises:
        InputError: If the file is damaged, belongs to another plan or does not fit the model.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            stored = CompressionPlan.from_json(json.loads((file.metadata() or {})["plan"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"The weights {path} cannot be read: {first_line(error)}.") from error
    if stored != plan:
        raise InputError(
            f"The weights {path} belong to plan {stored.digest}, but plan {plan.digest} was asked."
        )
    state = _state(model)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if shapes != {name: tuple(tensor.shape) for name, tensor in tensors.items()}:
        raise InputError(f"The weights {path} do not fit the model that plan {plan.digest} makes.")
    with torch.no_grad():
        for name, tensor in tensors.items():
            state[name].copy_(tensor)
    for module in model.modules():
        if isinstance(module, InputQuantizer):
            module.is_observing = False
    model.eval()


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers, those that share memory once, under their first name."""
    seen: set[tuple[int, int]] = set()
    state = {}
    for name, tensor in model.state_dict().items():
        key = (tensor.data_ptr(), tensor.numel())
        if tensor.numel() == 0 or key not in seen:
            seen.add(key)
            state[name] = tensor
    return state
