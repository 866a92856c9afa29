"""Whether a plan fits a model: every name it uses, and every value where it is asked for."""

import itertools
from collections.abc import Collection, Iterator

from torch import Tensor, nn

from autocompress.analysis.channel_groups import ChannelGroup
from autocompress.analysis.refusals import layer_kind
from autocompress.compress.compressed_layers import COMPRESSED
from autocompress.compress.low_rank.registry import why_not_factorize
from autocompress.compress.quantizers.registry import why_not_quantize
from autocompress.compress.sparsity_patterns import why_not_sparsify
from autocompress.errors import InputError
from autocompress.plan import CompressionPlan, LayerPlan


def check_plan(
    model: nn.Module,
    plan: CompressionPlan,
    groups: tuple[ChannelGroup, ...],
    blocks: Collection[str] | None = None,
) -> None:
    """Check a plan before anything is built.

    Args:
        model: The base model.
        plan: What is asked.
        groups: Its channel groups.
        blocks: Its residual blocks; None does not check them.

    Raises:
        InputError: If the plan names a group, layer, block or method that there is not, or asks a
            layer for something that it cannot take.
    """
    known_groups = {group.name for group in groups}
    known_modules = dict(model.named_modules())
    sources = (layer.shared_with for layer in plan.layers.values() if layer.shared_with)
    for name in itertools.chain(
        (n for n in plan.pruning_ratios if n not in known_groups),
        (n for n in (*plan.dropped_blocks, *plan.layers, *sources) if n not in known_modules),
    ):
        raise InputError(
            f"The plan names {name!r}, but the model has no such channel group, block or layer.",
            "The plan was made for another model, or for another version of it.",
        )
    for name in plan.dropped_blocks:
        if blocks is not None and name not in blocks:
            raise InputError(
                f"The plan drops {name!r}, but it must be one of the model's residual blocks: "
                f"{', '.join(blocks) or 'there is none'}."
            )
    for name, layer in plan.layers.items():
        module = known_modules[name]
        if type(module) not in COMPRESSED:
            raise InputError(
                f"The plan compresses {name!r}, but it must be a plain linear, convolution, "
                f"embedding or recurrent layer and is a {type(module).__name__}."
            )
        for reason in _reasons(module, layer):
            raise InputError(f"The plan cannot be applied to {name!r}: {reason}.")


def _reasons(module: nn.Module, layer: LayerPlan) -> Iterator[str]:
    weight = getattr(module, "weight", None)
    kind, shape = layer_kind(module), tuple(weight.shape) if isinstance(weight, Tensor) else ()
    reasons = []
    if layer.rank_ratio < 1.0:
        reason = why_not_factorize(layer.factorization, kind, shape)
        reasons.append((f"rank_ratio={layer.rank_ratio:g}", reason))
    if layer.sparsity > 0.0:
        reason = why_not_sparsify(layer.sparsity_pattern, kind, shape)
        reasons.append((f"sparsity={layer.sparsity:g}", reason))
    if layer.is_quantized:
        reason = why_not_quantize(
            layer.quantizer, layer.granularity, layer.weight_bits, kind, shape
        )
        reasons.append((f"weight_bits={layer.weight_bits:g}", reason))
    for asked, reason in reasons:
        if reason:
            yield f"{asked} cannot be had: {reason}"
