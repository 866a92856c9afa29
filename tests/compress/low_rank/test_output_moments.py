import copy

import pytest
import torch
from torch import nn

from autocompress.compress.input_moments import input_second_moments
from autocompress.compress.low_rank.surgery import output_second_moments

LAYERS = {
    "linear": (nn.Linear(6, 4), (5, 3, 6)),
    "conv1d": (nn.Conv1d(6, 4, 3, padding=1), (5, 6, 8)),
    "conv2d": (nn.Conv2d(6, 4, 3, stride=2, bias=False), (5, 6, 8, 8)),
    "conv3d": (nn.Conv3d(6, 4, 2), (5, 6, 3, 3, 3)),
}


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_moment_is_that_of_the_inputs_through_the_weight(name):
    layer, shape = LAYERS[name]
    model = nn.Sequential(copy.deepcopy(layer)).double()
    batches = [(torch.randn(shape, dtype=torch.float64),) for _ in range(2)]
    weight = model[0].weight.detach().flatten(1)
    M = input_second_moments(model, ["0"], batches)["0"]
    C = output_second_moments(model, ["0"], batches)["0"]
    assert C.dtype == torch.float64
    torch.testing.assert_close(C, weight @ M @ weight.T)


def test_layer_that_is_not_called_is_missing():
    assert output_second_moments(nn.Sequential(nn.Linear(6, 4)), ["0"], []) == {}
