"""Which number format this machine trains fastest in, and the memory layout that goes with it."""

import contextlib
import ctypes
import math
import platform
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from autocompress.errors import InputError
from autocompress.tasks.base import Inputs

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_FEWEST_SOUND_CHANNELS = 16  # a vector register holds so many float32 with AVX-512, 8 with AVX2
Precision = Literal["bf16", "fp32"]
_Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
_ConvTranspose = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d


def keep_freed_memory() -> None:
    """Let the C library keep what tensors free instead of handing it back page by page.

    A step allocates and frees the same large tensors; by default each goes to the kernel and comes
    back zeroed. Does nothing where the C library is not glibc.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)  # the largest value glibc takes
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def find_device(name: str) -> torch.device:
    """A device by its name, such as `cpu` or `cuda:0`.

    Raises:
        InputError: If this machine has no such device.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"`device` must name a device of this machine, but got {name!r}.", "Use cpu."
        ) from error
    return device


def fastest_precision(device: torch.device) -> Precision:
    """bf16 where the processor multiplies it natively (AMX, AVX-512 BF16, recent GPUs)."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if torch.backends.cpu.get_cpu_capability() and _has_cpu_bf16() else "fp32"


def _has_cpu_bf16() -> bool:
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Context in which convolutions and matrix products run in `precision`."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


@contextlib.contextmanager
def sound_gradients(model: nn.Module) -> Iterator[None]:
    """Context for a model's backward pass, without oneDNN where it damages memory.

    The gradient of a strided 1x1 convolution, or a transposed one, of few channels in channels-last
    order writes past its workspace: wrong gradients, a hang or a crash (uxlfoundation/oneDNN issue
    6035; seen with torch 2.13 on a processor with AVX2). PyTorch's own kernels take its place.
    """
    was_enabled = torch.backends.mkldnn.enabled
    if any(map(_has_damaged_gradient, model.modules())):
        torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = was_enabled


def _has_damaged_gradient(layer: nn.Module) -> bool:
    if not isinstance(layer, _Conv | _ConvTranspose):
        return False
    is_strided_1x1 = math.prod(layer.kernel_size) == 1 and math.prod(layer.stride) > 1
    # A transposed one is the gradient of a convolution: its large side is the output.
    n_channels = layer.in_channels if isinstance(layer, _Conv) else layer.out_channels
    return is_strided_1x1 and n_channels < _FEWEST_SOUND_CHANNELS


def to_fast_layout_(model: nn.Module, device: torch.device) -> nn.Module:
    """Move a model to a device, 4-D weights in channels-last order; returns the same model."""
    model = model.to(device)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


def to_device(inputs: Inputs, device: torch.device) -> Inputs:
    """Inputs on a device, images in channels-last order."""
    return tuple(_moved(tensor, device) for tensor in inputs)


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type != "cpu":
        tensor = tensor.pin_memory().to(device, non_blocking=True)
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
