"""What the inputs of layers look like: their second moments over a few batches.

Dimension key: `N` examples, `I` channels, `K` all kernel positions, `n` inputs of one output
(I·K / G), `G` groups, `L` positions of all examples together.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autocompress.analysis.refusals import CONVS
from autocompress.errors import InputError
from autocompress.tasks.base import Inputs

MOST_MOMENT_BYTES: Final = 2**29  # of one layer: 8192 inputs or outputs
_WINDOW_BYTES = 2**26  # of one convolution in memory at a time
# Of one batch: windows overlap, and most tell nothing new.
_WINDOWS_PER_INPUT = 8
_LEAST_WINDOWS = 4096
_SUPPORTED = (nn.Linear, *CONVS)
Watcher: TypeAlias = Callable[[nn.Module, Tensor, Tensor], None]
Weighted: TypeAlias = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


def input_second_moments(
    model: nn.Module, names: Iterable[str], batches: Iterable[Inputs]
) -> dict[str, Tensor]:
    """Run batches through a model and average x xᵀ over the inputs x of layers.

    x is what one output value of the layer is computed from: the last dimension of a Linear's
    input, or the window under a convolution's kernel, in the order of `weight.flatten(1)`. Where a
    batch has more than 4,096 windows and eight per entry of x, those at a random part of the
    positions count.

    Args:
        model: In any mode; it is run in eval mode and left as it was.
        names: Qualified names of Linear or Conv1d/2d/3d layers.
        batches: Inputs of the model, each of shape (N, ...); read once.

    Returns:
        Layer name -> shape (n, n), or (G, n, n) for a convolution of G > 1 groups, float64; a layer
        that was never called is missing. All are in memory at once: see `moment_bytes`.

    Raises:
        InputError: If a layer is of another kind.
    """
    layers = {name: _checked(model.get_submodule(name), name) for name in names}
    sums = {layer: _Sum() for layer in layers.values()}  # a layer can stand under several names
    watch_layers(model, {layer: total.add_inputs for layer, total in sums.items()}, batches)
    return {name: sums[layer].mean() for name, layer in layers.items() if sums[layer].n_positions}


def moment_bytes(n_values: int, n_groups: int = 1) -> int:
    """Memory that the second moments of `n_groups` vectors of `n_values` entries take."""
    return 8 * n_groups * n_values**2


def why_no_moment(n_values: int, what: str, n_groups: int = 1) -> str:
    """Why second moments are not gathered; empty if they are.

    Args:
        n_values: Entries of the vector.
        what: Its name in the plural.
        n_groups: How many such vectors a layer has.
    """
    n_bytes = moment_bytes(n_values, n_groups)
    if n_bytes <= MOST_MOMENT_BYTES:
        return ""
    return (
        f"statistics of its {n_values} {what} would take {n_bytes / 2**30:.1f} GiB of memory, "
        f"and {MOST_MOMENT_BYTES / 2**30:g} is the most"
    )


def watch_layers(
    model: nn.Module, watchers: Mapping[nn.Module, Watcher], batches: Iterable[Inputs]
) -> None:
    """Run batches through a model in eval mode and show layers' inputs and outputs to watchers.

    torch's fused encoder kernel is off meanwhile: it reads weights past their layers, which may
    have been replaced.

    Args:
        model: In any mode; left as it was.
        watchers: Layer of the model -> what is called with (layer, input, output) at each call.
        batches: Inputs of the model, each of shape (N, ...); read once.
    """

    def showing(watcher: Watcher) -> Callable[..., None]:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: Any, output: Tensor) -> None:
            watcher(layer, args[0] if args else kwargs["input"], output)

        return hook

    modes = [(module, module.training) for module in model.modules()]
    is_fused = torch.backends.mha.get_fastpath_enabled()
    hooks = [
        layer.register_forward_hook(showing(watcher), with_kwargs=True)
        for layer, watcher in watchers.items()
    ]
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        model.eval()
        with torch.no_grad():
            for inputs in batches:
                model(*inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(is_fused)
        for hook in hooks:
            hook.remove()
        for module, was_training in modes:
            module.training = was_training


def windows(layer: Weighted, x: Tensor, positions: Tensor | None = None) -> Tensor:
    """The inputs that each output of a layer is computed from (im2col).

    Args:
        layer: A Linear or convolution.
        x: Its input, shape (..., I) or (N, I, *size).
        positions: Indices into the flat positions of a convolution's output; None for all of them.

    Returns:
        Shape (G, n, L); the outputs are `weight.reshape(G, O / G, n) @ windows` plus the bias.
    """
    if isinstance(layer, nn.Linear):
        return x.reshape(1, -1, x.shape[-1]).mT
    kernel = layer.kernel_size
    if x.ndim == len(kernel) + 1:
        x = x[None]  # one example without a batch dimension
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    for dim, (size, stride, dilation) in enumerate(
        zip(kernel, layer.stride, layer.dilation, strict=True), start=2
    ):
        x = x.unfold(dim, dilation * (size - 1) + 1, stride)[..., ::dilation]
    n_dims = n_left = len(kernel)  # x is now (N, I, *positions, *kernel)
    if positions is not None:
        at: tuple[Any, ...] = torch.unravel_index(positions, x.shape[2 : 2 + n_dims])
        x, n_left = x[(slice(None), slice(None), *at)], 1
    order = (1, *range(2 + n_left, 2 + n_left + n_dims), 0, *range(2, 2 + n_left))
    n_inputs = layer.in_channels // layer.groups * layer.weight[0, 0].numel()
    return x.permute(order).reshape(layer.groups, n_inputs, -1)


class _Sum:
    """A running sum of x xᵀ over positions, filled by a watcher."""

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.n_positions = 0
        self._generator = torch.Generator().manual_seed(0)

    def add_inputs(self, layer: nn.Module, x: Tensor, output: Tensor) -> None:
        """Watcher: add what the layer was given."""
        assert isinstance(layer, _SUPPORTED)
        x = x if x.dtype == torch.float64 else x.float()
        positions = _enough_positions(layer, x, output, self._generator)
        for part in _parts(layer, x, positions):
            columns = windows(layer, part, positions)  # (G, n, L)
            product = (columns @ columns.mT).double()
            self.total = product if self.total is None else self.total.add_(product)
            self.n_positions += columns.shape[-1]

    def mean(self) -> Tensor:
        """The sum over its count, (n, n), or (G, n, n) for several groups."""
        assert self.total is not None
        mean = self.total / self.n_positions
        return mean[0] if len(mean) == 1 else mean


def _enough_positions(
    layer: Weighted, x: Tensor, output: Tensor, generator: torch.Generator
) -> Tensor | None:
    """Flat positions of a convolution's output at which windows are taken; None for all."""
    if isinstance(layer, nn.Linear):
        return None
    n_dims = len(layer.kernel_size)
    n_examples = len(x) if x.ndim == n_dims + 2 else 1
    n_positions = math.prod(output.shape[-n_dims:])
    n_windows = max(_LEAST_WINDOWS, _WINDOWS_PER_INPUT * layer.weight[0].numel())
    n_wanted = -(-n_windows // max(1, n_examples))
    if n_wanted >= n_positions:
        return None
    return torch.randperm(n_positions, generator=generator)[:n_wanted].to(x.device)


def _parts(layer: Weighted, x: Tensor, positions: Tensor | None) -> Sequence[Tensor]:
    """Examples of one input, few enough at a time for their windows to fit in memory."""
    if isinstance(layer, nn.Linear) or x.ndim == len(layer.kernel_size) + 1:
        return (x,)
    if positions is None:
        n_repeats = math.prod(layer.kernel_size) / math.prod(layer.stride)
        example_bytes = math.ceil(x[:1].nbytes * n_repeats) + 1
    else:
        n_values = layer.in_channels * math.prod(layer.kernel_size)
        example_bytes = x.element_size() * n_values * len(positions)
    return x.split(max(1, _WINDOW_BYTES // example_bytes))


def _checked(layer: nn.Module, name: str) -> Weighted:
    if type(layer) not in _SUPPORTED:
        raise InputError(
            f"Input statistics can be had of plain Linear and Conv layers, but {name!r} is a "
            f"{type(layer).__name__}."
        )
    assert isinstance(layer, _SUPPORTED)
    return layer
