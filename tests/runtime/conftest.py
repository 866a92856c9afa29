"""A small zoo of modules, each with what an exporter or an integer runtime can get wrong."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autocompress.compress.codes import (
    ActivationRange,
    CodebookTensor,
    GridTensor,
    HashedTensor,
    QuantizedTensor,
    StoredWeight,
)

Zoo = dict[str, Callable[[], tuple[nn.Module, Tensor]]]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm0 = nn.BatchNorm2d(8)
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm0(self.conv0(x)))
        x = F.relu(x + self.norm1(self.conv1(x)))
        x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, 0))
        return self.head(F.adaptive_avg_pool2d(x, 1).view(x.size(0), -1))


class PreActivation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv0(x)
        x = x + self.conv1(F.relu(self.norm(x)))
        return self.head(x.mean((2, 3)))


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.head = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.conv(F.relu(self.conv(x)))).mean((2, 3)))


class SharedUnderTwoNorms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.norm0 = nn.BatchNorm2d(3)
        self.norm1 = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm1(self.conv(F.relu(self.norm0(self.conv(x)))))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.qkv = nn.Linear(16, 48)
        self.out = nn.Linear(16, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = self.qkv(self.norm(x)).view(n, t, 3, 2, d // 2).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, d)
        return self.head((x + self.out(y)).mean(1))


class Split(nn.Module):
    """As in Res2Net: a layer reads the second part of what another one made."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        first, second = F.relu(self.conv0(x)).split(4, 1)
        x = torch.cat([first, F.relu(self.conv1(second))], 1)
        return self.head(x.mean((2, 3)))


def _plain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(72, 4),
    )


def _depthwise_and_grouped() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(4, 8, 1),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.Conv2d(8, 4, 3, groups=2),
        nn.BatchNorm2d(4),
    )


def _transposed() -> nn.Module:
    return nn.Sequential(
        nn.ConvTranspose2d(4, 6, 2, stride=2),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 4, 3, groups=2),
        nn.BatchNorm2d(4),
    )


def _mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 8, bias=False),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Linear(8, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Linear(8, 3),
    )


def _conv1d() -> nn.Module:
    return nn.Sequential(nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 4, 3))


def _linear_3d() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5, bias=False))


BUILDERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "plain": (_plain, (3, 8, 8)),
    "residual": (Residual, (3, 8, 8)),
    "pre_activation": (PreActivation, (3, 8, 8)),
    "shared": (Shared, (3, 8, 8)),
    "shared_under_two_norms": (SharedUnderTwoNorms, (3, 8, 8)),
    "depthwise_and_grouped": (_depthwise_and_grouped, (4, 8, 8)),
    "conv1d": (_conv1d, (3, 12)),
    "transposed": (_transposed, (4, 5, 5)),
    "mlp": (_mlp, (6,)),
    "linear_3d": (_linear_3d, (4, 6)),
    "attention": (Attention, (6, 16)),
    "split": (Split, (3, 8, 8)),
}


def _build(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    make, shape = BUILDERS[name]
    module = make().eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):  # gammas of both signs
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2.0)
    return module, torch.randn(7, *shape)


def _quantize(module: nn.Module, bits: int = 7) -> dict[str, QuantizedTensor]:
    """Round every weight to nearest, symmetric per output channel, in place.

    Seven bits by default: sums of two products of 8-bit codes saturate on processors without VNNI.
    """
    found = {}
    for name, layer in module.named_modules():
        if not isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d):
            continue
        weight = layer.weight.detach().numpy()
        axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
        others = tuple(d for d in range(weight.ndim) if d != axis)
        largest = 2 ** (bits - 1) - 1
        scale = np.abs(weight).max(axis=others, keepdims=True) / np.float32(largest)
        codes = np.clip(np.rint(weight / scale), -largest, largest).astype(np.int8)
        tensor = QuantizedTensor(codes=codes, scale=scale.reshape(-1), axis=axis, bits=bits)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(tensor.dequantize()))
        found[name] = tensor
    return found


WITH_CODES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Embedding, nn.RNNBase)


def _stored(kind: str, weight: np.ndarray, axis: int) -> StoredWeight:
    """A weight of that kind; hashed values are new numbers, the others lie near `weight`."""
    rows = np.moveaxis(weight, axis, 0)
    flat = rows.reshape(len(rows), -1)
    scale = (np.abs(flat).max(axis=1) / 7).astype(np.float32)
    if kind == "quantized":
        codes = np.rint(flat / scale[:, None]).astype(np.int8)
        return QuantizedTensor(codes=_back(codes, rows, axis), scale=scale, axis=axis, bits=4)
    if kind == "grid":
        size = 5
        low = np.stack([np.minimum(part.min(axis=1), 0) for part in _cut(flat, size)], axis=1)
        high = np.stack([np.maximum(part.max(axis=1), 0) for part in _cut(flat, size)], axis=1)
        step = ((high - low) / 15).astype(np.float32)
        zero = np.rint(-low / step)
        block = np.arange(flat.shape[1]) // size
        codes = np.clip(np.rint(flat / step[:, block]) + zero[:, block], 0, 15).astype(np.uint8)
        return GridTensor(
            codes=_back(codes, rows, axis),
            scale=step,
            zero_point=zero.astype(np.uint8),
            block_size=size,
            axis=axis,
            bits=4,
        )
    if kind == "codebook":
        codebook = np.linspace(-2.6, 2.7, 12, dtype=np.float32) ** 3
        near = np.abs(flat[:, :, None] / scale[:, None, None] * 2.7 - codebook)
        return CodebookTensor(
            codes=_back(near.argmin(axis=2).astype(np.uint8), rows, axis),
            codebook=codebook,
            scale=scale / np.float32(2.7),
            axis=axis,
            bits=4,
        )
    generator = np.random.default_rng(int(np.abs(flat).sum() * 1000))
    return HashedTensor(
        shape=weight.shape,
        values=generator.normal(size=weight.size // 3 + 1).astype(np.float32),
        seed=weight.size,
        scale=scale,
        axis=axis,
        bits=8,
    )


def _cut(flat: np.ndarray, size: int) -> list[np.ndarray]:
    return [flat[:, i : i + size] for i in range(0, flat.shape[1], size)]


def _back(codes: np.ndarray, rows: np.ndarray, axis: int) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(codes.reshape(rows.shape), 0, axis))


def _store(module: nn.Module, kind: str) -> dict[str, StoredWeight]:
    """Store every weight of every layer that way, in place; a tied one once, under two keys."""
    found: dict[str, StoredWeight] = {}
    done: dict[int, StoredWeight] = {}
    for layer, part in module.named_modules():
        if not isinstance(part, WITH_CODES):
            continue
        for name, parameter in part.named_parameters(recurse=False):
            if parameter.ndim < 2:
                continue
            axis = 1 if isinstance(part, nn.ConvTranspose2d) else 0
            if id(parameter) not in done:
                done[id(parameter)] = _stored(kind, parameter.detach().numpy(), axis)
                with torch.no_grad():
                    parameter.copy_(torch.from_numpy(done[id(parameter)].dequantize()))
            found[layer if name == "weight" else f"{layer}.{name}".lstrip(".")] = done[
                id(parameter)
            ]
    return found


def _observe(module: nn.Module, x: Tensor, layers: list[str]) -> dict[str, ActivationRange]:
    """Grid of each layer's input from its extremes on `x`."""
    extremes: dict[str, tuple[float, float]] = {}

    def hook(name: str) -> Callable[..., None]:
        def note(_: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> None:
            low, high = extremes.get(name, (0.0, 0.0))
            extremes[name] = (
                min(low, inputs[0].min().item()),
                max(high, inputs[0].max().item()),
            )

        return note

    parts = dict(module.named_modules())
    handles = [parts[name].register_forward_hook(hook(name)) for name in layers]
    with torch.no_grad():
        module(x)
    for handle in handles:
        handle.remove()
    grids = {}
    for name, (low, high) in extremes.items():
        scale = (high - low) / 255
        grids[name] = ActivationRange(scale=scale, zero_point=round(-low / scale))
    return grids


@pytest.fixture(params=sorted(BUILDERS))
def zoo_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def build() -> Callable[[str], tuple[nn.Module, Tensor]]:
    return _build


@pytest.fixture
def quantize() -> Callable[..., dict[str, QuantizedTensor]]:
    return _quantize


@pytest.fixture(params=["quantized", "grid", "codebook", "hashed"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store() -> Callable[[nn.Module, str], dict[str, StoredWeight]]:
    return _store


@pytest.fixture
def observe() -> Callable[..., dict[str, ActivationRange]]:
    return _observe
