import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from autocompress.pareto import hypervolume, knee, non_dominated, running_hypervolume

# Few distinct values, so that duplicates and ties are the rule
POINTS = st.integers(1, 4).flatmap(
    lambda m: npst.arrays(
        np.float64, st.tuples(st.integers(1, 8), st.just(m)), elements=st.integers(0, 4)
    )
)
MATRICES = POINTS.filter(lambda points: len(points) <= 6)


def _dominates(a, b):
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(
        x < y for x, y in zip(a, b, strict=True)
    )


def _inclusion_exclusion(points, reference):
    """Volume of a union of boxes, by the sum over all subsets."""
    volume = 0.0
    for size in range(1, len(points) + 1):
        for subset in itertools.combinations(points, size):
            sides = np.clip(reference - np.max(subset, axis=0), 0.0, None)
            volume += (-1) ** (size + 1) * float(np.prod(sides))
    return volume


@given(POINTS)
def test_non_dominated_equals_brute_force_with_duplicates_and_ties(points):
    expected = [not any(_dominates(other, point) for other in points) for point in points]
    assert non_dominated(points).tolist() == expected


def test_non_dominated_keeps_all_of_equal_points():
    points = np.array([[1.0, 2.0], [1.0, 2.0], [2.0, 2.0]])
    assert non_dominated(points).tolist() == [True, True, False]


def test_non_dominated_of_nothing_is_empty():
    assert non_dominated(np.empty((0, 2))).shape == (0,)


@given(MATRICES)
@settings(deadline=None)
def test_hypervolume_equals_inclusion_exclusion(points):
    reference = np.full(points.shape[1], 3.5)  # some points lie outside of it
    inside = [p for p in points if (p < reference).all()]
    expected = _inclusion_exclusion(np.array(inside), reference) if inside else 0.0
    assert hypervolume(points, reference) == pytest.approx(expected)


@given(POINTS, st.randoms(use_true_random=False))
def test_hypervolume_does_not_depend_on_order(points, random):
    rows, columns = list(range(len(points))), list(range(points.shape[1]))
    random.shuffle(rows)
    random.shuffle(columns)
    reference = np.linspace(3.0, 5.0, points.shape[1])
    expected = hypervolume(points, reference)
    assert hypervolume(points[rows], reference) == pytest.approx(expected)
    assert hypervolume(points[:, columns], reference[columns]) == pytest.approx(expected)


@given(POINTS)
def test_hypervolume_never_shrinks_when_a_point_is_added(points):
    reference = np.full(points.shape[1], 3.5)
    assert hypervolume(points, reference) >= hypervolume(points[:-1], reference) - 1e-9


@pytest.mark.parametrize(
    ("points", "volume"),
    [
        (np.empty((0, 2)), 0.0),
        (np.array([[2.0, 0.0]]), 0.0),  # on the reference's edge
        (np.array([[0.0, 1.0], [1.0, 0.0]]), 3.0),
        (np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), 3.0),
    ],
)
def test_hypervolume_of_known_sets(points, volume):
    assert hypervolume(points, np.array([2.0, 2.0])) == volume


def test_knee_is_the_point_closest_to_the_ideal_corner():
    points = np.array([[0.0, 100.0], [0.2, 20.0], [1.0, 0.0]])
    assert knee(points) == 1


@given(POINTS, st.floats(0.1, 1000.0), st.floats(-100.0, 100.0))
def test_knee_does_not_depend_on_units(points, factor, shift):
    scaled = (points - points.min(0)) / np.maximum(np.ptp(points, 0), 1)
    distances = np.sort(np.linalg.norm(scaled, axis=1))
    if len(distances) > 1 and distances[1] - distances[0] < 1e-6:
        return  # a tie may fall either way when rounded
    assert knee(points * factor + shift) == knee(points)


def test_knee_survives_objectives_that_do_not_differ():
    assert knee(np.array([[1.0, 5.0], [0.0, 5.0]])) == 1


def test_knee_refuses_an_empty_set():
    with pytest.raises(ValueError, match="at least one point"):
        knee(np.empty((0, 2)))


@given(POINTS)
@settings(deadline=None)
def test_running_hypervolume_equals_hypervolume_of_every_beginning(points):
    reference = np.full(points.shape[1], 3.5)
    expected = [hypervolume(points[: i + 1], reference) for i in range(len(points))]
    assert running_hypervolume(points, reference) == pytest.approx(expected)


def test_running_hypervolume_of_nothing_is_empty():
    assert running_hypervolume(np.empty((0, 2)), np.ones(2)) == []
