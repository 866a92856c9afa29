"""Rules x profile -> search space: every knob the model can really take, and why others are not."""

import dataclasses
import importlib.metadata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from autocompress.analysis.channel_groups import UNTRACED
from autocompress.analysis.profile import LayerInfo, ModelProfile
from autocompress.compress.importance.registry import CRITERION_REGISTRY
from autocompress.compress.low_rank.registry import FACTORIZATION_REGISTRY
from autocompress.compress.quantizers.registry import (
    QUANTIZER_REGISTRY,
    has_integer_form,
    parse_granularity,
)
from autocompress.compress.share_weights import sharing_partners
from autocompress.compress.sparsity_patterns import find_pattern
from autocompress.entry_points import Registry
from autocompress.errors import InputError
from autocompress.space import levels as possible
from autocompress.space.matching import as_list, matching_names
from autocompress.space.rules import Rule, SpaceRules
from autocompress.space.search_space import Knob, Method, SearchSpace
from autocompress.technique import FULL_BITS, METHODS, TECHNIQUES, KnobKind, Level, Technique

METHOD_REGISTRIES: Final[Mapping[KnobKind, Registry[Any]]] = {
    "factorization": FACTORIZATION_REGISTRY,
    "quantizer": QUANTIZER_REGISTRY,
}
"""Kind of method -> its table, where other packages can add to it."""
_PARSE: Final[Mapping[KnobKind, Callable[[str], object]]] = {
    "sparsity_pattern": find_pattern,
    "granularity": parse_granularity,
}

_IDLE: Final = {"None", "none", "nearest", "1", "False"}  # values that ask for nothing


def check_methods(rules: SpaceRules) -> None:
    """Check every name in the rules, also of rules that match nothing here.

    Raises:
        InputError: If there is no method of a name; says which there are.
    """
    _check_usable(CRITERION_REGISTRY, rules.pruning.criterion)
    for rule in rules.rules:
        for kind, registry in METHOD_REGISTRIES.items():
            for name in as_list(getattr(rule, kind)):
                _check_usable(registry, name)
        for kind, parse in _PARSE.items():
            for name in as_list(getattr(rule, kind)):
                parse(name)


def check_recipe_has_use(rules: SpaceRules, space: SearchSpace) -> None:
    """Check that what the recipe asks for can happen in a space.

    Raises:
        InputError: If it prepares pruning or rounding, and no knob prunes or rounds.
    """
    kinds = {knob.kind for knob in space.knobs}
    recipe = rules.recipe.model_dump(exclude_none=True)
    for fields, useful in (
        (("penalty", "prune_steps", "rewind"), {"pruning_ratio", "sparsity"}),
        (("rounding", "entropy_strength"), {"weight_bits"}),
    ):
        for field in fields:
            if str(recipe.get(field)) not in _IDLE and not kinds & useful:
                raise InputError(
                    f"The recipe's `{field}` is {recipe[field]!r}, but this space has no knob for "
                    f"{' or '.join(sorted(useful))}: it would change nothing.",
                    "Leave it out, or ask for such a knob.",
                )


def _check_usable(registry: Registry[Any], name: str) -> None:
    for package in registry.find(name).packages:
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError as error:
            raise InputError(
                f"{name!r} needs the package {package!r}, which is not installed.",
                f"Install it with: {registry.install_command(name, package)}",
            ) from error


_NOTHING = "no rule asks for an amount, such as pruning_ratio, drop_block or weight_bits"
EARLIER = "earlier"  # `shared_with`: the first layer before of the same shape


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BuiltSpace:
    """A search space and what did not become part of it.

    Attributes:
        space: The knobs.
        refused: (technique, layer, group or block) that a rule asked for -> why there is no knob.
    """

    space: SearchSpace
    refused: Mapping[tuple[KnobKind, str], str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What the last matching rule says about one technique on one target."""

    rule: int
    value: Any
    is_shared: bool
    is_by_name: bool


def build_space(profile: ModelProfile, rules: SpaceRules) -> BuiltSpace:
    """Turn rules into knobs for one model.

    Args:
        profile: The model.
        rules: What the user asks for.

    Raises:
        InputError: If a rule matches nothing, names one layer that cannot take what it asks for,
            names a method that does not exist, or no knob is left.
    """
    check_methods(rules)
    builder = _Builder(profile, rules)
    if not (profile.blocks or profile.refused_blocks) and any(r.drop_block for r in rules.rules):
        builder.refused["drop_block", "(all)"] = "no module adds something to its own input"
    untraced = profile.refused_groups.get(UNTRACED)
    if untraced and any(rule.pruning_ratio for rule in rules.rules):
        builder.refused["pruning_ratio", UNTRACED] = untraced
    for kind in TECHNIQUES:
        builder.add_knobs(kind)
    if not builder.knobs:
        reasons = "; ".join(sorted(set(builder.refused.values()))) or _NOTHING
        raise InputError(
            f"The search space has no knob for this model: {reasons}.",
            "`autocompress analyze` lists what each layer can take.",
        )
    space = SearchSpace(knobs=tuple(builder.knobs), methods=tuple(builder.methods))
    check_recipe_has_use(rules, space)
    return BuiltSpace(space=space, refused=builder.refused)


class _Builder:
    """Collects knobs, fixed methods and refusals, one technique after the other."""

    def __init__(self, profile: ModelProfile, rules: SpaceRules) -> None:
        self.profile = profile
        self.rules = rules
        self.matched = [matching_names(profile, rule, i) for i, rule in enumerate(rules.rules)]
        self.layers = {layer.name: layer for layer in profile.layers}
        self.groups = {group.name: group for group in profile.groups}
        self.partners = sharing_partners(profile.layers)
        self.knobs: list[Knob] = []
        self.methods: list[Method] = []
        self.refused: dict[tuple[KnobKind, str], str] = {}
        self.levels: dict[tuple[KnobKind, str], tuple[Level, ...]] = {}
        _check_group_names(profile, rules.rules)

    def add_knobs(self, kind: KnobKind) -> None:
        """Add the knobs, or fixed methods, of one technique."""
        technique = TECHNIQUES[kind]
        shared: dict[tuple[int, tuple[Level, ...]], list[str]] = {}
        for target in self._targets(technique):
            wish = self._wish(kind, target)
            if wish is None or not wish.value or self._is_idle(kind, target):
                continue
            wanted, reason = self._possible(kind, target, wish.value)
            if not wanted:
                self._refuse(wish, kind, target, reason)
                continue
            if technique.is_method and reason.startswith("no "):
                self.refused[kind, target] = reason
            if technique.is_method and isinstance(wish.value, str):
                self._fix(kind, target, wish.value)
                continue
            levels = (technique.untouched, *wanted)
            self.levels[kind, target] = levels
            if wish.is_shared:
                shared.setdefault((wish.rule, levels), []).append(target)
            else:
                self.knobs.append(Knob(kind=kind, targets=(target,), levels=levels, label=target))
        self.knobs += _shared_knobs(kind, shared)

    def _is_idle(self, kind: KnobKind, target: str) -> bool:
        """Whether this is a method of an amount that is not there, whose refusal says why."""
        technique = TECHNIQUES[kind]
        return technique.is_method and (technique.refused_as, target) not in self.levels

    def _fix(self, kind: KnobKind, target: str, value: str) -> None:
        if value != TECHNIQUES[kind].untouched:
            self.methods.append(Method(kind=kind, target=target, value=value))

    def _refuse(self, wish: _Wish, kind: KnobKind, target: str, reason: str) -> None:
        if wish.is_by_name:
            raise InputError(
                f"Rule {wish.rule + 1} asks for {kind} of {target!r}, but {reason}.",
                "Remove it from the rule, or match by a pattern to take what can be had.",
            )
        self.refused[kind, target] = reason

    def _targets(self, technique: Technique) -> Iterable[str]:
        profile = self.profile
        if technique.acts_on == "block":
            return (*profile.blocks, *profile.refused_blocks)
        if technique.acts_on == "group":
            names = set(self.groups) | set(profile.refused_groups)
            return [layer.name for layer in profile.layers if layer.name in names]
        return [layer.name for layer in profile.layers if _has_weights(layer)]

    def _wish(self, kind: KnobKind, target: str) -> _Wish | None:
        wish = None
        for i, rule in enumerate(self.rules.rules):
            value = getattr(rule, kind)
            if value is not None and target in self.matched[i]:
                wish = _Wish(
                    rule=i,
                    value=value,
                    is_shared=kind in rule.shared,
                    is_by_name=target in as_list(rule.match.name),
                )
        return wish

    def _possible(self, kind: KnobKind, target: str, wanted: Any) -> possible.Possible:
        """Levels that make a difference, without the untouched one; if none, the reason."""
        if kind == "drop_block":
            reason = self.profile.refused_blocks.get(target, "")
            return ((), reason) if reason else ((1,), "")
        if kind == "pruning_ratio":
            if target in self.profile.refused_groups:
                return (), self.profile.refused_groups[target]
            return possible.widths(self.groups[target], wanted, self.rules.pruning.round_to)
        layer, methods = self.layers[target], self._methods(target)
        if refusal := layer.refusals.get(TECHNIQUES[kind].refused_as):
            return (), refusal
        if kind == "shared_with":
            return self._partner(target, wanted)
        if kind == "rank_ratio":
            return possible.rank_ratios(layer, wanted, self._names("factorization", target))
        if kind == "sparsity":
            return possible.sparsities(layer, wanted, self._names("sparsity_pattern", target))
        if kind == "weight_bits":
            widest = self._widest_integers(target)
            bits = [min(b, widest) for b in wanted if b < FULL_BITS]
            return possible.weight_bits(layer, bits, methods)
        if kind == "activation_bits":
            bits = [float(b) for b in self.levels.get(("weight_bits", target), ())]
            return possible.activation_bits(bits, wanted, methods)
        if kind == "rate_price":
            bits = [float(b) for b in self.levels.get(("weight_bits", target), ())]
            return possible.rate_prices(bits, wanted, methods)
        names = [
            name for name in as_list(wanted) if name != TECHNIQUES[kind].untouched or wanted == name
        ]
        return possible.method_names(kind, layer, names, self._every(kind, target))

    def _widest_integers(self, target: str) -> int:
        """Most bits a quantized weight may have: fewer where it may meet quantized inputs."""
        wish = self._wish("activation_bits", target)
        may_be_integers = any(
            has_integer_form(quantizer, granularity, 8)
            for quantizer in self._names("quantizer", target)
            for granularity in self._names("granularity", target)
        )
        if wish is None or not wish.value or not may_be_integers:
            return 8
        return self.rules.integer_weight_bits or 8

    def _names(self, kind: KnobKind, target: str) -> list[str]:
        """Methods a layer can be given, the fixed or default one first."""
        wish = self._wish(kind, target)
        if wish is not None and isinstance(wish.value, str):
            return [wish.value]
        return list(dict.fromkeys([str(TECHNIQUES[kind].untouched), *(wish.value if wish else [])]))

    def _methods(self, target: str) -> possible.Methods:
        return possible.Methods(**{row.kind: self._names(row.kind, target)[0] for row in METHODS})

    def _every(self, kind: KnobKind, target: str) -> list[tuple[float, possible.Methods]]:
        """Bits and methods that the knobs made so far can give a layer together."""
        methods = self._methods(target)
        quantizers = self.levels.get(("quantizer", target), (methods.quantizer,))
        all_bits = self.levels.get(("weight_bits", target), (FULL_BITS,))
        return [
            (float(bits), dataclasses.replace(methods, quantizer=str(quantizer)))
            for bits in (all_bits[1:] if kind in ("quantizer", "granularity") else all_bits[:1])
            for quantizer in quantizers
        ]

    def _partner(self, target: str, wanted: str) -> possible.Possible:
        if wanted == EARLIER:
            partner = self.partners.get(target, "")
            return ((partner,), "") if partner else ((), "no layer before it has the same shape")
        source, layer = self.layers.get(wanted), self.layers[target]
        if source is None or (source.kind, source.weight_shape) != (layer.kind, layer.weight_shape):
            what = f"{wanted!r} is no layer" if source is None else f"{wanted!r} is another shape"
            return (), f"{what} (it needs a {layer.kind} of shape {layer.weight_shape})"
        own = self._wish("shared_with", wanted)
        if wanted == target or (own is not None and own.value):
            return (), f"{wanted!r} is itself asked to take another layer's weight"
        return (wanted,), ""


def _has_weights(layer: LayerInfo) -> bool:
    return layer.kind == "recurrent" or (bool(layer.weight_shape) and layer.kind != "norm")


def _check_group_names(profile: ModelProfile, rules: Iterable[Rule]) -> None:
    """A rule that names a group's other layers would be ignored silently."""
    names = {group.name for group in profile.groups}
    group_of = {
        member.layer: group.name
        for group in profile.groups
        for member in group.members
        if member.side == "out" and member.layer not in names
    }
    for i, rule in enumerate(rules):
        for name in as_list(rule.match.name) if rule.pruning_ratio else ():
            if name in group_of:
                raise InputError(
                    f"Rule {i + 1} asks for pruning_ratio of {name!r}, but its channels are cut "
                    f"together with those of {group_of[name]!r}.",
                    f"Name {group_of[name]!r} instead: a group is named by its first layer.",
                )


def _shared_knobs(
    kind: KnobKind, shared: Mapping[tuple[int, tuple[Level, ...]], list[str]]
) -> Iterator[Knob]:
    per_rule = Counter(rule for rule, _ in shared)
    seen: Counter[int] = Counter()
    for (rule, levels), targets in shared.items():
        seen[rule] += 1
        part = f".{seen[rule]}" if per_rule[rule] > 1 else ""  # other targets, other levels
        label = "all" if len(shared) == 1 else f"rule{rule + 1}{part}"
        yield Knob(kind=kind, targets=tuple(targets), levels=levels, label=label)
