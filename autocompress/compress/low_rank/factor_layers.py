"""Plain layers that hold one factor each, put in a row in place of the layer that was split.

The last factor carries the bias, so that padding with zeros stays what it was. A convolution
without bias commutes with every padding mode, so the mode goes wherever the padding goes.
"""

from collections import OrderedDict
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

Factorizable: TypeAlias = nn.Linear | nn.Embedding | nn.Conv1d | nn.Conv2d | nn.Conv3d
Conv: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d
_CONV_OF_NDIM: dict[int, Any] = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}


class Factors(nn.Sequential):
    """The factors of one layer in a row, which can be asked whatever that layer could be asked.

    Many models look at a layer past its forward: `x.to(self.proj.weight.dtype)` stands in most
    vision transformers, and those with TensorFlow's padding read strides.

    Args:
        layer: That was split; its widths and geometry become attributes.
        factors: Name of a factor -> the factor.
    """

    def __init__(self, layer: Factorizable, factors: OrderedDict[str, nn.Module]) -> None:
        super().__init__(factors)
        self._weight_shape = layer.weight.shape
        for name in layer.__constants__:
            setattr(self, name, getattr(layer, name))

    @property
    def weight(self) -> Tensor:
        """Shape, dtype and device of the weight that was split, and no numbers: NaN.

        The product of the factors would cost as much as many examples do, in every forward that
        asks for a dtype. Who computes with what is read here gets NaN, which no trial survives.
        """
        first = next(self.parameters())
        return first.new_full((), torch.nan).expand(self._weight_shape)

    @property
    def bias(self) -> Tensor | None:
        """Of the last factor."""
        last: Any = self[-1]
        return last.bias


def linear_of(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """A Linear with copies of this weight of shape (O, I) and this bias of shape (O,)."""
    n_out, n_in = weight.shape
    return _filled(nn.Linear(n_in, n_out, bias is not None, device="meta"), weight, bias)


def embedding_of(weight: Tensor, like: nn.Embedding) -> nn.Embedding:
    """An Embedding with a copy of this weight of shape (V, R) and the options of `like`."""
    n_tokens, width = weight.shape
    embedding = nn.Embedding(
        n_tokens,
        width,
        padding_idx=like.padding_idx,
        scale_grad_by_freq=like.scale_grad_by_freq,
        sparse=like.sparse,
        device="meta",
    )
    return _filled(embedding, weight, None)


def conv_of(weight: Tensor, bias: Tensor | None = None, **geometry: Any) -> Conv:
    """A convolution with copies of this weight of shape (O, I / groups, *kernel) and this bias.

    Args:
        weight: With 1 to 3 kernel dimensions.
        bias: Shape (O,), or None.
        geometry: Keyword arguments of torch's convolutions: stride, groups, padding, ...
    """
    n_out, n_in, *kernel = weight.shape
    conv = _CONV_OF_NDIM[weight.ndim](
        n_in * geometry.get("groups", 1),
        n_out,
        tuple(kernel),
        bias=bias is not None,
        device="meta",
        **geometry,
    )
    return _filled(conv, weight, bias)


def pointwise_of(matrix: Tensor, like: Conv, bias: Tensor | None = None) -> Conv:
    """A 1 x 1 convolution in as many dimensions as `like` from a matrix of shape (O, I)."""
    return conv_of(matrix.reshape(*matrix.shape, *[1] * (like.weight.ndim - 2)), bias)


def geometry_of(conv: Conv) -> dict[str, Any]:
    """Stride, padding and dilation of a convolution, for the factor that takes them over."""
    return {
        "stride": conv.stride,
        "padding": conv.padding,
        "dilation": conv.dilation,
        "padding_mode": conv.padding_mode,
    }


def in_a_row(layer: Factorizable, **factors: nn.Module) -> Factors:
    """The factors as `Factors` with these names, in the mode of `layer`, frozen if it is."""
    row = Factors(layer, OrderedDict(factors))
    if not layer.weight.requires_grad:
        row.requires_grad_(False)
    return row.train(layer.training)


def _filled(layer: Any, weight: Tensor, bias: Tensor | None) -> Any:
    layer.weight = nn.Parameter(weight.detach().clone().contiguous())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer
