import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from autocompress.runs.validate.validation import rank_agreement, total_ranks

SCORES = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=12
)  # few values: many ties


def brute_force_tau_b(x: list[int], y: list[int]) -> float:
    """Kendall (1945), pair by pair."""
    surplus, n_x, n_y = 0, 0, 0
    for (a, c), (b, d) in itertools.combinations(zip(x, y, strict=True), 2):
        surplus += int(np.sign(a - b) * np.sign(c - d))
        n_x, n_y = n_x + (a != b), n_y + (c != d)
    return surplus / (n_x * n_y) ** 0.5


def average_ranks(x: list[int]) -> list[float]:
    return [sum(b < a for b in x) + (sum(b == a for b in x) + 1) / 2 for a in x]


@given(SCORES)
def test_rank_agreement_equals_counting_pairs_and_scipy(scores: list[tuple[int, int]]) -> None:
    x, y = [a for a, _ in scores], [b for _, b in scores]
    found = rank_agreement(np.array(x), np.array(y))
    assert found.n == len(scores)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert found.kendall is None
        assert found.spearman is None
        return
    assert found.kendall is not None
    assert found.spearman is not None
    assert found.kendall.value == pytest.approx(brute_force_tau_b(x, y), abs=1e-12)
    by_hand = np.corrcoef(average_ranks(x), average_ranks(y))[0, 1]
    assert found.spearman.value == pytest.approx(by_hand, abs=1e-12)
    assert found.kendall.p_value == pytest.approx(float(stats.kendalltau(x, y).pvalue))
    for correlation in (found.kendall, found.spearman):
        assert -1 - 1e-12 <= correlation.low <= correlation.high <= 1 + 1e-12


def test_rank_agreement_of_hand_made_rankings() -> None:
    # one swapped neighbour among five: 9 pairs agree, 1 does not; sum of squared rank differences 2
    found = rank_agreement(np.array([0, 1, 2, 3, 4]), np.array([0, 1, 2, 4, 3]))
    assert found.kendall is not None
    assert found.spearman is not None
    assert found.kendall.value == pytest.approx(8 / 10)
    assert found.spearman.value == pytest.approx(1 - 6 * 2 / (5 * 24))
    assert found.kendall.p_value == pytest.approx(10 / 120)  # 5 of 120 orders are as close, twice
    turned = rank_agreement(np.arange(5), np.arange(5)[::-1])
    assert turned.kendall is not None
    assert turned.kendall.value == pytest.approx(-1.0)
    assert turned.kendall.high == pytest.approx(-1.0)


def test_rank_agreement_intervals_equal_scipys_on_the_same_samples() -> None:
    """Weights and vectorised ranks must give what scipy gives sample by sample."""
    rng = np.random.default_rng(3)
    x = rng.integers(0, 6, 20)
    y = np.clip(x + rng.integers(-2, 3, 20), 0, 6)
    found = rank_agreement(x, y)
    assert found.kendall is not None
    assert found.spearman is not None
    picks = np.random.default_rng(0).integers(20, size=(2000, 20))
    for correlation, statistic in (
        (found.kendall, stats.kendalltau), (found.spearman, stats.spearmanr)
    ):  # fmt: skip
        values = [float(statistic(x[row], y[row]).statistic) for row in picks]
        assert correlation.low == pytest.approx(np.quantile(values, 0.025))
        assert correlation.high == pytest.approx(np.quantile(values, 0.975))
        assert correlation.low < correlation.value < correlation.high


def test_rank_agreement_interval_shrinks_with_more_candidates() -> None:
    def width(n: int) -> float:
        rng = np.random.default_rng(n)
        x = rng.normal(size=n)
        found = rank_agreement(
            np.argsort(np.argsort(x)), np.argsort(np.argsort(x + rng.normal(size=n)))
        )
        assert found.kendall is not None
        return found.kendall.high - found.kendall.low

    assert width(160) < 0.6 * width(20)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_rank_agreement_says_nothing_about_so_few(n: int) -> None:
    found = rank_agreement(np.arange(n), np.arange(n))
    assert (found.n, found.kendall, found.spearman) == (n, None, None)


def test_total_ranks_breaks_ties_of_accuracy_by_divergence() -> None:
    assert total_ranks([0.9, 0.9, 0.8], [0.1, 0.2, 0.0]).tolist() == [2, 1, 0]
    assert total_ranks([0.9, 0.9, 0.8], [0.1, 0.1, 0.0]).tolist() == [1, 1, 0]
    assert total_ranks([], []).tolist() == []


def test_total_ranks_uses_no_divergence_when_one_is_missing() -> None:
    assert total_ranks([0.9, 0.9, 0.8], [0.1, None, 0.0]).tolist() == [1, 1, 0]


@given(SCORES)
def test_total_ranks_orders_like_comparing_pairs(scores: list[tuple[int, int]]) -> None:
    accuracies, divergences = [a / 4 for a, _ in scores], [d / 4 for _, d in scores]
    ranks = total_ranks(accuracies, divergences)
    for i, j in itertools.permutations(range(len(scores)), 2):
        is_better = accuracies[i] > accuracies[j] or (
            accuracies[i] == accuracies[j] and divergences[i] < divergences[j]
        )
        assert (ranks[i] > ranks[j]) == is_better
