import dataclasses

import pytest

from autocompress.errors import InputError
from autocompress.runs.refine.training import Epoch, Refinement, best_of, is_stalled
from autocompress.train.recipe import Recipe

RECIPE = Recipe(epochs=2, learning_rate=0.1, batch_size=8)


def epochs(*figures: tuple[float, float, bool]) -> list[Epoch]:
    return [
        Epoch(
            number=number,
            n_epochs=len(figures),
            accuracy=accuracy,
            loss=loss,
            est_code_bits=None,
            is_final=is_final,
            seconds=float(number),
        )
        for number, (accuracy, loss, is_final) in enumerate(figures, start=1)
    ]


def best_number(found: list[Epoch]) -> int:
    best = best_of(found)
    assert best is not None
    return best.number


def test_best_epoch_is_final_then_most_accurate_then_of_least_loss() -> None:
    assert best_number(epochs((0.9, 0.1, False), (0.8, 0.2, False))) == 1
    assert best_number(epochs((0.99, 0.1, False), (0.5, 0.9, True))) == 2
    assert best_number(epochs((0.8, 0.1, True), (0.9, 0.9, True), (0.7, 0.1, True))) == 2
    assert best_number(epochs((0.9, 0.3, True), (0.9, 0.2, True), (0.9, 0.25, True))) == 2
    assert best_number(epochs((0.9, 0.3, True), (0.9, 0.3, True))) == 1
    assert best_of([]) is None


def test_refinement_is_stalled_after_patience_epochs_that_were_not_better() -> None:
    worse = epochs((0.9, 0.1, True), (0.8, 0.1, True), (0.8, 0.1, True))
    assert [is_stalled(worse[:n], 2) for n in range(4)] == [False, False, False, True]
    assert not is_stalled(worse, 3)
    better = [*worse, dataclasses.replace(worse[0], number=4, accuracy=0.95)]
    assert not is_stalled(better, 2)


def test_refinement_is_not_stalled_before_an_epoch_is_final() -> None:
    found = epochs(*[(0.9 - n / 100, 0.1, False) for n in range(9)])
    assert not is_stalled(found, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patience": 0}, "`patience` must be at least 1 epoch, but got 0."),
        ({"minutes": 0.0}, "`minutes` must be > 0, but got 0."),
        ({"minutes": float("inf")}, "`minutes` must be > 0, but got inf."),
        ({"minutes": float("nan")}, "`minutes` must be > 0, but got nan."),
    ],
)
def test_refinement_refuses_numbers_out_of_range(changes: dict[str, float], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Refinement(**{"recipe": RECIPE, **changes})
    assert caught.value.message == message
