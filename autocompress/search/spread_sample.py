"""Choose a few trials that stand for all: from the worst to the best, in even steps."""

import itertools
from collections.abc import Collection, Sequence

from autocompress.plan import CompressionPlan
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.search.validation import rank_measurements


def validatable(run: RunRecord) -> tuple[TrialRecord, ...]:
    """Trials that the proxy judged: of the run's fidelity, and not the untouched model."""
    return tuple(
        trial
        for trial in run.comparable
        if trial.role != "baseline" and trial.plan.effective != CompressionPlan()
    )


def spread_sample(
    trials: Sequence[TrialRecord], n: int, *, front: Collection[int] = ()
) -> tuple[TrialRecord, ...]:
    """Choose trials from the worst to the best, evenly over their places in the proxy's ranking.

    The worst and the best come first, then members of the front (no more than half the sample,
    evenly spaced among themselves, or there would be no spread), then what fills the widest gaps
    best. Nothing is drawn by chance: equal trials give equal samples.

    Args:
        trials: Complete trials, sorted by accuracy and, where that is equal, by divergence.
        n: Size of the sample, >= 3; all trials if there are no more.
        front: Numbers of the front's members.

    Returns:
        The sample, in order of trial numbers.
    """
    assert n >= 3, n
    ranks = rank_measurements([t.measurement for t in trials if t.measurement is not None])
    order = sorted(zip(ranks, trials, strict=True), key=lambda pair: (pair[0], -pair[1].number))
    if n >= len(order):
        places = list(range(len(order)))
    else:
        members = [i for i, (_, trial) in enumerate(order) if trial.number in front]
        first = {0, len(order) - 1, *_evenly(members, n // 2)}
        places = _fill_gaps(sorted(first), n)
    return tuple(sorted((order[i][1] for i in places), key=lambda trial: trial.number))


def _evenly(places: list[int], n: int) -> list[int]:
    if len(places) <= n:
        return places
    return [places[round(i * (len(places) - 1) / max(n - 1, 1))] for i in range(n)]


def _fill_gaps(places: list[int], n: int) -> list[int]:
    """Add places between the first and the last, each where it shortens the widest step."""
    gaps = [(low, high, 0) for low, high in itertools.pairwise(places)]
    for _ in range(n - len(places)):
        free = [i for i, (low, high, n_inside) in enumerate(gaps) if high - low - 1 > n_inside]
        widest = max(free, key=lambda i: ((gaps[i][1] - gaps[i][0]) / (gaps[i][2] + 1), -i))
        low, high, n_inside = gaps[widest]
        gaps[widest] = (low, high, n_inside + 1)
    inside = [
        low + step * (high - low) // (n_inside + 1)
        for low, high, n_inside in gaps
        for step in range(1, n_inside + 1)
    ]
    return sorted([*places, *inside])
