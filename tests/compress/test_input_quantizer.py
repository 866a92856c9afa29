import pytest
import torch

from autocompress.compress.input_quantizer import InputQuantizer


def test_grid_passes_through_and_watches_while_observing():
    grid = InputQuantizer()
    x = torch.tensor([[-1.0, 3.0]])
    assert grid(x) is x
    grid(torch.tensor([[0.5, 1.0]]))
    assert (float(grid.low), float(grid.high)) == (-1.0, 3.0)


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 4.0), (-1.0, 3.0), (-2.0, 0.0), (0.5, 2.0), (-3.0, -1.0), (0.0, 0.0)]
)
def test_grid_covers_what_was_observed_and_holds_zero(low, high):
    grid = InputQuantizer()
    grid(torch.tensor([[low, high]]))
    grid.settle()
    frozen = grid.freeze()
    assert 0 <= frozen.zero_point <= 255
    least, most = (-frozen.zero_point * frozen.scale, (255 - frozen.zero_point) * frozen.scale)
    assert least <= min(low, 0.0) + frozen.scale
    assert most >= max(high, 0.0) - frozen.scale
    x = torch.linspace(low, high, 50)[None]
    values = grid(x)
    assert ((values - x).abs() <= frozen.scale * 1.01).all()
    assert grid(torch.zeros(1, 1)).item() == 0.0
    codes = (values / frozen.scale).round() + frozen.zero_point
    assert codes.min() >= 0
    assert codes.max() <= 255


def test_grid_clips_what_it_never_saw():
    grid = InputQuantizer()
    grid(torch.tensor([[0.0, 2.55]]))
    grid.settle()
    assert grid(torch.tensor([[100.0, -100.0]])).tolist()[0] == pytest.approx([2.55, 0.0])


def test_grid_must_be_settled_before_it_is_frozen():
    with pytest.raises(AssertionError, match="settle the grid"):
        InputQuantizer().freeze()


def test_gradients_stop_off_the_grid_and_reach_the_step():
    grid = InputQuantizer()
    grid(torch.tensor([[0.0, 1.0]]))
    grid.settle()
    x = torch.tensor([[0.5, 2.0, -1.0]], requires_grad=True)
    grid(x).sum().backward()
    assert x.grad.tolist() == [[1.0, 0.0, 0.0]]
    assert grid.step.grad is not None
