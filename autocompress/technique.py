"""The techniques: what a plan can ask of a model, one row each.

A row says what the search space, plans, tables and reports know about a technique. A new one is a
row here, a field of `LayerPlan` and of `space.rules.Rule`, its levels in `space.levels`, the reason
why a layer cannot take it in `analysis.refusals`, and the code in `compress` that does it.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

from autocompress.errors import InputError

FULL_BITS: Final = 32
TERNARY_BITS: Final = 1.58  # three values: log2(3)
BINARY_BITS: Final = 1
WEIGHT_BITS: Final = (32, 8, 7, 6, 5, 4, 3, 2, TERNARY_BITS, BINARY_BITS)
ACTIVATION_BITS: Final = (32, 8)

Level: TypeAlias = float | str
KnobKind = Literal[
    "pruning_ratio",
    "drop_block",
    "shared_with",
    "rank_ratio",
    "factorization",
    "sparsity",
    "sparsity_pattern",
    "weight_bits",
    "quantizer",
    "granularity",
    "activation_bits",
    "rate_price",
]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Technique:
    """What is known about a technique.

    Attributes:
        kind: Of its knobs, and its field in `LayerPlan` if it acts on layers.
        acts_on: What its targets are: channel groups and blocks have fields of their own in
            `CompressionPlan`.
        untouched: The level that changes nothing.
        checked: Gives a level the form in which plans keep it; raises an InputError if it is none.
        needs: Kind without which it does nothing: a quantizer without bits. None if it does
            something by itself.
        is_method: Whether it says how what it needs is brought about; else it is an amount.
        is_structural: Whether it changes shapes, and so the time that an inference takes.
        takes_weights: Whether weights are gone afterwards, and not only rounded.
        title: What a knob of it is called in tables.
        title_in_plan: What a line about it starts with where a plan is told; empty for `title`.
        verb: What has happened to its targets, for `check`; empty to leave it out there.
        write: A level in words.
        write_in_card: The same in a model card, behind the target's name.
        control: Label and level of the control that sets it everywhere; None for no control.
    """

    kind: KnobKind
    acts_on: Literal["group", "block", "layer"] = "layer"
    untouched: Level
    checked: Callable[[Any], Level]
    needs: KnobKind | None = None
    is_method: bool = False
    is_structural: bool = False
    takes_weights: bool = False
    title: str
    title_in_plan: str = ""
    verb: str = ""
    write: Callable[[Any], str]
    write_in_card: Callable[[Any], str]
    control: tuple[str, float] | None = None

    @property
    def refused_as(self) -> KnobKind:
        """Kind under which `analysis.refusals` says why a layer cannot take it."""
        return self.needs if self.is_method and self.needs else self.kind


def _share_of(kind: KnobKind) -> Callable[[Any], float]:
    def checked(value: Any) -> float:
        if not 0.0 <= value < 1.0:
            raise InputError(f"`{kind}` must be in [0, 1), but got {value}.")
        return float(value)

    return checked


def _checked_rank(value: Any) -> float:
    if not 0.0 < value <= 1.0:
        raise InputError(f"`rank_ratio` must be in (0, 1], but got {value}.")
    return float(value)


def _checked_weight_bits(value: Any) -> float:
    if value not in WEIGHT_BITS:
        raise InputError(f"`weight_bits` must be 2-8, 1.58, 1 or 32, but got {value}.")
    # 8.0 equals 8 but reads otherwise in JSON: equal plans must have equal digests
    return int(value) if float(value).is_integer() else float(value)


def _checked_activation_bits(value: Any) -> int:
    if value not in ACTIVATION_BITS:
        raise InputError(f"`activation_bits` must be 8 or 32, but got {value}.")
    return int(value)


def _checked_price(value: Any) -> float:
    if not (math.isfinite(value) and value >= 0.0):
        raise InputError(f"`rate_price` must be a number >= 0, but got {value}.")
    return float(value)


def _name_of(kind: KnobKind) -> Callable[[Any], str]:
    def checked(value: Any) -> str:
        if not isinstance(value, str):
            raise InputError(f"`{kind}` must be a name, but got {value!r}.")
        return value

    return checked


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _bits(bits: float) -> str:
    names = {FULL_BITS: "float", TERNARY_BITS: "ternary", BINARY_BITS: "binary"}
    return names.get(bits, f"{bits:.0f} bit")


_ROWS: Final = (
    Technique(
        kind="pruning_ratio",
        acts_on="group",
        untouched=0.0,
        checked=_share_of("pruning_ratio"),
        is_structural=True,
        takes_weights=True,
        title="channels removed",
        verb="pruned",
        write=_percent,
        write_in_card="{:.0%} of the channels removed".format,
        control=("uniform pruning", 0.3),
    ),
    Technique(
        kind="drop_block",
        acts_on="block",
        untouched=0,
        checked=int,
        is_structural=True,
        takes_weights=True,
        title="block",
        title_in_plan="blocks",
        write=lambda level: "dropped" if level else "kept",
        write_in_card=lambda level: "the whole block left out",
    ),
    Technique(
        kind="shared_with",
        untouched="",
        checked=_name_of("shared_with"),
        takes_weights=True,
        title="weight shared",
        write=lambda name: name or "own",
        write_in_card="the weight of `{}`".format,
    ),
    Technique(
        kind="rank_ratio",
        untouched=1.0,
        checked=_checked_rank,
        is_structural=True,
        takes_weights=True,
        title="rank kept",
        verb="factorized",
        write=_percent,
        write_in_card="{:.0%} of the rank kept".format,
    ),
    Technique(
        kind="factorization",
        untouched="svd",
        checked=_name_of("factorization"),
        needs="rank_ratio",
        is_method=True,
        title="factors",
        write=str,
        write_in_card=str,
    ),
    Technique(
        kind="sparsity",
        untouched=0.0,
        checked=_share_of("sparsity"),
        takes_weights=True,
        title="zeros",
        write=_percent,
        write_in_card="{:.0%} of the weights zero".format,
        control=("uniform sparsity", 0.5),
    ),
    Technique(
        kind="sparsity_pattern",
        untouched="unstructured",
        checked=_name_of("sparsity_pattern"),
        needs="sparsity",
        is_method=True,
        title="pattern of zeros",
        write=str,
        write_in_card=str,
    ),
    Technique(
        kind="weight_bits",
        untouched=FULL_BITS,
        checked=_checked_weight_bits,
        title="weight bits",
        title_in_plan="weights",
        verb="quantized",
        write=_bits,
        write_in_card="{:g}-bit weights".format,
    ),
    Technique(
        kind="quantizer",
        untouched="uniform",
        checked=_name_of("quantizer"),
        needs="weight_bits",
        is_method=True,
        title="quantizer",
        write=str,
        write_in_card=str,
    ),
    Technique(
        kind="granularity",
        untouched="channel",
        checked=_name_of("granularity"),
        needs="weight_bits",
        is_method=True,
        title="scale per",
        write=str,
        write_in_card="per {}".format,
    ),
    Technique(
        kind="activation_bits",
        untouched=FULL_BITS,
        checked=_checked_activation_bits,
        needs="weight_bits",
        title="input bits",
        title_in_plan="inputs",
        write=_bits,
        write_in_card="{:g}-bit inputs".format,
    ),
    Technique(
        kind="rate_price",
        untouched=0.0,
        checked=_checked_price,
        needs="weight_bits",
        title="rate penalty",
        write=lambda price: f"{price:g}" if price else "none",
        write_in_card="rounded with a rate penalty of {:g}".format,
    ),
)
TECHNIQUES: Final[Mapping[KnobKind, Technique]] = MappingProxyType({row.kind: row for row in _ROWS})
"""By kind, in the order in which knobs are made and tables list them."""

OF_LAYERS: Final = tuple(row for row in _ROWS if row.acts_on == "layer")
METHODS: Final = tuple(row for row in _ROWS if row.is_method)
