"""The rules by which channels and weights are chosen: equal for all candidates of a run."""

import dataclasses

from autocompress.compress.prune import Scope


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PruningPolicy:
    """How channels and weights are chosen.

    Attributes:
        criterion: Name in `importance.table.CRITERIA`.
        round_to: Kept widths are multiples of this.
        scope: `local` takes from each channel group what its ratio says; `global` takes as many in
            all, wherever the scores are lowest.
        sparsity_scope: The same for single weights.
    """

    criterion: str = "l2"
    round_to: int = 8
    scope: Scope = "local"
    sparsity_scope: Scope = "local"
