"""Where the channels of a layer lie in its tensors: the table behind every cut."""

import dataclasses
from collections.abc import Iterator
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import nn

from autocompress.analysis.channel_group import Side
from autocompress.tasks.frozen import channels_of

Convolution: TypeAlias = (
    nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
)
WEIGHTED: Final = (Convolution, nn.Linear, nn.Embedding, nn.RNNBase)
PER_CHANNEL: Final = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.PReLU,
)
CUTTABLE: Final = (*WEIGHTED, *PER_CHANNEL)
_N_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TensorSlot:
    """Where one side's channels lie in one parameter or buffer.

    Channel `c` owns the indices `c % width + i * width` along `dim`, for i < `n_repeats`.

    Attributes:
        tensor: Name of the parameter or buffer in its layer.
        dim: The dimension.
        width: Length of one repetition.
        n_repeats: Repetitions: the gates of a recurrent layer; 1 elsewhere.
        is_read: Whether these entries multiply the channels (columns of a consumer) rather than
            make them (rows of a producer).
    """

    tensor: str
    dim: int
    width: int
    n_repeats: int = 1
    is_read: bool = False

    def indices(self, channels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Indices along `dim` that belong to `channels`, sorted, each once."""
        if self.n_repeats == 1 and (not len(channels) or channels.max() < self.width):
            return np.unique(channels)
        shifts = np.arange(self.n_repeats, dtype=np.int64)[:, None] * self.width
        return np.unique(channels[None, :] % self.width + shifts)


def slots_of(layer: nn.Module, side: Side) -> tuple[TensorSlot, ...]:
    """Everything of a layer that shrinks when channels of one side go.

    A grouped convolution has no slot for its inputs: whole groups of it go, with their outputs.

    Args:
        layer: One of `CUTTABLE`, or one that says where its channels lie; others have no slots.
        side: `in` or `out`; layers that keep every channel apart (norms) have the same for both.
    """
    declared = channels_of(layer)
    if declared is not None:
        width, is_read = width_of(layer, side), side == "in"
        tensors = declared.into if is_read else declared.out
        return tuple(
            TensorSlot(tensor=t, dim=dim, width=width, is_read=is_read)
            for t, dim in tensors.items()
        )
    if isinstance(layer, Convolution):
        return tuple(_slots_of_convolution(layer, side))
    if isinstance(layer, nn.RNNBase):
        return tuple(_slots_of_recurrent(layer, side))
    if isinstance(layer, nn.Linear):
        if side == "in":
            return (TensorSlot(tensor="weight", dim=1, width=layer.in_features, is_read=True),)
        return tuple(TensorSlot(tensor=t, dim=0, width=layer.out_features) for t in _own(layer))
    if isinstance(layer, nn.Embedding):
        if side == "in":
            return ()
        return (TensorSlot(tensor="weight", dim=1, width=layer.embedding_dim),)
    if isinstance(layer, PER_CHANNEL) and width_of(layer, side) > 1:
        return tuple(TensorSlot(tensor=t, dim=0, width=width_of(layer, side)) for t in _own(layer))
    return ()


def width_of(layer: nn.Module, side: Side) -> int:
    """Number of channels of one side of a layer of `CUTTABLE`, or that says where they lie."""
    declared = channels_of(layer)
    if declared is not None:
        tensor, dim = next(iter((declared.into if side == "in" else declared.out).items()))
        return int(getattr(layer, tensor).shape[dim])
    if isinstance(layer, Convolution):
        return layer.out_channels if side == "out" else layer.in_channels
    if isinstance(layer, nn.Linear):
        return layer.out_features if side == "out" else layer.in_features
    if isinstance(layer, nn.Embedding):
        return layer.embedding_dim if side == "out" else 0
    if isinstance(layer, nn.RNNBase):
        return n_directions(layer) * layer.hidden_size if side == "out" else layer.input_size
    if isinstance(layer, nn.PReLU):
        return layer.num_parameters
    if isinstance(layer, nn.GroupNorm):
        return layer.num_channels
    return int(getattr(layer, "num_features", 0))


def is_weighted(layer: nn.Module) -> bool:
    """Whether a layer makes new channels of those it reads."""
    return isinstance(layer, WEIGHTED) or channels_of(layer) is not None


def channel_dim(layer: nn.Module, n_dims: int) -> int:
    """Dimension of the channels in an input or output of `n_dims` dimensions."""
    declared = channels_of(layer)
    if declared is not None:
        return declared.dim % n_dims
    return n_dims - 1 - (layer.weight.ndim - 2 if isinstance(layer, Convolution) else 0)


def is_depthwise(layer: nn.Module) -> bool:
    """Whether a layer is a convolution with one output channel per input channel."""
    return isinstance(layer, Convolution) and 1 < layer.groups == layer.in_channels == (
        layer.out_channels
    )


def n_directions(layer: nn.RNNBase) -> int:
    """2 for a bidirectional layer, whose outputs are those of both directions side by side."""
    return 2 if layer.bidirectional else 1


def _own(layer: nn.Module) -> Iterator[str]:
    """Names of parameters and buffers that have channels along their first dimension."""
    for name in ("weight", "bias", "running_mean", "running_var"):
        if getattr(layer, name, None) is not None:
            yield name


def _slots_of_convolution(layer: Convolution, side: Side) -> Iterator[TensorSlot]:
    if side == "out":
        if not layer.transposed or layer.groups == 1:
            yield TensorSlot(tensor="weight", dim=int(layer.transposed), width=layer.out_channels)
        if layer.bias is not None:
            yield TensorSlot(tensor="bias", dim=0, width=layer.out_channels)
    elif layer.groups == 1:
        dim = 0 if layer.transposed else 1
        yield TensorSlot(tensor="weight", dim=dim, width=layer.in_channels, is_read=True)
    elif layer.transposed:
        yield TensorSlot(tensor="weight", dim=0, width=layer.in_channels)


def _slots_of_recurrent(layer: nn.RNNBase, side: Side) -> Iterator[TensorSlot]:
    width, n_gates = layer.hidden_size, _N_GATES[layer.mode]
    suffixes = ("", "_reverse")[: n_directions(layer)]
    if side == "in":
        for suffix in suffixes:
            tensor = f"weight_ih_l0{suffix}"
            yield TensorSlot(tensor=tensor, dim=1, width=layer.input_size, is_read=True)
        return
    for index in range(layer.num_layers):
        for suffix in suffixes:
            own = f"l{index}{suffix}"
            kinds = ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if layer.bias else ()))
            for kind in kinds:
                yield TensorSlot(tensor=f"{kind}_{own}", dim=0, width=width, n_repeats=n_gates)
            yield TensorSlot(tensor=f"weight_hh_{own}", dim=1, width=width, is_read=True)
            if index > 0:
                yield TensorSlot(
                    tensor=f"weight_ih_{own}",
                    dim=1,
                    width=width,
                    n_repeats=len(suffixes),
                    is_read=True,
                )
