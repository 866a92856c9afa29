import numpy as np
import pytest
import torch

from autocompress.analysis.probe_layout import (
    Layout,
    changed_channels,
    layout_of,
    noise,
    repeat_examples,
)


def test_layout_of_a_constant_has_no_batch_dimension():
    assert layout_of((6, 16), (6, 16)) == Layout(shape=(6, 16), batch_dim=None)


@pytest.mark.parametrize(("two", "three"), [((3, 4), (4, 4)), ((2, 2), (3, 3))])
def test_layout_of_refuses_what_does_not_grow_in_proportion(two, three):
    with pytest.raises(ValueError, match="for 2 examples has"):
        layout_of(two, three)


def test_noise_is_never_small_and_repeats_itself():
    drawn = noise((1000,), 3)
    assert float(drawn.abs().min()) >= 0.5
    assert float(drawn.abs().max()) <= 1.5
    assert 300 < int((drawn > 0).sum()) < 700
    assert torch.equal(drawn, noise((1000,), 3))
    assert not torch.equal(drawn, noise((1000,), 4))


@pytest.mark.parametrize("batch_dim", [0, 1])
def test_changed_channels_finds_the_one_that_differs(batch_dim):
    shape = (2, 3, 4) if batch_dim == 0 else (3, 2, 4)
    layout = Layout(shape=shape, batch_dim=batch_dim)
    tensor = repeat_examples(noise(shape, 0), layout, 4)
    own = tensor.narrow(batch_dim, 2, 2)  # the second of four examples, two rows each
    own.select(2, 3)[1, 1] += 1.0
    hits = changed_channels(tensor, layout, 2, 4)
    assert np.argwhere(hits).tolist() == [[1, 3]]
    assert changed_channels(tensor, layout, None, 4).tolist() == [[False], [True], [False], [False]]


def test_changed_channels_ignores_rounding_and_what_is_not_finite():
    layout = Layout(shape=(1, 3), batch_dim=0)
    tensor = torch.tensor(
        [[1.0, torch.inf, 2.0], [1.0 + 1e-6, torch.inf, 3.0], [1.0, torch.inf, 2]]
    )
    assert changed_channels(tensor, layout, 1, 3).tolist() == [
        [False, False, False],
        [False, False, True],
        [False, False, False],
    ]


def test_changed_channels_compares_constants_with_a_reference_only():
    layout = Layout(shape=(2, 3), batch_dim=None)
    before = noise((2, 3), 0)
    after = before.clone()
    after[1, 2] += 1.0
    assert not changed_channels(after, layout, 1, 5).any()
    hits = changed_channels(after, layout, 1, 1, before)
    assert hits.tolist() == [[False, False, True]]


def test_changed_channels_refuses_examples_along_the_channels():
    with pytest.raises(ValueError, match="lie along its channels"):
        changed_channels(torch.zeros(4, 6), Layout(shape=(4, 3), batch_dim=1), 1, 2)
