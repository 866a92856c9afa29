import time

import numpy as np
import pytest

from autocompress.runtime.interleaved import median_interval, time_in_turns


class Sleeper:
    """Takes as long as it says."""

    def __init__(self, nanoseconds):
        self.nanoseconds = nanoseconds
        self.blocks = []

    def time_block(self, n_runs):
        self.blocks.append(n_runs)
        time.sleep(n_runs * self.nanoseconds / 1e9)
        return self.nanoseconds


def test_time_in_turns_tells_large_from_small_and_gives_a_row_per_round():
    models = [Sleeper(8_000_000), Sleeper(500_000)]
    timed = time_in_turns(models, budget_s=0.1)
    assert timed.blocks_ms.shape[0] >= 7
    assert timed.blocks_ms.shape[1] == len(timed.n_runs) == 2
    assert timed.n_runs == (1, 8)  # a block takes 4 ms at least
    assert (timed.blocks_ms == [8.0, 0.5]).all()
    assert all(set(model.blocks) <= {1, n} for model, n in zip(models, timed.n_runs, strict=True))


@pytest.mark.parametrize("n", [6, 9, 30, 101])
def test_median_interval_holds_the_true_median_as_often_as_it_says(n):
    random = np.random.default_rng(n)
    intervals = [median_interval(random.exponential(size=n)) for _ in range(1000)]
    held = np.mean([low <= np.log(2.0) <= high for _, low, high in intervals])
    assert held > 0.93  # 95 % promised; 1,000 tries
    assert all(low <= median <= high for median, low, high in intervals)


def test_median_interval_of_few_values_is_their_range():
    assert median_interval(np.array([3.0, 1.0, 2.0])) == (2.0, 1.0, 3.0)
    assert median_interval(np.array([5.0])) == (5.0, 5.0, 5.0)
