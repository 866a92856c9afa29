"""What identifies a model: its structure and every weight."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def model_fingerprint(model: nn.Module) -> str:
    """sha256 over a model's structure and all its weights, in hex."""
    return state_fingerprint(model.state_dict(), str(model))


def state_fingerprint(state: Mapping[str, Tensor], structure: str = "") -> str:
    """sha256 over a state dict, and what else is said about its model, in hex."""
    digest = hashlib.sha256(structure.encode())
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
