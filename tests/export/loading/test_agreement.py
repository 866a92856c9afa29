import pytest
import torch
from torch import nn

from autocompress.errors import InputError
from autocompress.export.loading.agreement import check_agreement, tensors_of
from autocompress.runtime.onnx_export import export_onnx

X = (torch.randn(3, 4),)


def check(model: nn.Module, other: nn.Module) -> None:
    graph = export_onnx(other, X, {}).model
    check_agreement(model.eval(), graph, X, torch.Generator().manual_seed(0))


def linear(scale: float = 1.0) -> nn.Linear:
    layer = nn.Linear(4, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(8.0).reshape(2, 4) * scale)
        layer.bias.zero_()
    return layer


def test_check_agreement_lets_rounding_pass():
    check(linear(), linear(1.0 + 1e-5))


def test_check_agreement_refuses_other_outputs():
    with pytest.raises(InputError, match=r"output 0 differs by 0\.01 of the largest value"):
        check(linear(1.01), linear())


def test_check_agreement_asks_beyond_the_given_inputs():
    class OnlyThere(nn.Module):
        """Right on the example inputs alone."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return linear()(x) + (0.0 if torch.equal(x, X[0]) else 1.0)

    with pytest.raises(InputError, match="must compute what the file does"):
        check(OnlyThere(), linear())


def test_check_agreement_refuses_nan_and_other_shapes():
    class Fixed(nn.Module):
        def __init__(self, value: torch.Tensor) -> None:
            super().__init__()
            self.value = value

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.value

    with pytest.raises(InputError, match="differs by inf"):
        check(Fixed(torch.full((3, 2), torch.nan)), linear())
    with pytest.raises(InputError, match=r"outputs of shapes \[\[3, 2\]\], but returns \[\[3, 5\]"):
        check(Fixed(torch.zeros(3, 5)), linear())


def test_tensors_of_lists_nested_outputs_in_order():
    a, b, c = (torch.full((1,), float(i)) for i in range(3))
    assert [t.item() for t in tensors_of({"x": a, "y": (b, None, [c])})] == [0.0, 1.0, 2.0]
