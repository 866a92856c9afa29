"""Candidates keep to live levels, differ from each other, and repeat under the same seed."""

import numpy as np
import pytest

from autocompress.samplers.guided.candidates import draw_candidates, mutated


def _draw(world, seed: int, predictor="table", live=None):
    return draw_candidates(
        live or world.predictor.live_levels(),
        np.zeros((1, 12), dtype=np.int64),
        world.predictor if predictor == "table" else None,
        np.random.default_rng(seed),
        power=0.6,
        has_latency=False,
    )


@pytest.mark.parametrize("predictor", ["table", None])
def test_candidates_are_many_and_different(world, predictor):
    plans = _draw(world, 0, predictor)
    assert len(plans) > 100
    assert len(np.unique(plans, axis=0)) == len(plans)


def test_candidates_keep_to_live_levels(world):
    live = [(0, 3), *[(0, 1)] * 11]
    plans = _draw(world, 0, live=live)
    assert set(plans[:, 0]) == {0, 3}
    assert set(plans[:, 1:].ravel()) == {0, 1}


def test_equal_seeds_draw_equal_candidates(world):
    np.testing.assert_array_equal(_draw(world, 5), _draw(world, 5))
    assert not np.array_equal(_draw(world, 5), _draw(world, 6))


def test_mutants_move_few_knobs(world):
    parents = np.full((1, 12), 1, dtype=np.int64)
    plans = mutated(world.predictor.live_levels(), parents, 500, np.random.default_rng(0))
    moved = (plans != 1).sum(axis=1)
    assert 1.0 < moved.mean() < 4.0
    assert (parents == 1).all()


def test_mutants_of_a_space_without_choice_are_their_parents():
    parents = np.zeros((1, 3), dtype=np.int64)
    plans = mutated([(0,)] * 3, parents, 4, np.random.default_rng(0))
    np.testing.assert_array_equal(plans, np.zeros((4, 3)))
