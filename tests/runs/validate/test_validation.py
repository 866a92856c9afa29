import json
from typing import Any

import numpy as np
import pytest

from autocompress.measurement import Measurement
from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.runs.validate.validation import (
    Retraining,
    Validation,
    rank_agreement,
    rank_measurements,
)
from tests.builders import make_measurement, make_trial

Figures = tuple[float, float | None]  # accuracy, divergence


def measurement(figures: Figures, seconds: float, latency_ms: float | None = None) -> Measurement:
    accuracy, divergence = figures
    return make_measurement(
        accuracy=accuracy, divergence=divergence, latency_ms=latency_ms, seconds=seconds
    )


def retraining(
    number: int, proxy: Figures, full: Figures | None, seconds: float = 40.0, **changes: Any
) -> Retraining:
    return Retraining(
        trial=make_trial(
            number,
            measurement(proxy, seconds=2.0),
            plan=CompressionPlan(layers={"fc": LayerPlan(weight_bits=4)}),
        ),
        full=None if full is None else measurement(full, seconds),
        **changes,
    )


def validation(*retrainings: Retraining) -> Validation:
    return Validation(
        run="demo",
        n_candidates=9,
        proxy_epochs=1.0,
        epochs=20.0,
        seed=0,
        retrainings=retrainings,
    )


@pytest.fixture
def found() -> Validation:
    """Six trials; the proxy swaps two of the best and two of the worst."""
    return validation(
        retraining(1, (0.90, 0.5), (0.93, 0.4)),
        retraining(2, (0.91, 0.5), (0.92, 0.4)),
        retraining(3, (0.92, 0.5), (0.94, 0.4)),
        retraining(4, (0.93, 0.5), (0.95, 0.4)),
        retraining(5, (0.94, 0.5), (0.97, 0.4)),
        retraining(6, (0.95, 0.5), (0.96, 0.4)),
    )


def test_overall_and_best_third_compare_the_right_candidates(found: Validation) -> None:
    overall, best = found.overall(), found.best_third()
    assert overall.kendall is not None
    assert (overall.n, overall.kendall.value) == (6, pytest.approx((13 - 2) / 15))
    assert (best.n, best.kendall) == (2, None)  # a third of six is two: too few to tell


def test_best_third_is_that_of_full_training_rounded_up() -> None:
    proxies, fulls = [5, 4, 3, 2, 1, 0, 6], [0, 1, 2, 3, 4, 5, 6]
    found = validation(
        *(retraining(i, (p / 10, None), (f / 10, None)) for i, (p, f) in
          enumerate(zip(proxies, fulls, strict=True)))
    )  # fmt: skip
    best = found.best_third()
    expected = rank_agreement(np.array([1, 0, 6]), np.array([4, 5, 6]))
    assert best == expected
    assert best.kendall is not None
    assert best.kendall.value == pytest.approx(1 / 3)


def test_ties_of_accuracy_are_broken_by_each_sides_own_divergence() -> None:
    found = validation(
        retraining(0, (0.9, 0.3), (0.9, 0.1)),
        retraining(1, (0.9, 0.2), (0.9, 0.2)),
        retraining(2, (0.9, 0.1), (0.9, 0.3)),
    )
    assert found.proxy_ranks.tolist() == [0, 1, 2]
    assert found.full_ranks.tolist() == [2, 1, 0]
    kendall = found.overall().kendall
    assert kendall is not None
    assert kendall.value == pytest.approx(-1.0)
    assert found.worst_misranking() is None  # none differs in accuracy


def test_cost_ratio_is_proxy_over_full_seconds(found: Validation) -> None:
    assert found.cost_ratio() == pytest.approx(2.0 / 40.0)
    mixed = validation(
        retraining(1, (0.9, None), (0.9, None), seconds=10.0),
        retraining(2, (0.9, None), (0.9, None), seconds=30.0),
        retraining(3, (0.9, None), None, reason="oom"),
    )
    assert mixed.cost_ratio() == pytest.approx(4.0 / 40.0)


def test_cost_ratio_is_none_across_machines() -> None:
    elsewhere = retraining(2, (0.9, None), (0.9, None), is_same_machine=False)
    assert validation(retraining(1, (0.9, None), (0.9, None)), elsewhere).cost_ratio() is None
    assert validation().cost_ratio() is None


def test_worst_misranking_is_the_widest_wrongly_ordered_pair(found: Validation) -> None:
    worst = found.worst_misranking()
    assert worst is not None
    assert {worst.overrated.trial.number, worst.underrated.trial.number} in ({1, 2}, {5, 6})
    assert worst.gap == pytest.approx(0.01)
    wide = validation(*found.retrainings, retraining(7, (0.99, 0.5), (0.90, 0.4)))
    worst = wide.worst_misranking()
    assert worst is not None
    assert (worst.overrated.trial.number, worst.underrated.trial.number) == (7, 5)
    assert worst.gap == pytest.approx(0.07)


@pytest.mark.parametrize("seed", range(5))
def test_worst_misranking_equals_looking_at_every_pair(seed: int) -> None:
    rng = np.random.default_rng(seed)
    figures = rng.integers(0, 5, size=(12, 2)) / 5
    found = validation(
        *(retraining(i, (float(p), None), (float(f), None)) for i, (p, f) in enumerate(figures))
    )
    gaps = [
        f2 - f1 for p1, f1 in figures for p2, f2 in figures if p1 > p2 and f2 > f1
    ]  # the first ranked higher by the proxy, the second more accurate
    worst = found.worst_misranking()
    assert (worst.gap if worst else 0.0) == pytest.approx(max(gaps, default=0.0))


def test_choice_says_what_believing_the_proxy_costs(found: Validation) -> None:
    choice = found.choice()
    assert choice is not None
    assert (choice.picked.trial.number, choice.place) == (6, 2)
    assert choice.regret == pytest.approx(0.01)
    assert validation().choice() is None


def test_failed_retrainings_are_left_out_of_every_figure(found: Validation) -> None:
    with_failed = validation(
        *found.retrainings, retraining(7, (0.99, 0.1), None, reason="nonfinite_loss: NaN")
    )
    assert with_failed.overall() == found.overall()
    assert with_failed.choice() == found.choice()
    entry = with_failed.to_json()["trials"][-1]
    assert (entry["full"], entry["reason"]) == (None, "nonfinite_loss: NaN")


def test_to_json_holds_everything_and_is_json(found: Validation) -> None:
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert document["overall"]["kendall"]["value"] == pytest.approx(11 / 15)
    assert document["best_third"] == {"n": 2, "kendall": None, "spearman": None}
    assert document["worst_misranking"]["gap"] == pytest.approx(0.01)
    assert document["choice"]["trial"] == 6
    assert [t["trial"] for t in document["trials"]] == [1, 2, 3, 4, 5, 6]
    assert document["trials"][0]["proxy"]["accuracy"] == 0.90
    empty = validation().to_json()
    assert (empty["worst_misranking"], empty["choice"], empty["cost_ratio"]) == (None, None, None)


def test_rank_measurements_ranks_by_accuracy_then_divergence() -> None:
    figures = [(0.9, 0.2), (0.9, 0.1), (0.8, 0.0)]
    assert rank_measurements([measurement(f, 1.0) for f in figures]).tolist() == [1, 2, 0]
