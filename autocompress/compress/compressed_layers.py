"""Layers that compute with masked and quantized weights: plain layers that change their class.

The parameters stay the same objects, so that optimizer state, hooks and shared references keep
pointing at the right thing. Masks are buffers and quantizers are submodules, named after the
parameter they belong to: all of them are in the state dict.
"""

from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autocompress.compress.quantizers.base import WeightQuantizer
from autocompress.errors import InputError


class _Compressed:
    """What all compressed layers share: `weight` as the forward computes with it."""

    def compressed_weight(self, parameter: str = "weight") -> Tensor:
        """A weight, masked and on its grid, as far as it has a mask and a quantizer."""
        layer: nn.Module = self  # type: ignore[assignment]
        weight = layer.get_parameter(parameter)
        mask, quantizer = mask_of(layer, parameter), quantizer_of(layer, parameter)
        if quantizer is not None:
            quantized: Tensor = quantizer(weight, mask)
            return quantized
        return weight if mask is None else weight * mask

    def quantized_input(self, x: Tensor) -> Tensor:
        """The input on its grid, if it has one."""
        grid = self._modules.get("input_quantizer")  # type: ignore[attr-defined]
        return x if grid is None else grid(x)


class CompressedLinear(_Compressed, nn.Linear):
    """A Linear that computes with its compressed weight."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        return F.linear(self.quantized_input(input), self.compressed_weight(), self.bias)


class _CompressedConv(_Compressed):
    """A convolution that computes with its compressed weight."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, I, ...) -> (N, O, ...)."""
        conv: nn.Conv2d = self  # type: ignore[assignment]
        return conv._conv_forward(self.quantized_input(input), self.compressed_weight(), conv.bias)


class CompressedConv1d(_CompressedConv, nn.Conv1d):
    """Conv1d with a compressed weight."""


class CompressedConv2d(_CompressedConv, nn.Conv2d):
    """Conv2d with a compressed weight."""


class CompressedConv3d(_CompressedConv, nn.Conv3d):
    """Conv3d with a compressed weight."""


class _CompressedConvTranspose(_Compressed):
    """A transposed convolution that computes with its compressed weight."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(N, I, ...) -> (N, O, ...)."""
        conv: Any = self
        n_spatial = len(conv.kernel_size)
        padding = conv._output_padding(
            input,
            output_size,
            conv.stride,
            conv.padding,
            conv.kernel_size,
            n_spatial,
            conv.dilation,
        )
        convolve = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[n_spatial - 1]
        return convolve(
            input,
            self.compressed_weight(),
            conv.bias,
            conv.stride,
            conv.padding,
            padding,
            conv.groups,
            conv.dilation,
        )


class CompressedConvTranspose1d(_CompressedConvTranspose, nn.ConvTranspose1d):
    """ConvTranspose1d with a compressed weight."""


class CompressedConvTranspose2d(_CompressedConvTranspose, nn.ConvTranspose2d):
    """ConvTranspose2d with a compressed weight."""


class CompressedConvTranspose3d(_CompressedConvTranspose, nn.ConvTranspose3d):
    """ConvTranspose3d with a compressed weight."""


class CompressedEmbedding(_Compressed, nn.Embedding):
    """An Embedding that looks up rows of its compressed weight."""

    def forward(self, input: Tensor) -> Tensor:
        """Indices (...) -> rows (..., D)."""
        return F.embedding(
            input,
            self.compressed_weight(),
            self.padding_idx,
            scale_grad_by_freq=self.scale_grad_by_freq,
        )


class _CompressedRecurrent(_Compressed):
    """A recurrent layer that runs with its compressed weights; biases stay float."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        """As the plain layer; an input grid is that of sequences given as one tensor."""
        rnn: Any = self
        if isinstance(input, Tensor):
            input = self.quantized_input(input)
        rnn._update_flat_weights()  # or the forward itself would, if a parameter was replaced
        plain = rnn._flat_weights
        weights = set(weight_parameters(rnn))
        rnn._flat_weights = [
            self.compressed_weight(name) if name in weights else getattr(rnn, name)
            for name in rnn._flat_weights_names
        ]
        try:
            return super().forward(input, hx)  # type: ignore[misc]
        finally:
            rnn._flat_weights = plain


class CompressedLSTM(_CompressedRecurrent, nn.LSTM):
    """LSTM with compressed weights."""


class CompressedGRU(_CompressedRecurrent, nn.GRU):
    """GRU with compressed weights."""


class CompressedRNN(_CompressedRecurrent, nn.RNN):
    """RNN with compressed weights."""


COMPRESSED: Final[dict[type[nn.Module], type[nn.Module]]] = {
    nn.Linear: CompressedLinear,
    nn.Conv1d: CompressedConv1d,
    nn.Conv2d: CompressedConv2d,
    nn.Conv3d: CompressedConv3d,
    nn.ConvTranspose1d: CompressedConvTranspose1d,
    nn.ConvTranspose2d: CompressedConvTranspose2d,
    nn.ConvTranspose3d: CompressedConvTranspose3d,
    nn.Embedding: CompressedEmbedding,
    nn.LSTM: CompressedLSTM,
    nn.GRU: CompressedGRU,
    nn.RNN: CompressedRNN,
}
_PLAIN: Final = {compressed: plain for plain, compressed in COMPRESSED.items()}


def is_compressed(layer: nn.Module) -> bool:
    """Whether a layer is one of those defined here."""
    return type(layer) in _PLAIN


def weight_parameters(layer: nn.Module) -> list[str]:
    """Names of the parameters of a layer that can be masked and quantized; none if it is another.

    `weight`, or those of a recurrent layer: `weight_ih_l0`, `weight_hh_l0` and so on.
    """
    if not (type(layer) in COMPRESSED or is_compressed(layer)):
        return []
    if isinstance(layer, nn.RNNBase):
        return [name for name in layer._flat_weights_names if name.startswith("weight")]
    return ["weight"]


def channel_axis(layer: nn.Module) -> int:
    """Dimension of a layer's weights that its output channels (gate units, rows) run along."""
    return 1 if isinstance(layer, nn.modules.conv._ConvTransposeNd) else 0


def compress_layer_(layer: nn.Module) -> None:
    """Let a plain layer compute with compressed weights from now on; does nothing a second time.

    Raises:
        InputError: If there is no compressed form of a layer of this type.
    """
    if is_compressed(layer):
        return
    if type(layer) not in COMPRESSED:
        known = ", ".join(plain.__name__ for plain in COMPRESSED)
        raise InputError(
            f"Weights can be masked and quantized in plain layers ({known}), "
            f"but this one is a {type(layer).__name__}."
        )
    layer.__class__ = COMPRESSED[type(layer)]


def restore_layer_(layer: nn.Module) -> None:
    """Make a compressed layer the plain one it was; masks and quantizers are dropped."""
    for parameter in weight_parameters(layer):
        layer._buffers.pop(f"{parameter}_mask", None)
        layer._modules.pop(f"{parameter}_quantizer", None)
    layer._modules.pop("input_quantizer", None)
    layer.__class__ = _PLAIN[type(layer)]


def mask_of(layer: nn.Module, parameter: str = "weight") -> Tensor | None:
    """The mask of a parameter, if it has one."""
    return layer._buffers.get(f"{parameter}_mask")


def quantizer_of(layer: nn.Module, parameter: str = "weight") -> WeightQuantizer | None:
    """The quantizer of a parameter, if it has one."""
    quantizer = layer._modules.get(f"{parameter}_quantizer")
    assert quantizer is None or isinstance(quantizer, WeightQuantizer)
    return quantizer


def set_mask_(layer: nn.Module, mask: Tensor, parameter: str = "weight") -> None:
    """Keep the weights where `mask` is True and let the layer compute with 0 elsewhere, in place.

    The parameter itself is left as it is. An earlier mask is replaced.

    Args:
        layer: Changed; becomes a compressed layer if it is a plain one.
        mask: Bool, of the parameter's shape.
        parameter: One of `weight_parameters(layer)`.

    Raises:
        InputError: If the layer has no compressed form, or its quantizer cannot hold zeros.
        ValueError: If the mask does not fit the parameter.
    """
    compress_layer_(layer)
    weight = layer.get_parameter(parameter)
    if mask.shape != weight.shape or mask.dtype != torch.bool:
        msg = (
            f"`mask` must be bool of shape {tuple(weight.shape)} for `{parameter}`, "
            f"but is {mask.dtype} of shape {tuple(mask.shape)}."
        )
        raise ValueError(msg)
    quantizer = quantizer_of(layer, parameter)
    if quantizer is not None and not quantizer.holds_zero:
        raise InputError(
            f"Masks need a quantizer that can store 0, but {type(quantizer).__name__} was made "
            "without a mask.",
            "Set masks before quantizing.",
        )
    layer.register_buffer(f"{parameter}_mask", mask.to(weight.device).contiguous())


def set_quantizer_(layer: nn.Module, quantizer: WeightQuantizer, parameter: str = "weight") -> None:
    """Let a layer compute with a parameter on the grid of `quantizer`, in place.

    Raises:
        InputError: If the layer has no compressed form.
    """
    compress_layer_(layer)
    layer.add_module(f"{parameter}_quantizer", quantizer)
