import copy
import subprocess
import sys

import pytest
import torch

from autocompress.train.precision import (
    autocast,
    fastest_precision,
    sound_gradients,
    to_device,
    to_fast_layout_,
)

CPU = torch.device("cpu")


def test_fastest_precision_is_one_this_processor_can_train_in():
    assert fastest_precision(CPU) in ("bf16", "fp32")


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)]
)
def test_autocast_sets_the_format_of_products(precision, dtype):
    x = torch.randn(4, 4)
    with autocast(precision, CPU):
        assert (x @ x).dtype == dtype
    assert (x @ x).dtype == torch.float32


def test_fast_layout_changes_order_and_nothing_else(zoo):
    net = zoo("residual")
    model = copy.deepcopy(net.model)
    assert to_fast_layout_(model, CPU) is model
    for (name, parameter), original in zip(
        model.named_parameters(), net.model.parameters(), strict=True
    ):
        assert torch.equal(parameter, original), name
        if parameter.ndim == 4:
            assert parameter.is_contiguous(memory_format=torch.channels_last)


def test_to_device_orders_images_only():
    images, rows = to_device((torch.randn(2, 3, 4, 4), torch.randn(2, 3)), CPU)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert rows.is_contiguous()


# Tensors that are made and freed meet what was written past the end of another one.
TRAIN = """
import torch
from autocompress.train.precision import sound_gradients, to_device, to_fast_layout_
cpu = torch.device("cpu")
for seed in range(60):
    torch.manual_seed(seed)
    layer = to_fast_layout_(torch.nn.ConvTranspose2d(8, 2, 1, stride=2, output_padding=1), cpu)
    (x,) = to_device((torch.randn(6, 8, 4, 4),), cpu)
    loss = layer(x).square().sum()
    with sound_gradients(layer):
        loss.backward()
    expected = 2 * torch.einsum("bihw,bohw->io", x, layer(x)[:, :, ::2, ::2])
    torch.testing.assert_close(layer.weight.grad[:, :, 0, 0], expected, rtol=1e-4, atol=1e-3)
    layer = to_fast_layout_(torch.nn.Conv2d(4, 8, 1, stride=2), cpu)
    (x,) = to_device((torch.randn(6, 4, 8, 8),), cpu)
    loss = layer(x).square().sum()
    with sound_gradients(layer):
        loss.backward()
    expected = 2 * torch.einsum("bohw,bihw->oi", layer(x), x[:, :, ::2, ::2])
    torch.testing.assert_close(layer.weight.grad[:, :, 0, 0], expected, rtol=1e-4, atol=1e-3)
    kept = [torch.zeros(n) for n in range(1, 300, 7)]
"""


def test_gradients_of_narrow_strided_1x1_convolutions_are_right_and_damage_nothing():
    done = subprocess.run(
        [sys.executable, "-c", TRAIN], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("layer", "is_sound"),
    [
        (torch.nn.Conv2d(4, 8, 1, stride=2), False),
        (torch.nn.Conv2d(64, 8, 1, stride=2), True),
        (torch.nn.ConvTranspose2d(64, 5, 1, stride=2), False),
        (torch.nn.ConvTranspose2d(5, 64, 1, stride=2), True),
        (torch.nn.Conv2d(4, 8, 3, stride=2), True),
        (torch.nn.Conv2d(4, 8, 1), True),
    ],
)
def test_sound_gradients_leaves_the_fast_kernels_where_they_are_right(layer, is_sound):
    with sound_gradients(torch.nn.Sequential(layer)):
        assert torch.backends.mkldnn.enabled == is_sound
    assert torch.backends.mkldnn.enabled
