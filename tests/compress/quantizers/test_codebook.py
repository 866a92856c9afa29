import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.compress.quantizers.codebook import (
    RoundToCodebook,
    look_up,
    n_entries,
    nearest_entries,
)


@given(st.integers(1, 200), st.integers(0, 500))
@settings(deadline=None, max_examples=40)
def test_nearest_entries_are_those_of_brute_force(size, seed):
    """On both sides of the size where the algorithm changes."""
    generator = torch.Generator().manual_seed(seed)
    entries = torch.randn(size, generator=generator).sort().values
    ratio = torch.randn(3, 40, generator=generator)
    chosen = look_up(entries, nearest_entries(ratio, entries))
    least = (ratio[..., None] - entries).abs().amin(-1)
    torch.testing.assert_close((ratio - chosen).abs(), least)


@pytest.mark.parametrize("size", [4, 100])
def test_nearest_entries_take_the_lower_one_in_the_middle(size):
    entries = torch.arange(float(size))
    assert nearest_entries(torch.tensor([0.5, 1.5, 2.5]), entries).tolist() == [0, 1, 2]


def test_nearest_entries_take_any_memory_layout():
    ratio = torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    for size in (8, 100):
        entries = torch.randn(size).sort().values
        expected = nearest_entries(ratio.contiguous(), entries)
        assert torch.equal(nearest_entries(ratio, entries), expected)


@pytest.mark.parametrize("clips", [False, True])
def test_gradients_are_those_of_one_value_at_a_time(clips):
    x = torch.randn(2, 30, requires_grad=True)
    entries = torch.tensor([-1.0, -0.2, 0.5, 1.2], requires_grad=True)
    scale = torch.tensor([[0.8], [1.3]], requires_grad=True)
    grad = torch.randn(2, 30)
    RoundToCodebook.apply(x, entries, scale, clips, (0.5, 0.25)).backward(grad)
    expected = [torch.zeros_like(t) for t in (x, entries, scale)]
    for r in range(2):
        for i in range(30):
            ratio = (x[r, i] / scale[r]).item()
            k = min(range(4), key=lambda k: abs(ratio - entries[k].item()))
            is_free = not clips or -1.0 <= ratio <= 1.2
            expected[0][r, i] = grad[r, i] * is_free
            expected[1][k] += grad[r, i] * scale[r, 0].item() * 0.5
            slope = entries[k].item() - (ratio if is_free else 0.0)
            expected[2][r, 0] += grad[r, i] * slope * 0.25
    for tensor, wanted in zip((x, entries, scale), expected, strict=True):
        torch.testing.assert_close(tensor.grad, wanted)


@pytest.mark.parametrize(
    ("bits", "pins_zero", "size"),
    [(1, False, 2), (1, True, 3), (1.58, False, 3), (1.58, True, 3), (2, True, 4), (8, False, 256)],
)
def test_codebook_sizes(bits, pins_zero, size):
    assert n_entries(bits, pins_zero) == size
