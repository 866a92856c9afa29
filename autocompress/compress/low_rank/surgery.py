"""Replace layers by their factors."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from autocompress.analysis.refusals import CONVS, layer_kind
from autocompress.compress.input_moments import watch_layers
from autocompress.compress.low_rank.registry import FactorizationSpec, find_factorization
from autocompress.plan import LayerPlan
from autocompress.tasks.base import Inputs


def output_second_moments(
    model: nn.Module, names: Iterable[str], batches: Iterable[Inputs]
) -> dict[str, Tensor]:
    """Run batches through a model and average y yᵀ over the outputs y of layers, bias left out.

    With the weight W and the second moment M of the inputs this is W M Wᵀ, at a small part of the
    cost: on ResNet-20's kernels about an eighth of the time.

    Args:
        model: In any mode; it is run in eval mode and left as it was.
        names: Qualified names of Linear or Conv1d/2d/3d layers.
        batches: Inputs of the model, each of shape (N, ...); read once.

    Returns:
        Layer name -> shape (O, O), float64; a layer that was never called is missing.
    """
    layers = {name: model.get_submodule(name) for name in names}
    sums = {layer: _Sum() for layer in layers.values()}  # a layer can stand under several names
    watch_layers(model, {layer: total.add_outputs for layer, total in sums.items()}, batches)
    return {
        name: sums[layer].total / sums[layer].n_positions
        for name, layer in layers.items()
        if sums[layer].n_positions
    }


class _Sum:
    """A running sum of y yᵀ over positions, filled by a watcher."""

    def __init__(self) -> None:
        self.total = torch.zeros((), dtype=torch.float64)
        self.n_positions = 0

    def add_outputs(self, layer: nn.Module, x: Tensor, output: Tensor) -> None:
        """Watcher: add what the layer has computed."""
        channels = output.ndim - len(layer.kernel_size) - 1 if isinstance(layer, CONVS) else -1
        columns = output.double().movedim(channels, 0).flatten(1)  # (O, L)
        if isinstance(layer.bias, Tensor):
            columns = columns - layer.bias.double()[:, None]
        self.total = columns @ columns.T + self.total.to(columns.device)
        self.n_positions += columns.shape[1]


_PLAIN = (nn.Linear, nn.Embedding, *CONVS)


def factorize_layers_(
    model: nn.Module, layers: Mapping[str, LayerPlan], batches: Iterable[Inputs] = ()
) -> tuple[str, ...]:
    """Replace all layers whose plan says so by their factors, in place, after one pass over data.

    Args:
        model: Changed.
        layers: Qualified name of a Linear, Embedding or ungrouped convolution -> its plan; only
            `rank_ratio` and `factorization` count.
        batches: Inputs of the model, each of shape (N, ...), for methods that need data; read once.

    Returns:
        Why layers were left as they are, one line each.

    Raises:
        InputError: If there is no such method.
    """
    wishes = {name: layer for name, layer in layers.items() if layer.rank_ratio < 1.0}
    specs = {name: find_factorization(wish.factorization) for name, wish in wishes.items()}
    reasons = {
        name: _why_not(model, name, wish.rank_ratio, specs[name]) for name, wish in wishes.items()
    }
    wanted = [name for name, spec in specs.items() if spec.needs_data and not reasons[name]]
    moments = output_second_moments(model, wanted, batches) if wanted else {}
    for name, wish in wishes.items():
        moment = moments.get(name)
        if not reasons[name] and name in wanted:
            reasons[name] = _why_unusable(moment)
        if not reasons[name]:
            layer = model.get_submodule(name)
            if isinstance(layer, _PLAIN):
                _replace_(model, layer, specs[name].split(layer, wish.rank_ratio, moment))
            else:
                reasons[name] = "it was split already, under another name"
    return tuple(
        f"rank_ratio={wishes[name].rank_ratio:g} of '{name}' skipped: {reason}"
        for name, reason in reasons.items()
        if reason
    )


def _why_not(model: nn.Module, name: str, rank_ratio: float, spec: FactorizationSpec) -> str:
    layer = model.get_submodule(name)
    if type(layer) not in _PLAIN:
        return f"it is a {type(layer).__name__}, not a plain Linear, Embedding or convolution"
    assert isinstance(layer, _PLAIN)
    if layer is model:
        return "the model is this layer alone, which nothing could hold in its place"
    if "weight" not in layer._parameters:
        return "its weight is computed from other parameters"
    if isinstance(layer, nn.Embedding) and layer.max_norm is not None:
        return f"its rows are kept at max_norm={layer.max_norm:g}, which factors cannot do"
    for other, module in model.named_modules():
        if module is not layer and any(p is layer.weight for p in module._parameters.values()):
            return f"its weight is tied to '{other}'"
    shape = tuple(layer.weight.shape)
    if reason := spec.why_not(layer_kind(layer), shape):
        return reason
    if not spec.shrinks(shape, rank_ratio):
        return f"factors of its weight {shape} would not be smaller than it"
    return ""


def _why_unusable(moment: Tensor | None) -> str:
    if moment is None:
        return "the method needs data, and no batch has reached the layer"
    return "" if bool(moment.isfinite().all()) else "its outputs are not all finite"


def _replace_(model: nn.Module, layer: nn.Module, factors: nn.Sequential) -> None:
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if module is layer:  # a shared layer can stand under several names
            model.set_submodule(path, factors)
