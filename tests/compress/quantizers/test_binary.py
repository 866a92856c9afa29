import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.compress.quantizers.uniform import RoundToSign, best_binary_scales


@given(st.integers(0, 1000), st.floats(0.5, 2.0))
@settings(deadline=None, max_examples=30)
def test_no_other_scale_has_less_squared_error(seed, factor):
    rows = torch.randn(3, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    best = best_binary_scales(rows, torch.ones(3, 9, dtype=torch.bool)).double()[:, None]

    def error(scale):
        return (rows.sign() * scale - rows).square().sum(1)

    assert (error(best) <= error(best * factor) + 1e-9).all()


def test_scale_is_the_mean_magnitude_of_the_members():
    rows, members = torch.tensor([[1.0, -3.0, 100.0]]), torch.tensor([[True, True, False]])
    assert best_binary_scales(rows, members).tolist() == [2.0]


def test_round_to_sign_by_hand():
    x = torch.tensor([[0.1, -0.2, 0.0, 5.0]], requires_grad=True)
    scale = torch.tensor([[2.0]], requires_grad=True)
    kept = torch.tensor([[True, True, True, False]])
    values = RoundToSign.apply(x, scale, kept, 0.5)
    assert values.tolist() == [[2.0, -2.0, 2.0, 0.0]]
    values.backward(torch.tensor([[1.0, 10.0, 100.0, 1000.0]]))
    assert x.grad.tolist() == [[1.0, 10.0, 100.0, 1000.0]]
    assert scale.grad.tolist() == [[(1.0 - 10.0 + 100.0) * 0.5]]
