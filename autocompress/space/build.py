"""Rules x profile -> search space: every knob the model can really take, and why others are not."""

import dataclasses
import difflib
import fnmatch
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from autocompress.analysis.channel_groups import UNTRACED
from autocompress.analysis.profile import LayerInfo, ModelProfile
from autocompress.compress.low_rank import shrinks
from autocompress.compress.prune import kept_channels
from autocompress.errors import InputError
from autocompress.space.rules import Match, Rule, SpaceRules
from autocompress.space.search_space import UNTOUCHED, Knob, KnobKind, SearchSpace

_KINDS: tuple[KnobKind, ...] = ("pruning_ratio", "rank_ratio", "weight_bits", "activation_bits")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BuiltSpace:
    """A search space and what did not become part of it.

    Attributes:
        space: The knobs.
        refused: (technique, layer or group) that a rule asked for -> why there is no knob.
    """

    space: SearchSpace
    refused: Mapping[tuple[KnobKind, str], str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What the last matching rule says about one technique on one target."""

    rule: int
    levels: tuple[float, ...]
    is_shared: bool
    is_by_name: bool


def build_space(profile: ModelProfile, rules: SpaceRules) -> BuiltSpace:
    """Turn rules into knobs for one model.

    Args:
        profile: The model.
        rules: What the user asks for.

    Raises:
        InputError: If a rule matches nothing, names one layer that cannot take what it asks for,
            or no knob is left.
    """
    matched = [_matching(profile, rule, i) for i, rule in enumerate(rules.rules)]
    knobs: list[Knob] = []
    refused: dict[tuple[KnobKind, str], str] = {}
    untraced = profile.refused_groups.get(UNTRACED)
    if untraced and any(rule.pruning_ratio for rule in rules.rules):
        refused["pruning_ratio", UNTRACED] = untraced
    for kind in _KINDS:
        shared: dict[tuple[int, tuple[float, ...]], list[str]] = {}
        for target in _targets(profile, kind):
            wish = _last_wish(rules.rules, matched, kind, target)
            if wish is None or not wish.levels:
                continue
            levels, reason = _possible_levels(profile, rules, kind, target, wish.levels)
            if reason:
                _refuse_if_named(wish, kind, target, reason)
                refused[kind, target] = reason
            elif wish.is_shared:
                shared.setdefault((wish.rule, levels), []).append(target)
            else:
                knobs.append(Knob(kind=kind, targets=(target,), levels=levels, label=target))
        knobs += _shared_knobs(kind, shared)
    if not knobs:
        reasons = "; ".join(sorted(set(refused.values()))) or "no rule asks for anything"
        raise InputError(
            f"The search space has no knob for this model: {reasons}.",
            "`autocompress analyze` lists what each layer can take.",
        )
    return BuiltSpace(space=SearchSpace(knobs=tuple(knobs)), refused=refused)


def _shared_knobs(
    kind: KnobKind, shared: Mapping[tuple[int, tuple[float, ...]], list[str]]
) -> Iterator[Knob]:
    per_rule = Counter(rule for rule, _ in shared)
    seen: Counter[int] = Counter()
    for (rule, levels), targets in shared.items():
        seen[rule] += 1
        part = f".{seen[rule]}" if per_rule[rule] > 1 else ""  # other targets, other levels
        label = "all" if len(shared) == 1 else f"rule{rule + 1}{part}"
        yield Knob(kind=kind, targets=tuple(targets), levels=levels, label=label)


def _targets(profile: ModelProfile, kind: KnobKind) -> Iterable[str]:
    if kind == "pruning_ratio":
        names = {g.name for g in profile.groups} | set(profile.refused_groups)
        return [layer.name for layer in profile.layers if layer.name in names]
    return [layer.name for layer in profile.layers if layer.weight_shape and layer.kind != "norm"]


def _last_wish(
    rules: Iterable[Rule], matched: list[set[str]], kind: KnobKind, target: str
) -> _Wish | None:
    wish = None
    for i, rule in enumerate(rules):
        levels = getattr(rule, kind)
        if levels is not None and target in matched[i]:
            wish = _Wish(
                rule=i,
                levels=tuple(levels),
                is_shared=kind in rule.shared,
                is_by_name=target in _patterns(rule.match.name),
            )
    return wish


def _refuse_if_named(wish: _Wish, kind: KnobKind, target: str, reason: str) -> None:
    if wish.is_by_name:
        raise InputError(
            f"Rule {wish.rule + 1} asks for {kind} of {target!r}, but {reason}.",
            "Remove it from the rule, or match by a pattern to take what can be had.",
        )


def _possible_levels(
    profile: ModelProfile,
    rules: SpaceRules,
    kind: KnobKind,
    target: str,
    wanted: tuple[float, ...],
) -> tuple[tuple[float, ...], str]:
    """Levels that make a difference, untouched first; or no levels and the reason."""
    untouched = UNTOUCHED[kind]
    ordered = sorted(set(wanted) - {untouched}, reverse=kind != "pruning_ratio")
    if kind == "pruning_ratio":
        if target in profile.refused_groups:
            return (), profile.refused_groups[target]
        n_channels = next(g.n_channels for g in profile.groups if g.name == target)
        kept = _distinct_widths(n_channels, ordered, rules.pruning.round_to)
        reason = (
            f"its {n_channels} channels stay when rounded to multiples of {rules.pruning.round_to}"
        )
    else:
        layer = next(layer for layer in profile.layers if layer.name == target)
        if kind in layer.refusals:
            return (), layer.refusals[kind]
        kept = [v for v in ordered if kind != "rank_ratio" or shrinks(layer.weight_shape, v)]
        reason = f"no rank asked for would make its weight {layer.weight_shape} smaller"
    return ((untouched, *kept), "") if kept else ((), reason)


def _distinct_widths(n_channels: int, ratios: list[float], round_to: int) -> list[float]:
    """The ratios, in order, that leave a width no smaller ratio leaves already."""
    by_width: dict[int, float] = {}
    for ratio in ratios:
        by_width.setdefault(kept_channels(n_channels, ratio, round_to), ratio)
    by_width.pop(n_channels, None)
    return list(by_width.values())


def _matching(profile: ModelProfile, rule: Rule, index: int) -> set[str]:
    names = {layer.name for layer in _with_position(profile, rule.match)}
    patterns = _patterns(rule.match.name)
    found = {
        layer.name
        for layer in profile.layers
        if layer.name in names
        and (not patterns or any(fnmatch.fnmatchcase(layer.name, p) for p in patterns))
        and (rule.match.kind is None or layer.kind in _patterns(rule.match.kind))
        and layer.n_params >= rule.match.min_params
    }
    if not found and not rule.optional:
        raise _matches_nothing(profile, rule.match, index)
    return found


def _with_position(profile: ModelProfile, match: Match) -> Iterable[LayerInfo]:
    if match.position is None:
        return profile.layers
    weighted = [layer for layer in profile.layers if "weight_bits" not in layer.refusals]
    ends = {"first": weighted[:1], "last": weighted[-1:]}
    return [layer for end in match.position for layer in ends[end]]


def _matches_nothing(profile: ModelProfile, match: Match, index: int) -> InputError:
    names = [layer.name for layer in profile.layers]
    kinds = sorted({layer.kind for layer in profile.layers})
    wanted = [*_patterns(match.name), *_patterns(match.kind)]
    close = [c for w in wanted for c in difflib.get_close_matches(w, [*names, *kinds], n=3)]
    closest = ", ".join(dict.fromkeys(close)) or ", ".join(names[:3]) + ", ..."
    asked = match.model_dump(exclude_defaults=True)
    return InputError(
        f"Rule {index + 1} of the search space matches no layer: {asked}.",
        f"Closest: {closest}. Kinds here: {', '.join(kinds)}. Or set `optional: true`.",
    )


def _patterns(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else value or []
