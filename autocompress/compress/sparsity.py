"""Sparsity: which weights of a model become zero, in each layer alone or by one threshold.

The maths of one matrix is in `magnitude_masks`, the patterns in `sparsity_patterns`.
"""

import dataclasses
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from autocompress.analysis.refusals import layer_kind
from autocompress.compress.compressed_layers import (
    channel_axis,
    mask_of,
    set_mask_,
    weight_parameters,
)
from autocompress.compress.magnitude_masks import block_scores, keep_highest, n_zeros
from autocompress.compress.prune import Scope
from autocompress.compress.sparsity_patterns import Pattern, find_pattern, why_not_sparsify


def masks(
    weights: Mapping[str, Tensor],
    sparsities: Mapping[str, float],
    patterns: Mapping[str, Pattern],
    scope: Scope,
    earlier: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Choose the weights that stay in several matrices: the largest.

    Args:
        weights: Name -> matrix of shape (O, n).
        sparsities: Name -> share of zeros, in [0, 1).
        patterns: Name -> where zeros may lie.
        scope: `local` for so many zeros in each; `global` for so many in all, by one threshold
            over all matrices whose zeros come in blocks of one shape (Han et al. 2015). Groups of
            M hold their number in every group, so they are always local.
        earlier: Name -> mask whose zeros remain; one that leaves nothing (the channels that held
            the last weights were cut) is forgotten.

    Returns:
        Name -> bool of shape (O, n), False where the weight becomes zero. At least one weight
        stays in each.
    """
    known = {name: mask for name, mask in (earlier or {}).items() if mask.any()}
    result = {}
    shapes: dict[tuple[int, int], list[str]] = {}
    for name, weight in weights.items():
        if scope == "global" and not patterns[name].group_size:
            shapes.setdefault(patterns[name].block, []).append(name)
        else:
            result[name] = patterns[name].mask(weight, sparsities[name], known.get(name))
    for block, names in shapes.items():
        scores = {name: block_scores(weights[name], block, known.get(name)) for name in names}
        total = sum(n_zeros(scores[name].numel(), sparsities[name]) for name in names)
        for name, kept in _keep_highest_of_all(scores, total).items():
            mask = patterns[name].spread(kept, weights[name].shape)
            result[name] = mask & known[name] if name in known else mask
    return {name: result[name] for name in weights}


def sparsify_(
    model: nn.Module, wanted: Mapping[str, tuple[float, str]], scope: Scope = "local"
) -> tuple[str, ...]:
    """Mask the smallest weights of layers, in place; zeros of earlier masks remain.

    What stands in the place of a factorized layer is masked factor by factor, a recurrent layer
    matrix by matrix. A weight that several layers own gets one mask, which all of them compute
    with; the first layer that names it decides.

    Args:
        model: Changed: the layers become compressed layers with masks.
        wanted: Layer name -> share of zeros, in [0, 1), and name of the pattern.
        scope: As in `masks`.

    Returns:
        What was asked for and not done, one line each.

    Raises:
        InputError: If there is no such pattern.
    """
    targets, skipped = _find_targets(model, wanted)
    found = masks(
        {name: _as_matrix(t.layer, t.weight) for name, t in targets.items()},
        {name: t.sparsity for name, t in targets.items()},
        {name: find_pattern(t.pattern) for name, t in targets.items()},
        scope,
        {
            name: _as_matrix(target.layer, mask)
            for name, target in targets.items()
            if (mask := mask_of(target.layer, target.parameter)) is not None
        },
    )
    owners = _owners_by_weight(model)
    for name, matrix in found.items():
        target = targets[name]
        if matrix.all():
            skipped.append(_skip_line(target, name, f"it zeroes none of {matrix.numel()} weights"))
            continue
        mask = _from_matrix(target.layer, matrix, target.weight)
        for layer, parameter in owners[id(target.weight)]:
            set_mask_(layer, mask, parameter)
    return tuple(skipped)


def mask_nothing_(model: nn.Module, names: Iterable[str]) -> None:
    """Give every weight of layers that has no mask yet one that keeps all, in place.

    Args:
        model: Changed.
        names: Layers, or what stands in their place.
    """
    targets, _ = _find_targets(model, dict.fromkeys(names, (0.0, "unstructured")))
    owners = _owners_by_weight(model)
    for target in targets.values():
        if mask_of(target.layer, target.parameter) is None:
            mask = torch.ones_like(target.weight, dtype=torch.bool)
            for layer, parameter in owners[id(target.weight)]:
                set_mask_(layer, mask, parameter)


def stepped_sparsities(sparsity: float, n_steps: int) -> tuple[float, ...]:
    """Sparsity after each step of the cubic schedule, fast first (Zhu & Gupta 2017).

    Args:
        sparsity: Where it ends, exactly; it starts from 0.
        n_steps: How many steps there are, >= 1.

    >>> stepped_sparsities(0.5, 2)
    (0.4375, 0.5)
    """
    left = (1.0 - step / n_steps for step in range(1, n_steps + 1))
    return tuple(sparsity - sparsity * share**3 for share in left)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Target:
    """A weight to be masked.

    Attributes:
        layer: A layer that owns it.
        parameter: What the layer calls it.
        weight: The parameter itself.
        sparsity: Share of zeros, in [0, 1).
        pattern: Name of the pattern.
    """

    layer: nn.Module
    parameter: str
    weight: nn.Parameter
    sparsity: float
    pattern: str


def _find_targets(
    model: nn.Module, wanted: Mapping[str, tuple[float, str]]
) -> tuple[dict[str, _Target], list[str]]:
    """Qualified parameter name -> what to mask there, each parameter once; and what is skipped."""
    found: dict[str, _Target] = {}
    skipped: list[str] = []
    seen: set[int] = set()
    for name, (sparsity, pattern) in wanted.items():
        for path, layer in model.get_submodule(name).named_modules(prefix=name):
            for parameter in weight_parameters(layer):
                weight = layer.get_parameter(parameter)
                if id(weight) in seen:
                    continue
                seen.add(id(weight))
                target = _Target(
                    layer=layer,
                    parameter=parameter,
                    weight=weight,
                    sparsity=sparsity,
                    pattern=pattern,
                )
                where = path if parameter == "weight" else f"{path}.{parameter}"
                if reason := why_not_sparsify(pattern, layer_kind(layer), tuple(weight.shape)):
                    skipped.append(_skip_line(target, where, reason))
                else:
                    found[where] = target
    return found, skipped


def _skip_line(target: _Target, where: str, reason: str) -> str:
    return f"sparsity={target.sparsity:g} ({target.pattern}) of '{where}' skipped: {reason}"


def _owners_by_weight(model: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """Id of a parameter -> the layers that own it, and what they call it."""
    owners: dict[int, list[tuple[nn.Module, str]]] = {}
    for layer in model.modules():
        for parameter in weight_parameters(layer):
            owners.setdefault(id(layer.get_parameter(parameter)), []).append((layer, parameter))
    return owners


def _as_matrix(layer: nn.Module, tensor: Tensor) -> Tensor:
    """A weight or mask as (O, n): outputs by inputs x pixels."""
    moved = tensor.detach().movedim(channel_axis(layer), 0)
    return moved.flatten(1)


def _from_matrix(layer: nn.Module, matrix: Tensor, weight: Tensor) -> Tensor:
    """Inverse of `_as_matrix`."""
    axis = channel_axis(layer)
    return matrix.reshape(weight.movedim(axis, 0).shape).movedim(0, axis)


def _keep_highest_of_all(scores: Mapping[str, Tensor], n_lowest: int) -> dict[str, Tensor]:
    """All but the `n_lowest` of all scores, except that each tensor keeps its highest."""
    flat = [score.flatten().double() for score in scores.values()]
    protected = []
    for score in flat:
        highest = score.argsort(stable=True)[-1]
        protected.append(score.index_fill(0, highest, torch.inf))
    parts = keep_highest(torch.cat(protected), n_lowest).split([len(score) for score in flat])
    return {
        name: part.reshape(score.shape)
        for (name, score), part in zip(scores.items(), parts, strict=True)
    }
