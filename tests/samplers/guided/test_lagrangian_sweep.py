"""The sweep finds what trying every plan finds."""

import itertools

import numpy as np
import pytest

from autocompress.samplers.guided.lagrangian_sweep import (
    best_plans,
    mildest,
    penalized_bits,
    regimes,
    sweep,
    with_measured_bits,
)
from autocompress.space.prediction import Predictor
from autocompress.space.search_space import Knob, SearchSpace


def _part(world, n_bits: int, n_pruned: int) -> Predictor:
    """A predictor for some of the knobs: few enough to try every plan."""
    knobs = (*world.space.knobs[:n_bits], *world.space.knobs[8 : 8 + n_pruned])
    return Predictor(SearchSpace(knobs=knobs), world.table)


def _every_plan(predictor: Predictor) -> np.ndarray:
    return np.array(list(itertools.product(*(range(len(k.levels)) for k in predictor.space.knobs))))


def _cost(predictor: Predictor, plans: np.ndarray, price: float, power: float) -> np.ndarray:
    base = predictor.table.baseline.size_bytes
    harm = (predictor.divergences(plans) ** power).sum(axis=1)
    return harm + price * predictor.size_bytes(plans) / base


@pytest.mark.parametrize("price", [1e-3, 0.1, 1.0, 30.0])
@pytest.mark.parametrize("power", [0.6, 1.0])
def test_best_plans_are_optimal_where_each_layer_has_one_knob(world, price, power):
    predictor = _part(world, n_bits=4, n_pruned=0)
    start = np.zeros((1, 4), dtype=np.int64)
    found = best_plans(
        predictor, np.array([[price, 0.0]]), start, predictor.live_levels(), power=power
    )
    best = _cost(predictor, _every_plan(predictor), price, power).min()
    assert _cost(predictor, found, price, power)[0] == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("price", [0.01, 0.3, 3.0])
def test_best_plans_are_close_to_optimal_where_knobs_multiply(world, price):
    predictor = _part(world, n_bits=4, n_pruned=2)
    start = np.zeros((1, 6), dtype=np.int64)
    found = best_plans(predictor, np.array([[price, 0.0]]), start, predictor.live_levels())
    best = _cost(predictor, _every_plan(predictor), price, 1.0).min()
    assert _cost(predictor, found, price, 1.0)[0] <= best * 1.02


def test_best_plans_do_not_change_their_start(world):
    start = np.ones((2, 12), dtype=np.int64)
    best_plans(world.predictor, np.full((2, 2), 0.1), start, world.predictor.live_levels())
    assert (start == 1).all()


def test_best_plans_keep_to_live_levels(world):
    live = [(0, 2)] * 12
    plans = best_plans(world.predictor, np.array([[10.0, 0.0]]), np.zeros((1, 12), int), live)
    assert set(plans.ravel()) <= {0, 2}


def test_regimes_are_one_where_bits_have_no_price(world):
    live = world.predictor.live_levels()
    assert regimes(world.space, live) == [list(live)]


def test_regimes_fix_the_bits_of_layers_with_a_price():
    knobs = (
        Knob(kind="weight_bits", targets=("a",), levels=(32, 8, 2), label="a"),
        Knob(kind="weight_bits", targets=("c",), levels=(32, 8, 2), label="c"),
        Knob(kind="pruning_ratio", targets=("a",), levels=(0.0, 0.5), label="a"),
        Knob(kind="rate_price", targets=("a", "b"), levels=(0.0, 0.01, 0.1), label="all"),
    )
    live = [(0, 2), (0, 1, 2), (0, 1), (0, 1, 2)]
    without, priced = regimes(SearchSpace(knobs=knobs), live)
    assert without == [(0, 2), (0, 1, 2), (0, 1), (0,)]
    assert priced == [(1,), (0, 1, 2), (0, 1), (1, 2)]
    assert mildest(priced, 2).tolist() == [[1, 0, 0, 1]] * 2
    assert regimes(SearchSpace(knobs=knobs), [*live[:3], (0,)]) == [[*live[:3], (0,)]]


def test_regimes_let_a_layer_stay_without_a_price_where_others_have_one():
    knobs = tuple(
        Knob(kind="rate_price", targets=(layer,), levels=(0.0, 0.01), label=layer) for layer in "ab"
    )
    assert regimes(SearchSpace(knobs=knobs), [(0, 1)] * 2) == [[(0,)] * 2, [(0, 1)] * 2]


def test_priced_layers_get_the_bits_that_prices_were_measured_at():
    knobs = (
        Knob(kind="weight_bits", targets=("a",), levels=(32, 8, 4), label="a"),
        Knob(kind="weight_bits", targets=("b",), levels=(32, 8, 4), label="b"),
        Knob(kind="rate_price", targets=("a",), levels=(0.0, 0.01), label="a"),
    )
    plans = np.array([[2, 2, 0], [2, 2, 1], [0, 0, 1], [1, 2, 1]])
    settled = with_measured_bits(penalized_bits(SearchSpace(knobs=knobs)), plans)
    assert settled.tolist() == [[0, 0, 1], [1, 2, 1], [2, 2, 0]]
    assert plans[1, 0] == 2, "what came in stays"


def test_sweep_reaches_from_mild_to_smallest(world):
    predictor = world.predictor
    plans = sweep(predictor, predictor.live_levels())
    sizes, harms = predictor.size_bytes(plans), predictor.divergence(plans)
    order = np.argsort(sizes)
    assert (np.diff(harms[order]) <= 1e-9).all(), "a larger plan of the sweep must harm less"
    everything = np.array([[len(knob.levels) - 1 for knob in world.space.knobs]])
    assert sizes.min() == pytest.approx(predictor.size_bytes(everything)[0])
    assert plans.any(axis=1).all()


def test_sweep_that_pays_for_time_takes_what_is_fast(world):
    predictor = world.predictor
    faster = [np.zeros(len(k.levels)) for k in world.space.knobs]
    faster[8] = np.log([1.0, 0.9, 0.3])
    predictor.log_latency = faster
    live = predictor.live_levels()
    prices = np.array([[1e-4, 0.0], [1e-4, 10.0]])
    slow, fast = best_plans(predictor, prices, np.zeros((2, 12), dtype=np.int64), live)
    assert slow[8] == 0
    assert fast[8] == 2
