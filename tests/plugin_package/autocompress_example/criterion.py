from autocompress.compress.importance.registry import CriterionSpec


def largest_weight(rows):
    """The largest magnitude among a channel's weights: rows (C, n) -> scores (C,)."""
    return rows.weight.abs().amax(dim=1)


LARGEST_WEIGHT = CriterionSpec(score=largest_weight)
