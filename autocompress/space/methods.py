"""Names of methods in a search-space file, checked against the tables they stand in."""

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any, Final

from autocompress.compress.importance.table import find_criterion
from autocompress.compress.low_rank.table import find_factorization
from autocompress.compress.quantizers.table import find_quantizer, parse_granularity
from autocompress.compress.sparsity_patterns import find_pattern
from autocompress.errors import InputError
from autocompress.space.matching import as_list
from autocompress.space.rules import SpaceRules
from autocompress.space.search_space import KnobKind, SearchSpace

_FIND: Final[Mapping[KnobKind, Callable[[str], Any]]] = {
    "factorization": find_factorization,
    "sparsity_pattern": find_pattern,
    "quantizer": find_quantizer,
    "granularity": parse_granularity,
}


_IDLE: Final = {"None", "none", "nearest", "1", "False"}  # values that ask for nothing


def check_methods(rules: SpaceRules) -> None:
    """Check every name in the rules, also of rules that match nothing here.

    Raises:
        InputError: If there is no method of a name; says which there are.
    """
    find_criterion(rules.pruning.criterion)
    _check_installed(rules.pruning.criterion)
    for rule in rules.rules:
        for kind, find in _FIND.items():
            for name in as_list(getattr(rule, kind)):
                find(name)
                _check_installed(name)


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


def _check_installed(name: str) -> None:
    if name.startswith("nni_") and importlib.util.find_spec("nni") is None:
        raise InputError(
            f"{name!r} needs NNI, which is not installed.",
            "Install it: pip install 'autocompress[nni]'",
        )
