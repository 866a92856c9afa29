import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from autocompress.errors import InputError
from autocompress.tasks.images import crop_and_flip, normalize


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _one_by_one(images: Tensor, generator: torch.Generator, pad: int, flip: bool) -> Tensor:
    """The slow oracle: the same draws, then plain slicing of each padded image."""
    n, channels, height, width = images.shape
    offsets = torch.randint(0, 2 * pad + 1, (2, n), generator=generator) if pad else None
    flips = torch.rand(n, generator=generator) < 0.5 if flip else torch.zeros(n)
    changed = []
    for i in range(n):
        canvas = torch.zeros(channels, height + 2 * pad, width + 2 * pad, dtype=images.dtype)
        canvas[:, pad : pad + height, pad : pad + width] = images[i]
        top, left = (0, 0) if offsets is None else (int(offsets[0, i]), int(offsets[1, i]))
        image = canvas[:, top : top + height, left : left + width]
        changed.append(image.flip(2) if flips[i] else image)
    return torch.stack(changed)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*(st.integers(1, n) for n in (5, 3, 6, 7))),
    pad=st.integers(0, 3),
    flip=st.booleans(),
    dtype=st.sampled_from([torch.uint8, torch.float32]),
    seed=st.integers(0, 100),
)
def test_crop_and_flip_equals_a_loop_over_images(shape, pad, flip, dtype, seed):
    images = torch.randint(1, 256, shape, generator=_generator(seed)).to(dtype)

    (changed,) = crop_and_flip(pad, flip)((images,), _generator(seed))

    assert changed.dtype == dtype
    assert torch.equal(changed, _one_by_one(images, _generator(seed), pad, flip))


def test_crop_and_flip_reaches_every_place_and_both_sides():
    images = torch.zeros(2000, 1, 3, 3)
    images[:, 0, 1, 0] = 1.0  # at the edge, so that a flip shows

    (changed,) = crop_and_flip(1)((images,), _generator())

    places = {tuple(image.flatten().tolist()) for image in changed}
    assert len(places) == 3 * 3 + 1  # every pixel, and out of sight to the left


def test_crop_and_flip_leaves_the_batch_and_global_random_state_alone():
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    before, state = images.clone(), torch.get_rng_state()

    crop_and_flip(2)((images,), _generator())

    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_crop_and_flip_hands_other_inputs_through():
    side = torch.randn(4, 2)

    _, same = crop_and_flip(1)((torch.zeros(4, 1, 5, 5), side), _generator())

    assert same is side


@pytest.mark.parametrize("function", [crop_and_flip(1), normalize(0.5, 0.2)])
def test_transforms_can_be_pickled(function):
    assert repr(pickle.loads(pickle.dumps(function))) == repr(function)


def test_crop_and_flip_refuses_negative_padding_and_other_shapes():
    with pytest.raises(InputError, match="`pad` must be 0 or more pixels, but got -1"):
        crop_and_flip(-1)
    with pytest.raises(InputError, match=r"shape \(N, C, H, W\), but got \(4, 8\)"):
        crop_and_flip(1)((torch.zeros(4, 8),), _generator())


def test_normalize_equals_the_formula_on_uint8():
    images = torch.randint(0, 256, (5, 3, 4, 6), dtype=torch.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)

    (standardized,) = normalize(mean, std)((images,))

    expected = torch.stack(
        [(images[:, c].double() / 255 - mean[c]) / std[c] for c in range(3)], dim=1
    )
    torch.testing.assert_close(standardized, expected.float(), rtol=1e-5, atol=1e-6)
    assert standardized.is_contiguous(memory_format=torch.channels_last)


def test_normalize_takes_floats_as_shares_of_white():
    images = torch.randint(0, 256, (2, 1, 3, 3), dtype=torch.uint8)
    function = normalize(0.5, 0.25)
    floats = images.float() / 255
    before = floats.clone()

    torch.testing.assert_close(function((images,)), function((floats,)))
    assert torch.equal(floats, before)


def test_normalize_refuses_what_does_not_fit():
    with pytest.raises(InputError, match="but got 2 and 3"):
        normalize((0.1, 0.2), (1.0, 1.0, 1.0))
    with pytest.raises(InputError, match=r"positive in every channel, but got 0\.0"):
        normalize(0.5, 0.0)
    with pytest.raises(InputError, match=r"made for 3 channels.*\(2, 1, 4, 4\)"):
        normalize((0.1,) * 3, (1.0,) * 3)((torch.zeros(2, 1, 4, 4),))
