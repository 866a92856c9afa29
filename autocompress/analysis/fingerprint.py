"""What identifies a model: its structure and every weight."""

import hashlib

import torch
from torch import nn


def model_fingerprint(model: nn.Module) -> str:
    """sha256 over a model's structure and all its weights, in hex."""
    digest = hashlib.sha256(str(model).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
