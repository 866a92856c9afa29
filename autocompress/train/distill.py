"""Losses that pull a candidate's outputs towards its teacher's (Hinton et al. 2015)."""

import functools
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from autocompress.errors import unknown_name

TEMPERATURE = 3.0
TASK_SHARE = 0.3  # the rest is distillation; measured on ResNet-20 at 2-4 bits
Match = Callable[[Tensor, Tensor], Tensor]


def soft_label_loss(outputs: Tensor, teacher: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """KL divergence between softened class distributions, scaled by T² to keep gradients' size.

    Args:
        outputs: Logits of shape (N, classes, ...).
        teacher: Logits of the same shape.
        temperature: Softening, > 0.

    Returns:
        Scalar, mean over examples.
    """
    log_p = F.log_softmax(outputs.float() / temperature, dim=1)
    log_q = F.log_softmax(teacher.float() / temperature, dim=1)
    divergence = F.kl_div(log_p, log_q, reduction="sum", log_target=True)
    return divergence * (temperature**2 / (outputs.numel() / outputs.shape[1]))


def _mse(outputs: Tensor, teacher: Tensor) -> Tensor:
    return F.mse_loss(outputs.float(), teacher.float())


DISTILLATIONS: dict[str, Callable[[float], Match | None]] = {
    "kl": lambda temperature: functools.partial(soft_label_loss, temperature=temperature),
    "mse": lambda temperature: _mse,
    "none": lambda temperature: None,
}


def distillation_loss(kind: str, temperature: float = TEMPERATURE) -> Match | None:
    """Look up how outputs are matched; None means they are not.

    Args:
        kind: Name in `DISTILLATIONS`.
        temperature: Softening of `kl`, > 0.

    Raises:
        InputError: If there is no such kind.
    """
    if kind not in DISTILLATIONS:
        raise unknown_name("kind of distillation", kind, DISTILLATIONS)
    return DISTILLATIONS[kind](temperature)
