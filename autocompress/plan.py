"""The recipe of one candidate: what to prune, factorize and quantize, as immutable JSON."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from autocompress.errors import InputError
from autocompress.technique import FULL_BITS, OF_LAYERS, TECHNIQUES


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LayerPlan:
    """What happens to one layer; the defaults leave it untouched.

    A method (`factorization`, `sparsity_pattern`, `quantizer`, `granularity`) says how and has an
    effect only where the amount it belongs to (`rank_ratio`, `sparsity`, `weight_bits`) says that
    something happens. Their names are those of the tables in `compress/`.

    Attributes:
        shared_with: Layer whose weight this one uses as well; empty for none.
        rank_ratio: Share of the full rank KEPT, in (0, 1].
        factorization: How a weight is split, see `compress.low_rank`.
        sparsity: Share of zero weights, in [0, 1).
        sparsity_pattern: Where zeros may lie, see `compress.sparsity`.
        weight_bits: Bits a weight is stored in: 2-8, 1.58 (ternary), 1 (binary), or 32 for float.
        quantizer: Which values a weight can take, see `compress.quantizers`.
        granularity: What shares a scale: `channel`, `tensor`, or `group:N` for N weights in a row.
        activation_bits: Bits of the layer's input, 8, or 32 for float. Integer kernels take both
            operands as integers, so 8 has an effect only where `weight_bits` is 8 or less.
        rate_price: What one bit per weight is worth when a quantized weight is rounded: squared
            error of the model's outputs, as a share of their variance. Above 0, `weight_bits` is
            the most a weight takes, and the price decides what it takes on average.
    """

    shared_with: str = ""
    rank_ratio: float = 1.0
    factorization: str = "svd"
    sparsity: float = 0.0
    sparsity_pattern: str = "unstructured"
    weight_bits: float = FULL_BITS
    quantizer: str = "uniform"
    granularity: str = "channel"
    activation_bits: int = FULL_BITS
    rate_price: float = 0.0

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            InputError: If a value is outside its range.
        """
        for row in OF_LAYERS:
            object.__setattr__(self, row.kind, row.checked(getattr(self, row.kind)))

    @property
    def is_untouched(self) -> bool:
        """Whether this leaves the layer as it is and says nothing about how."""
        return self == LayerPlan()

    @property
    def effective(self) -> "LayerPlan":
        """This plan without words that change nothing; see `CompressionPlan.effective`."""
        idle = {
            row.kind
            for row in OF_LAYERS
            if row.needs and getattr(self, row.needs) == TECHNIQUES[row.needs].untouched
        }
        if all(getattr(self, name) == getattr(_UNTOUCHED_LAYER, name) for name in idle):
            return self
        said = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return LayerPlan(**{name: value for name, value in said.items() if name not in idle})

    @property
    def is_quantized(self) -> bool:
        """Whether the weight is stored in fewer than 32 bits."""
        return self.weight_bits < FULL_BITS


_UNTOUCHED_LAYER: Final = LayerPlan()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CompressionPlan:
    """Pruning ratio per channel group, blocks to drop, `LayerPlan` per layer.

    What is not named is untouched.

    Attributes:
        pruning_ratios: Group name -> share of channels REMOVED, in [0, 1).
        dropped_blocks: Qualified names of residual blocks that are left out, sorted.
        layers: Qualified layer name -> its plan.
    """

    pruning_ratios: Mapping[str, float] = dataclasses.field(default_factory=dict)
    dropped_blocks: tuple[str, ...] = ()
    layers: Mapping[str, LayerPlan] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Freeze the mappings, drop untouched entries, check ranges.

        Raises:
            InputError: If a pruning ratio is outside [0, 1).
        """
        ratios = {n: _checked_ratio(n, r) for n, r in sorted(self.pruning_ratios.items())}
        ratios = {name: ratio for name, ratio in ratios.items() if ratio > 0.0}
        layers = {n: p for n, p in sorted(self.layers.items()) if not p.is_untouched}
        object.__setattr__(self, "pruning_ratios", MappingProxyType(ratios))
        object.__setattr__(self, "dropped_blocks", tuple(sorted(set(self.dropped_blocks))))
        object.__setattr__(self, "layers", MappingProxyType(layers))

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> tuple[object, ...]:
        return (CompressionPlan.from_json, (self.to_json(),))  # mapping proxies cannot be pickled

    @property
    def digest(self) -> str:
        """First 12 hex digits of the sha256 of the canonical JSON: equal plans, equal digests."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def effective(self) -> "CompressionPlan":
        """This plan without words that change nothing: two with equal ones make equal candidates.

        A method says nothing where its amount is untouched, and 8-bit activations and a rate
        penalty nothing where the weight stays float.
        """
        layers = {name: layer.effective for name, layer in self.layers.items()}
        if all(layers[name] is layer for name, layer in self.layers.items()):
            return self
        return dataclasses.replace(self, layers=layers)

    @property
    def has_prices(self) -> bool:
        """Whether bits are worth something in any layer that will be quantized."""
        return any(layer.is_quantized and layer.rate_price > 0.0 for layer in self.layers.values())

    @property
    def loses_weights(self) -> bool:
        """Whether weights are taken away, and not only rounded."""
        return bool(self.pruning_ratios or self.dropped_blocks) or any(
            getattr(layer, row.kind) != row.untouched
            for layer in self.layers.values()
            for row in OF_LAYERS
            if row.takes_weights
        )

    @property
    def structure(self) -> "CompressionPlan":
        """What it takes away, without what it rounds: plans with equal ones differ in bits only."""
        layers = {name: _without_rounding(layer) for name, layer in self.layers.items()}
        return dataclasses.replace(self, layers=layers).effective

    @property
    def is_rounded_coarsely(self) -> bool:
        """Whether some weights are rounded to fewer than 7 bits, each to the nearest value.

        Rounding with a rate penalty makes up for its own errors, and 7 bits make hardly any: what
        is left then is less than brief training adds.
        """
        return any(
            layer.weight_bits < _FINE_BITS and not layer.rate_price
            for layer in self.layers.values()
        )

    def to_json(self) -> dict[str, Any]:
        """Plain containers only; defaults are left out, so new fields keep old digests."""
        default = LayerPlan()
        layers = {
            name: {
                field.name: getattr(layer, field.name)
                for field in dataclasses.fields(layer)
                if getattr(layer, field.name) != getattr(default, field.name)
            }
            for name, layer in self.layers.items()
        }
        dropped = {"dropped_blocks": list(self.dropped_blocks)} if self.dropped_blocks else {}
        return {"pruning_ratios": dict(self.pruning_ratios), **dropped, "layers": layers}

    @classmethod
    def from_json(cls, data: object) -> "CompressionPlan":
        """Inverse of `to_json`.

        Raises:
            InputError: If `data` has another shape or a value is outside its range.
        """
        try:
            keys = _checked_keys(data)
            ratios, layers = keys["pruning_ratios"], keys["layers"]
            return cls(
                pruning_ratios={str(name): float(ratio) for name, ratio in ratios.items()},
                dropped_blocks=tuple(map(str, keys.get("dropped_blocks", ()))),
                layers={str(name): _layer_from_json(name, layer) for name, layer in layers.items()},
            )
        except (TypeError, ValueError, AttributeError, KeyError, OverflowError) as error:
            raise InputError(f"The plan must be a JSON object of a plan, but: {error}.") from error


_FINE_BITS: Final = 7
_KEPT_BY_STRUCTURE: Final = tuple(
    row.kind
    for row in OF_LAYERS
    if row.takes_weights or (row.needs and TECHNIQUES[row.needs].takes_weights)
)


def _without_rounding(layer: LayerPlan) -> LayerPlan:
    return LayerPlan(**{kind: getattr(layer, kind) for kind in _KEPT_BY_STRUCTURE})


def _checked_ratio(group: str, ratio: float) -> float:
    try:
        return float(TECHNIQUES["pruning_ratio"].checked(ratio))
    except InputError as error:
        raise InputError(f"Of group {group!r}: {error.message}") from error


def _layer_from_json(name: object, fields: Mapping[str, Any]) -> LayerPlan:
    try:
        return LayerPlan(**fields)
    except InputError as error:
        raise InputError(f"In the plan of {str(name)!r}: {error.message}", error.hint) from error


def _checked_keys(data: object) -> Mapping[str, Any]:
    """Raise a TypeError unless `data` is a mapping with the keys of a plan."""
    required, allowed = {"pruning_ratios", "layers"}, {"pruning_ratios", "dropped_blocks", "layers"}
    if not isinstance(data, Mapping) or not required <= set(data) <= allowed:
        got = sorted(map(str, data)) if isinstance(data, Mapping) else type(data).__name__
        msg = f"the plan must have the keys {sorted(required)}, but got {got}"
        raise TypeError(msg)
    return data
