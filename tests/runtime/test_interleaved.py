import gc

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.runtime.interleaved import median_interval, time_in_turns
from autocompress.runtime.onnx_export import export_onnx
from autocompress.runtime.onnxruntime import make_session


def pair(width):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 3))
    session = make_session(export_onnx(module.eval(), (torch.zeros(2, 64),), {}).model, threads=1)
    return session, {session.get_inputs()[0].name: np.zeros((1, 64), np.float32)}


def test_time_in_turns_tells_large_from_small_and_gives_a_row_per_round():
    timed = time_in_turns([pair(4096), pair(8)], budget_s=0.1)
    assert timed.blocks_ms.shape[0] >= 7
    assert timed.blocks_ms.shape[1] == len(timed.n_runs) == 2
    large, small = np.median(timed.blocks_ms, axis=0)
    assert large > 3 * small > 0
    assert gc.isenabled()


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
