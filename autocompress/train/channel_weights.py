"""Which parameters are weights, and which of their values belong to which output channel.

Dimension key: `C` output channels (of an embedding: its columns; of a recurrent layer: its hidden
units with all their gates), `n` weights of one, `G` groups, `O` and `I` channels of a group.
"""

from typing import TypeAlias

import torch
from torch import Tensor, nn

Weighted: TypeAlias = (
    nn.Linear
    | nn.modules.conv._ConvNd
    | nn.Embedding
    | nn.EmbeddingBag
    | nn.RNNBase
    | nn.RNNCellBase
    | nn.MultiheadAttention
)


def trained_weights(model: nn.Module) -> list[tuple[nn.Module, str, nn.Parameter]]:
    """Layer, name within it and weight: of Linear, convolution, embedding and recurrent layers.

    Biases, norms and what is not trained are left out; a weight of several layers comes once.
    """
    found: dict[int, tuple[nn.Module, str, nn.Parameter]] = {}
    for layer in model.modules():
        if not isinstance(layer, Weighted):
            continue
        for name, weight in layer.named_parameters(recurse=False):
            if weight.ndim >= 2 and weight.requires_grad and not name.startswith("bias"):
                found.setdefault(id(weight), (layer, name, weight))
    return list(found.values())


def channel_rows(layer: nn.Module, name: str, weight: Tensor) -> Tensor:
    """A layer's weight with one row for each output channel.

    Args:
        layer: One with weights.
        name: Of the weight within the layer.
        weight: In the layer's own shape.

    Returns:
        Shape (C, n), a view where that is possible.
    """
    if isinstance(layer, nn.modules.conv._ConvTransposeNd):
        return _by_group(layer, weight).transpose(1, 2).flatten(0, 1).flatten(1)
    if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
        return weight.T
    n_gates = _n_gates(layer) if not name.startswith("weight_hr") else 1  # hr: LSTM's projection
    return weight.unflatten(0, (n_gates, -1)).transpose(0, 1).flatten(1)


def _by_group(layer: nn.modules.conv._ConvTransposeNd, weight: Tensor) -> Tensor:
    """A transposed convolution's weight, (G·I, O, ...), as a view (G, I, O, ...)."""
    return weight.unflatten(0, (layer.groups, -1))


def _n_gates(layer: nn.Module) -> int:
    if isinstance(layer, nn.LSTM | nn.LSTMCell):
        return 4
    return 3 if isinstance(layer, nn.GRU | nn.GRUCell) else 1


def scale_channels_(layer: nn.Module, factors: Tensor) -> None:
    """Multiply weight and bias of a layer so that its output channels are multiplied, in place.

    Args:
        layer: A Linear, convolution, transposed convolution or embedding.
        factors: Shape (C,).
    """
    weight = layer.weight
    assert isinstance(weight, nn.Parameter)
    with torch.no_grad():
        if isinstance(layer, nn.modules.conv._ConvTransposeNd):
            ones = [1] * (weight.ndim - 2)
            _by_group(layer, weight).mul_(factors.reshape(layer.groups, 1, -1, *ones))
        elif isinstance(layer, nn.Embedding):
            weight.mul_(factors)
        else:
            weight.mul_(factors.reshape(-1, *[1] * (weight.ndim - 1)))
        if isinstance(bias := getattr(layer, "bias", None), Tensor):
            bias.mul_(factors)
