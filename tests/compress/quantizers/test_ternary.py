import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.compress.quantizers.uniform import best_ternary_steps


def _error(row, step):
    return ((row / step).round().clamp(-1, 1) * step - row).square().sum().item()


@given(st.lists(st.floats(-10, 10, width=16), min_size=1, max_size=6))
@settings(deadline=None, max_examples=40)
def test_step_has_the_least_error_of_all_codes(values):
    """Brute force over every choice of codes, each with its best scale."""
    row = torch.tensor(values, dtype=torch.float64)
    best = row.square().sum().item()
    for codes in itertools.product((-1.0, 0.0, 1.0), repeat=len(values)):
        c = torch.tensor(codes, dtype=torch.float64)
        if c.any():
            scale = (c @ row) / (c @ c)
            best = min(best, (c * scale - row).square().sum().item())
    step = best_ternary_steps(row[None])[0].double()
    assert step > 0
    assert abs(_error(row, step) - best) <= 1e-5 * (1 + best)


def test_step_is_never_worse_than_the_heuristic_of_the_paper():
    rows = torch.randn(20, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for row, step in zip(rows, best_ternary_steps(rows).double(), strict=True):
        chosen = row.abs() > 0.7 * row.abs().mean()
        scale = row[chosen].abs().mean()
        heuristic = (chosen * row.sign() * scale - row).square().sum().item()
        assert _error(row, step) <= heuristic + 1e-6
