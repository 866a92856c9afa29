"""What a technique can really do to a target: levels that make a difference, or why there are none.

Each function returns the levels without the untouched one, in order of growing compression, and the
reason if there are none.
"""

import dataclasses
from collections.abc import Hashable, Iterable, Mapping
from typing import TypeAlias

from autocompress.analysis.channel_groups import ChannelGroup
from autocompress.analysis.profile import LayerInfo
from autocompress.compress.low_rank.registry import ranks_of, shrinks, why_not_factorize
from autocompress.compress.prune import kept_channels
from autocompress.compress.quantizers.registry import has_integer_form, why_not_quantize
from autocompress.compress.sparsity_patterns import realised_sparsity, why_not_sparsify
from autocompress.errors import InputError
from autocompress.technique import FULL_BITS, KnobKind, Level

Possible: TypeAlias = tuple[tuple[Level, ...], str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Methods:
    """Methods of a layer: the fixed ones, and the default where a knob decides."""

    factorization: str
    sparsity_pattern: str
    quantizer: str
    granularity: str


def widths(group: ChannelGroup, ratios: Iterable[float], round_to: int) -> Possible:
    """Pruning ratios that leave a width no smaller ratio leaves already."""
    n, block = group.n_channels, group.block
    kept = [r for r in sorted(set(ratios)) if r > 0.0]
    levels = _distinct(kept, {r: kept_channels(n, r, round_to, block) for r in kept}, idle=n)
    what = f"{n} channels" if block == 1 else f"{n} units of {block} channels"
    return levels, f"its {what} stay when rounded to multiples of {round_to}"


def rank_ratios(layer: LayerInfo, ratios: Iterable[float], names: Iterable[str]) -> Possible:
    """Rank ratios whose factors are smaller than the weight by one method, equal ranks once.

    Args:
        layer: The layer.
        ratios: What is asked for.
        names: Factorizations it can be given.
    """
    shape = layer.weight_shape
    reasons = {name: why_not_factorize(name, layer.kind, shape) for name in names}
    usable = [name for name, reason in reasons.items() if not reason]
    if not usable:
        return (), next(iter(reasons.values()))
    wanted = [r for r in sorted(set(ratios), reverse=True) if r < 1.0]
    wanted = [r for r in wanted if any(shrinks(name, shape, r) for name in usable)]
    ranks = {r: tuple(ranks_of(name, shape, r) for name in usable) for r in wanted}
    return _distinct(wanted, ranks), f"no rank asked for would make its weight {shape} smaller"


def sparsities(layer: LayerInfo, shares: Iterable[float], names: Iterable[str]) -> Possible:
    """Shares of zeros that differ in some pattern, if one can be laid over the weight.

    Args:
        layer: The layer.
        shares: What is asked for.
        names: Patterns it can be given.
    """
    shape, kind = layer.weight_shape, layer.kind
    reasons = {name: why_not_sparsify(name, kind, shape) for name in names}
    usable = [name for name, reason in reasons.items() if not reason]
    if not usable:
        return (), next(iter(reasons.values()))
    wanted = sorted(set(shares))
    zeros = {s: tuple(realised_sparsity(name, shape, s, kind) for name in usable) for s in wanted}
    levels = _distinct(wanted, zeros, idle=tuple(0.0 for _ in usable))
    return levels, "the shares asked for come to no zero at all in its pattern"


def activation_bits(bits: Iterable[float], wanted: Iterable[float], methods: Methods) -> Possible:
    """Bits of the input, if the weight can be integers too.

    Args:
        bits: Weight bits it can be given; without any its weight stays float.
        wanted: What is asked for.
        methods: Its fixed methods.
    """
    if not any(
        has_integer_form(methods.quantizer, methods.granularity, b) for b in bits if b < FULL_BITS
    ):
        return (), "its weight never becomes int8 integers, and integer kernels need both operands"
    return tuple(b for b in sorted(set(wanted)) if b < FULL_BITS), "it asks for no bits below 32"


def rate_prices(bits: Iterable[float], wanted: Iterable[float], methods: Methods) -> Possible:
    """Rate penalties, if the weight can be quantized to values that it can choose one by one.

    Args:
        bits: Weight bits it can be given.
        wanted: What is asked for.
        methods: Its fixed methods.
    """
    if not any(b < FULL_BITS for b in bits):
        return (), "its weight stays float, and only what is quantized is rounded"
    if methods.quantizer == "hashed":
        return (), "its hashed weights share values and cannot be rounded one by one"
    return tuple(p for p in sorted(set(wanted)) if p > 0.0), "it asks for no price above 0"


def weight_bits(layer: LayerInfo, bits: Iterable[float], methods: Methods) -> Possible:
    """Bits that the quantizer offers.

    Raises:
        InputError: If it offers some of them only.
    """
    wanted = [_whole(b) for b in sorted(set(bits), reverse=True) if b < FULL_BITS]
    reasons = {b: _why_not(layer, b, methods) for b in wanted}
    kept = tuple(b for b in wanted if not reasons[b])
    if kept and len(kept) < len(wanted):
        bad = next(b for b in wanted if reasons[b])
        raise InputError(
            f"`weight_bits` {bad:g} of {layer.name!r} cannot be had: {reasons[bad]}.",
            f"Leave out {bad:g} there; {', '.join(f'{b:g}' for b in kept)} can be had.",
        )
    return kept, next(iter(reasons.values()), "it asks for no bits below 32")


def method_names(
    kind: KnobKind, layer: LayerInfo, names: Iterable[str], every: Iterable[tuple[float, Methods]]
) -> Possible:
    """Methods among `names` that apply to the layer whatever the knobs before them choose.

    Args:
        kind: Which method.
        layer: The layer.
        names: What is asked for.
        every: All bits and other methods that the layer can be given.

    Returns:
        What applies, and why the others do not: a reason beside methods means that some do not.
    """
    combinations = [(b, dataclasses.replace(m, **{kind: n})) for n in names for b, m in every]
    reasons: dict[str, str] = {}
    for bits, methods in combinations:
        name = getattr(methods, kind)
        if kind == "factorization":
            reason = why_not_factorize(name, layer.kind, layer.weight_shape)
        elif kind == "sparsity_pattern":
            reason = why_not_sparsify(name, layer.kind, layer.weight_shape)
        else:
            reason = _why_not(layer, bits, methods)
        reasons[name] = reasons.get(name) or reason
    kept = tuple(name for name, reason in reasons.items() if not reason)
    dropped = "; ".join(f"no {name}: {reason}" for name, reason in reasons.items() if reason)
    return kept, dropped or "it names no other method than the default"


def _why_not(layer: LayerInfo, bits: float, methods: Methods) -> str:
    return why_not_quantize(
        methods.quantizer, methods.granularity, bits, layer.kind, layer.weight_shape
    )


def _distinct(
    ratios: Iterable[float], effects: Mapping[float, Hashable], idle: Hashable = None
) -> tuple[float, ...]:
    """The ratios, in order, whose effect is new and not `idle`."""
    seen, kept = {idle}, []
    for ratio in ratios:
        if effects[ratio] not in seen:
            seen.add(effects[ratio])
            kept.append(ratio)
    return tuple(kept)


def _whole(bits: float) -> float:
    return int(bits) if float(bits).is_integer() else bits
