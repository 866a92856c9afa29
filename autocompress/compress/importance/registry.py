"""The importance criteria by name: one line makes one reachable from search-space files."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Final, Literal

from torch import Tensor

from autocompress.compress.importance.channel_rows import ChannelRows, Read
from autocompress.compress.importance.criteria import (
    batchnorm_scale,
    fpgm,
    l1_norm,
    l2_norm,
    obd,
    random_scores,
    taylor,
)
from autocompress.compress.importance.nni_pruners import nni_fpgm, nni_l1, nni_l2, nni_taylor
from autocompress.entry_points import Registry

Need = Literal["nothing", "gradients", "squared_gradients"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CriterionSpec:
    """An importance criterion and what it asks for.

    Attributes:
        score: Rows (C, n) -> scores (C,), higher is more important, not negative.
        needs: Field of `CalibrationStatistics` that fills `ChannelRows.fact`.
        reads: Layers whose weights are scored: convolutions, linear and recurrent layers and
            embeddings (`weights`), or batch-norm (`batchnorm_scale`).
        instead: Criterion for groups in which no layer has what is read; empty if that cannot be.
        joins_rows: Whether a unit that owns several rows of a layer (an attention head, a flattened
            map) is scored as one long row. Otherwise its score is the sum over its rows.
        packages: Distributions that it needs and that are not always installed; an extra of the
            same name installs each.
    """

    score: Callable[[ChannelRows], Tensor]
    needs: Need = "nothing"
    reads: Read = "weights"
    instead: str = ""
    joins_rows: bool = False
    packages: tuple[str, ...] = ()


def _fact(rows: ChannelRows) -> Tensor:
    assert rows.fact is not None, "score_channels fills what `needs` names"
    return rows.fact


CRITERIA: Final[Mapping[str, CriterionSpec]] = {
    "l1": CriterionSpec(score=lambda rows: l1_norm(rows.weight)),
    "l2": CriterionSpec(score=lambda rows: l2_norm(rows.weight)),
    "batchnorm_scale": CriterionSpec(
        score=lambda rows: batchnorm_scale(rows.weight), reads="batchnorm_scale", instead="l2"
    ),
    "taylor": CriterionSpec(score=lambda rows: taylor(rows.weight, _fact(rows)), needs="gradients"),
    "obd": CriterionSpec(
        score=lambda rows: obd(rows.weight, _fact(rows)), needs="squared_gradients"
    ),
    "fpgm": CriterionSpec(score=lambda rows: fpgm(rows.weight), joins_rows=True),
    "random": CriterionSpec(
        score=lambda rows: random_scores(len(rows.weight), rows.group), joins_rows=True
    ),
    "nni_l1": CriterionSpec(score=lambda rows: nni_l1(rows.weight), packages=("nni",)),
    "nni_l2": CriterionSpec(score=lambda rows: nni_l2(rows.weight), packages=("nni",)),
    "nni_fpgm": CriterionSpec(
        score=lambda rows: nni_fpgm(rows.weight), joins_rows=True, packages=("nni",)
    ),
    "nni_taylor": CriterionSpec(
        score=lambda rows: nni_taylor(rows.weight, _fact(rows)),
        needs="squared_gradients",
        packages=("nni",),
    ),
}
CRITERION_REGISTRY: Final = Registry(
    kind="importance criterion",
    group="autocompress.criteria",
    built_in=CRITERIA,
    is_row=lambda row: isinstance(row, CriterionSpec),
)


def find_criterion(name: str) -> CriterionSpec:
    """Look up an importance criterion.

    Raises:
        InputError: If there is none of that name.
    """
    return CRITERION_REGISTRY.find(name)
