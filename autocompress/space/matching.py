"""Which layers, channel groups and blocks a rule is about."""

import difflib
import fnmatch
from collections.abc import Iterable

from autocompress.analysis.profile import LayerInfo, ModelProfile
from autocompress.errors import InputError
from autocompress.space.rules import Match, Rule

_BLOCK = "block"


def matching_names(profile: ModelProfile, rule: Rule, index: int) -> set[str]:
    """Names of the layers and residual blocks that a rule matches.

    Args:
        profile: The model.
        rule: The rule.
        index: Its place in the file, for the message.

    Raises:
        InputError: If it matches nothing and is not optional.
    """
    match = rule.match
    found = {
        layer.name
        for layer in _with_position(profile, match)
        if (match.kind is None or layer.kind in as_list(match.kind))
        and layer.n_params >= match.min_params
        and _has_name(layer.name, match)
    }
    if rule.drop_block is not None:
        found |= _matching_blocks(profile, match, index)
    if not found and not rule.optional:
        raise _matches_nothing(profile, match, index)
    return found


def as_list(value: str | list[str] | None) -> list[str]:
    """One name, several or none, as a list."""
    return [value] if isinstance(value, str) else value or []


def _has_name(name: str, match: Match) -> bool:
    patterns = as_list(match.name)
    return not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _with_position(profile: ModelProfile, match: Match) -> Iterable[LayerInfo]:
    if match.position is None:
        return profile.layers
    weighted = [layer for layer in profile.layers if "weight_bits" not in layer.refusals]
    ends = {"first": weighted[:1], "last": weighted[-1:]}
    return [layer for end in match.position for layer in ends[end]]


def _matching_blocks(profile: ModelProfile, match: Match, index: int) -> set[str]:
    """Blocks are matched by name, size and the kind `block`."""
    if match.position is not None or (match.kind is not None and _BLOCK not in as_list(match.kind)):
        raise InputError(
            f"Rule {index + 1} asks for drop_block, but blocks have no position, and the only kind "
            f"`{_BLOCK}`.",
            "Give drop_block a rule of its own.",
        )
    names = set(_blocks(profile, match))
    for name in as_list(match.name):
        is_layer = any(layer.name == name for layer in profile.layers)
        if is_layer and name not in names:
            raise InputError(
                f"Rule {index + 1} asks for drop_block of {name!r}, but that is a layer.",
                f"Blocks here: {', '.join(profile.blocks) or 'none'}.",
            )
    return {name for name in names if _has_name(name, match)}


def _blocks(profile: ModelProfile, match: Match) -> Iterable[str]:
    for block in (*profile.blocks, *profile.refused_blocks):
        n_params = sum(la.n_params for la in profile.layers if la.name.startswith(f"{block}."))
        if n_params >= match.min_params:
            yield block


def _matches_nothing(profile: ModelProfile, match: Match, index: int) -> InputError:
    names = [*(layer.name for layer in profile.layers), *profile.blocks]
    kinds = sorted({layer.kind for layer in profile.layers})
    wanted = [*as_list(match.name), *as_list(match.kind)]
    close = [c for w in wanted for c in difflib.get_close_matches(w, [*names, *kinds], n=3)]
    closest = ", ".join(dict.fromkeys(close)) or ", ".join(names[:3]) + ", ..."
    asked = match.model_dump(exclude_defaults=True)
    return InputError(
        f"Rule {index + 1} of the search space matches no layer: {asked}.",
        f"Closest: {closest}. Kinds here: {', '.join(kinds)}. Or set `optional: true`.",
    )
