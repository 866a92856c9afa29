"""Replace layers by their factors."""

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from autocompress.analysis.layer_kind import CONVS, layer_kind
from autocompress.compress.low_rank.output_moments import output_second_moments
from autocompress.compress.low_rank.table import FactorizationSpec, find_factorization
from autocompress.plan import LayerPlan
from autocompress.tasks.base import Inputs

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
