"""Gates that learn which channels to close: L0 regularisation (Louizos, Welling & Kingma 2018).

Dimension key: `C` output channels, one gate each; `n` weights of a channel.
"""

import contextlib
import dataclasses
import math
from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from autocompress.compress.compressed_layers import is_compressed, quantizer_of
from autocompress.tasks.base import Inputs
from autocompress.train.activations import trace_calls
from autocompress.train.channel_weights import channel_rows, scale_channels_

# Of the paper: temperature, and the interval a gate is stretched over before it is clipped.
_BETA, _LOW, _HIGH = 2.0 / 3.0, -0.1, 1.1
# Where a gate without noise is just fully open, so that training starts from the model as it is.
_OPEN = math.log((1.0 - _LOW) / (_HIGH - 1.0))
_NOISE_FLOOR = 1e-6
_GATED = (
    nn.Linear,
    nn.Embedding,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


def sample_gates(log_alpha: Tensor, noise: Tensor) -> Tensor:
    """Random gates in [0, 1], differentiable in `log_alpha`, exactly 0 or 1 with some probability.

    Args:
        log_alpha: Location of each gate, shape (C,).
        noise: Uniform in (0, 1), shape (N, C) for N draws of each.
    """
    logistic = noise.log() - (1.0 - noise).log()
    soft = torch.sigmoid((logistic + log_alpha) / _BETA)
    return (soft * (_HIGH - _LOW) + _LOW).clamp(0.0, 1.0)


def mean_gates(log_alpha: Tensor) -> Tensor:
    """The gates used after training, without noise: shape (C,), in [0, 1]."""
    return (torch.sigmoid(log_alpha) * (_HIGH - _LOW) + _LOW).clamp(0.0, 1.0)


def open_probability(log_alpha: Tensor) -> Tensor:
    """Probability that a random gate is not 0: the expected L0 norm of each gate, shape (C,)."""
    return torch.sigmoid(log_alpha - _BETA * math.log(-_LOW / _HIGH))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Gate:
    """The gates of one layer.

    Attributes:
        layer: Whose output channels they multiply.
        channel_dim: Dimension of those channels in its output.
        n_weights: Weights of one channel.
        log_alpha: Shape (C,), learned.
    """

    layer: nn.Module
    channel_dim: int
    n_weights: int
    log_alpha: nn.Parameter

    def __call__(self, module: nn.Module, args: object, output: Tensor) -> Tensor:
        """The layer's output, gated: at random in training mode, else without noise.

        Every example draws its own gates. With one draw for a batch, a batch-norm behind the layer
        would undo them, and nothing but the penalty would reach their parameters.
        """
        shape = [1] * output.ndim
        shape[self.channel_dim] = len(self.log_alpha)
        if module.training:
            shape[0] = len(output)
            noise = torch.rand(len(output), len(self.log_alpha), device=output.device)
            noise = noise.clamp(_NOISE_FLOOR, 1.0 - _NOISE_FLOOR)
            gates = sample_gates(self.log_alpha, noise)
        else:
            gates = mean_gates(self.log_alpha)
        return output * gates.to(output.dtype).reshape(shape)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gates:
    """Gates on the output channels of a model's layers.

    Attributes:
        gates: One entry for each layer.
    """

    gates: tuple[_Gate, ...]

    @property
    def parameters(self) -> tuple[nn.Parameter, ...]:
        """What is learned: the location of each gate."""
        return tuple(gate.log_alpha for gate in self.gates)

    def expected_n_weights(self) -> Tensor:
        """Expected number of weights whose channel is open; the scalar to be penalised."""
        counts = [open_probability(g.log_alpha).sum() * g.n_weights for g in self.gates]
        return torch.stack(counts).sum() if counts else torch.zeros(())

    def bake_(self) -> None:
        """Multiply the gates into weights and biases: the model without gates is as with them."""
        for gate in self.gates:
            scale_channels_(gate.layer, mean_gates(gate.log_alpha.detach()))


@contextlib.contextmanager
def gating(model: nn.Module, inputs: Inputs) -> Iterator[Gates]:
    """Put gates on a model inside the block; afterwards they are part of its weights.

    Where the block raises, the gates are taken off and the weights left as they are.

    Args:
        model: Its own parameters stay what they are until the end.
        inputs: Inputs of two or more examples, on the model's device, for one trial run.
    """
    gates = Gates(gates=tuple(_make_gate(layer) for layer in gated_layers(model, inputs).values()))
    handles = [gate.layer.register_forward_hook(gate) for gate in gates.gates]
    try:
        yield gates
    finally:
        for handle in handles:
            handle.remove()
    gates.bake_()


def gated_layers(model: nn.Module, inputs: Inputs) -> dict[str, nn.Module]:
    """Layers whose output channels can be closed, by name.

    Not: the last layer with weights, whose outputs are the model's; layers that a run does not
    call, as their weights are read past them; recurrent layers, whose outputs come back to them;
    quantized layers, whose values would leave their grid; weights of two layers. A mask does not
    hinder: what it makes zero stays zero behind a gate.
    """
    calls = trace_calls(model, inputs)
    called = [call.name for call in calls if call.has_weight][:-1]
    owners = Counter(id(p) for m in model.modules() for p in m.parameters(recurse=False))
    layers = {name: model.get_submodule(name) for name in called}
    return {
        name: layer
        for name, layer in layers.items()
        if _can_be_gated(layer)
        and isinstance(weight := layer._parameters.get("weight"), nn.Parameter)
        and weight.requires_grad
        and owners[id(weight)] == 1
        and getattr(layer, "max_norm", None) is None
    }


def _can_be_gated(layer: nn.Module) -> bool:
    """Whether a layer computes with its weight as it is, or with a mask times it."""
    if is_compressed(layer):
        return isinstance(layer, _GATED) and quantizer_of(layer) is None
    return type(layer) in _GATED


def _make_gate(layer: nn.Module) -> _Gate:
    weight = layer.weight
    assert isinstance(weight, nn.Parameter)
    n_channels, n_weights = channel_rows(layer, "weight", weight).shape
    is_conv = isinstance(layer, nn.modules.conv._ConvNd)
    return _Gate(
        layer=layer,
        channel_dim=1 - weight.ndim if is_conv else -1,
        n_weights=n_weights,
        log_alpha=nn.Parameter(torch.full((n_channels,), _OPEN, device=weight.device)),
    )
