"""Random crops, flips and normalisation of whole image batches, without a Python loop per image.

Both work on the first input of a batch and hand the others through, so that models with a side
input can use them too. Dimension key: `N` images, `C` channels, `H` rows, `W` columns, `P` padding.
"""

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from autocompress.errors import InputError
from autocompress.tasks.base import Augment, Inputs, Transform


def crop_and_flip(pad: int, flip: bool = True) -> Augment:
    """Make the augmentation of He et al. (2016), section 4.2: pad with zeros, crop back, mirror.

    Every image draws its own offset, uniform over the (2·pad + 1)² places, and is mirrored left to
    right with probability one half. All randomness comes from the generator that is passed in.

    Args:
        pad: Zero pixels added on each side before the crop; 0 switches the crop off.
        flip: Whether to mirror at all. Leave it off where left and right mean something: digits.

    Returns:
        A picklable function for `Task.augment`. Its images have shape (N, C, H, W) in any dtype,
        uint8 included, and come back in the same shape and dtype.

    Raises:
        InputError: If `pad` is negative.
    """
    if pad < 0:
        raise InputError(f"`pad` must be 0 or more pixels, but got {pad}.")
    return functools.partial(_crop_and_flip, pad=pad, flip=flip)


def _crop_and_flip(inputs: Inputs, generator: torch.Generator, *, pad: int, flip: bool) -> Inputs:
    images = inputs[0]
    _require_images(images)
    if pad > 0:
        n, _, height, width = images.shape
        offsets = torch.randint(0, 2 * pad + 1, (2, n), generator=generator)
        padded = F.pad(images, (pad, pad, pad, pad))
        # (N, C, 2P+1, 2P+1, H, W): every crop as a view, of which indexing copies one per image.
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)
        images = windows[torch.arange(n), :, offsets[0], offsets[1]]
    if flip:
        is_flipped = torch.rand(len(images), generator=generator) < 0.5
        images = torch.where(is_flipped[:, None, None, None], images.flip(3), images)
    return (images, *inputs[1:])


def normalize(mean: float | Sequence[float], std: float | Sequence[float]) -> Transform:
    """Make the transform that standardises images per channel: (x - mean) / std.

    Args:
        mean: Mean of each channel on the [0, 1] scale; one number stands for all channels.
        std: Standard deviation of each channel on the same scale, positive.

    Returns:
        A picklable function for `TensorData.transform`. It takes images of shape (N, C, H, W), as
        uint8 in [0, 255] or as floats in [0, 1], and returns float32 in channels-last memory
        format, which convolutions on CPUs prefer.

    Raises:
        InputError: If the lengths differ or a standard deviation is not positive.
    """
    means = _per_channel(mean)
    stds = _per_channel(std)
    if len(means) != len(stds):
        raise InputError(
            f"`mean` and `std` must have one value per channel each, "
            f"but got {len(means)} and {len(stds)}."
        )
    if min(stds) <= 0.0:
        raise InputError(f"`std` must be positive in every channel, but got {min(stds)}.")
    return functools.partial(_normalize, means=means, stds=stds)


def _normalize(inputs: Inputs, *, means: tuple[float, ...], stds: tuple[float, ...]) -> Inputs:
    images = inputs[0]
    _require_images(images)
    if len(means) not in (1, images.shape[1]):
        raise InputError(
            f"`normalize` was made for {len(means)} channels, "
            f"but the images have shape {tuple(images.shape)}."
        )
    white = 255.0 if images.dtype == torch.uint8 else 1.0
    shift = torch.tensor(means, dtype=torch.float32).view(1, -1, 1, 1) * white
    scale = torch.tensor(stds, dtype=torch.float32).view(1, -1, 1, 1) * white
    floats = images.to(torch.float32, memory_format=torch.channels_last, copy=True)
    return (floats.sub_(shift).div_(scale), *inputs[1:])


def _per_channel(values: float | Sequence[float]) -> tuple[float, ...]:
    listed = (values,) if isinstance(values, int | float) else tuple(values)
    if not listed:
        raise InputError("`mean` and `std` must hold at least one value, but one is empty.")
    return tuple(float(value) for value in listed)


def _require_images(images: Tensor) -> None:
    if images.ndim != 4:
        raise InputError(f"Images must have shape (N, C, H, W), but got {tuple(images.shape)}.")
