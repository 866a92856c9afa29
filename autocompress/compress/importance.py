"""Which channels of a group matter least: one score per channel, from weights or gradients.

Dimension key: `C` channels of the group, `n` entries of one channel in one layer.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autocompress.analysis.channel_groups import ChannelGroup, GroupMember
from autocompress.compress.importance_nni import nni_fpgm
from autocompress.errors import unknown_name

Gradients = Mapping[str, Tensor]
Criterion = Callable[[Tensor, Tensor | None], Tensor]


def l1_norm(weight: Tensor, gradient: Tensor | None) -> Tensor:
    """Sum of absolute weights per channel (Li et al. 2017). (C, n) -> (C,)."""
    return weight.abs().sum(dim=1)


def l2_norm(weight: Tensor, gradient: Tensor | None) -> Tensor:
    """Euclidean norm of the weights per channel. (C, n) -> (C,)."""
    return weight.norm(dim=1)


def taylor(weight: Tensor, gradient: Tensor | None) -> Tensor:
    """First-order change of the loss if a channel is removed (Molchanov et al. 2019).

    (C, n) -> (C,): the absolute sum of gradient x weight.
    """
    assert gradient is not None, "taylor needs gradients"
    return (weight * gradient).sum(dim=1).abs()


CRITERIA: dict[str, Criterion] = {
    "l1": l1_norm,
    "l2": l2_norm,
    "nni_fpgm": nni_fpgm,
    "taylor": taylor,
}
NEEDS_GRADIENTS = frozenset({"taylor"})


def find_criterion(name: str) -> Criterion:
    """Look up an importance criterion.

    Raises:
        InputError: If there is none of that name.
    """
    if name not in CRITERIA:
        raise unknown_name("importance criterion", name, CRITERIA)
    return CRITERIA[name]


def score_channels(
    model: nn.Module, group: ChannelGroup, criterion: str, gradients: Gradients | None = None
) -> NDArray[np.float64]:
    """Score every channel of a group: the mean over its layers, each layer scaled to mean 1.

    Every convolution and linear layer that produces or consumes the channels has a say; scaling
    keeps a layer with large weights from deciding alone (as in DepGraph; Fang et al. 2023).

    Args:
        model: The model the group belongs to; not modified.
        group: Its `C` channels are scored.
        criterion: Name in `CRITERIA`.
        gradients: Parameter name -> gradient; only for criteria in `NEEDS_GRADIENTS`.

    Returns:
        Scores of shape (C,), higher is more important.
    """
    score = find_criterion(criterion)
    modules = dict(model.named_modules())
    total = np.zeros(group.n_channels)
    n_layers = 0
    for member in group.members:
        module = modules[member.layer]
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim < 2:
            continue
        gradient = None
        if criterion in NEEDS_GRADIENTS:
            assert gradients is not None
            gradient = _channel_rows(module, gradients[f"{member.layer}.weight"], member)
        rows = _channel_rows(module, weight.detach(), member)
        scores = score(rows, gradient).double().cpu().numpy()
        layer_total = np.bincount(member.root, weights=scores, minlength=group.n_channels)
        mean = layer_total.mean()
        total += layer_total / mean if mean > 0 else layer_total
        n_layers += 1
    return total / max(1, n_layers)


def _channel_rows(module: nn.Module, tensor: Tensor, member: GroupMember) -> Tensor:
    """Bring the group's channels of one layer to the front: (len(member.local), n)."""
    is_transposed = getattr(module, "transposed", False)
    dim = int(is_transposed) if member.side == "out" else 1 - int(is_transposed)
    return tensor.movedim(dim, 0)[torch.from_numpy(member.local)].flatten(1)
