"""Names of methods in a search-space file, checked against the tables they stand in."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from autocompress.compress.importance.table import find_criterion
from autocompress.compress.low_rank.table import find_factorization
from autocompress.compress.quantizers.table import find_quantizer, parse_granularity
from autocompress.compress.sparsity_patterns import find_pattern
from autocompress.space.matching import as_list
from autocompress.space.rules import SpaceRules
from autocompress.space.search_space import KnobKind

_FIND: Final[Mapping[KnobKind, Callable[[str], Any]]] = {
    "factorization": find_factorization,
    "sparsity_pattern": find_pattern,
    "quantizer": find_quantizer,
    "granularity": parse_granularity,
}


def check_methods(rules: SpaceRules) -> None:
    """Check every name in the rules, also of rules that match nothing here.

    Raises:
        InputError: If there is no method of a name; says which there are.
    """
    find_criterion(rules.pruning.criterion)
    for rule in rules.rules:
        for kind, find in _FIND.items():
            for name in as_list(getattr(rule, kind)):
                find(name)
