import copy

import pytest
import torch

from autocompress.train.precision import autocast, fastest_precision, to_device, to_fast_layout_

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
