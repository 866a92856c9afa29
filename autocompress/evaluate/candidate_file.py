"""A candidate's tuned weights on disk: safetensors, rebuilt by applying its plan again."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import nn

from autocompress.atomic_file import write_atomically
from autocompress.compress.compressed_layers import is_compressed, mask_of, weight_parameters
from autocompress.compress.input_quantizer import InputQuantizer
from autocompress.errors import InputError, first_line
from autocompress.plan import CompressionPlan
from autocompress.tasks.fingerprint import state_fingerprint

_FACTS = "candidate"


def save_candidate(path: Path, model: nn.Module, plan: CompressionPlan) -> None:
    """Write a candidate's weights; the file appears at once or not at all.

    Args:
        path: Where to; its folder is created, an old file is replaced.
        model: The tuned candidate, on any device.
        plan: What it was built from; stored beside the weights.

    Raises:
        InputError: If the file cannot be written.
    """
    tensors = {
        name: same[0].detach().cpu().contiguous().clone()  # a file takes no shared memory
        for name, same in model_state(model).items()
    }
    facts = {"plan": plan.to_json(), "sha256": state_fingerprint(tensors)}
    content = safetensors.torch.save(tensors, {_FACTS: json.dumps(facts)})  # several have no order
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
    tensors, stored = _read(path)
    if stored != plan:
        raise InputError(
            f"The weights {path} belong to plan {stored.digest}, but plan {plan.digest} was asked."
        )
    state = model_state(model)
    shapes = {name: tuple(same[0].shape) for name, same in state.items()}
    if shapes != {name: tuple(tensor.shape) for name, tensor in tensors.items()}:
        raise InputError(f"The weights {path} do not fit the model that plan {plan.digest} makes.")
    load_state_(model, tensors)
    model.eval()


def check_candidate_file(path: Path) -> None:
    """Read a file of `save_candidate` to its end.

    Raises:
        InputError: If it is damaged.
    """
    _read(path)


def _read(path: Path) -> tuple[dict[str, torch.Tensor], CompressionPlan]:
    """Its tensors, and the plan they were built from."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[_FACTS])
            stored, digest = CompressionPlan.from_json(facts["plan"]), facts["sha256"]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"The weights {path} cannot be read: {first_line(error)}.") from error
    if digest != state_fingerprint(tensors):
        raise InputError(f"The weights {path} are damaged: they are not what was written.")
    return tensors, stored


def load_state_(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Load what `model_state` gave, in place, and take activation grids as they are."""
    state = model_state(model)
    with torch.no_grad():
        for name, tensor in tensors.items():
            for same in state[name]:
                same.copy_(tensor)
    for module in model.modules():
        if isinstance(module, InputQuantizer):
            module.is_observing = False


def model_state(model: nn.Module) -> dict[str, tuple[torch.Tensor, ...]]:
    """First name of each parameter and buffer -> the tensor, and all others that must equal it.

    The layers that own one parameter compute with one mask of it. On the CPU that is one tensor;
    moving a model to another device gives each layer a buffer of its own. So what is one and the
    same is told by the parameters, which stay what they are.
    """
    found: dict[str, list[torch.Tensor]] = {}
    first_name: dict[tuple[int, str], str] = {}
    for prefix, module in model.named_modules():
        masked = _masked_parameters(module)
        for name, tensor in _own_state(module):
            path = f"{prefix}.{name}" if prefix else name
            if isinstance(tensor, nn.Parameter):
                path = first_name.setdefault((id(tensor), "parameter"), path)
            elif id(tensor) in masked:
                path = first_name.setdefault((id(masked[id(tensor)]), "mask"), path)
            found.setdefault(path, []).append(tensor)
    return {name: tuple(tensors) for name, tensors in found.items()}


def _own_state(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """A module's own parameters and buffers under all their names, without what is never saved."""
    yield from module.named_parameters(recurse=False, remove_duplicate=False)
    for name, buffer in module.named_buffers(recurse=False, remove_duplicate=False):
        if name not in module._non_persistent_buffers_set:
            yield name, buffer


def _masked_parameters(layer: nn.Module) -> dict[int, torch.Tensor]:
    """Id of each mask of a layer -> the parameter it belongs to."""
    names = weight_parameters(layer) if is_compressed(layer) else []
    masks = {name: mask_of(layer, name) for name in names}
    return {id(m): layer.get_parameter(name) for name, m in masks.items() if m is not None}
