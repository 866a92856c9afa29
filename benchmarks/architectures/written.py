"""Nets written by hand, each of a make that neither the test zoo nor `transformers` has.

Images are (N, 3, 32, 32), sequences (N, 24, 12), tokens (N, 12).
"""

from collections.abc import Callable, Mapping
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

N_EXAMPLES: Final = 12
_N_CLASSES = 5


def _conv_block(n_in: int, n_out: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(n_out), nn.ReLU())


class SegmentationNet(nn.Module):
    """U-Net of three levels with bilinear upsampling: a class for each pixel."""

    def __init__(self) -> None:
        super().__init__()
        widths = (12, 16, 24)
        ins = (3, *widths)
        self.down = nn.ModuleList(
            nn.Sequential(_conv_block(a, b), _conv_block(b, b))
            for a, b in zip(ins, widths, strict=False)
        )
        self.up = nn.ModuleList(_conv_block(a + b, b) for a, b in ((24, 16), (16, 12)))
        self.head = nn.Conv2d(12, _N_CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, classes, H, W)."""
        skips: list[Tensor] = []
        for block in self.down:
            x = block(x if not skips else F.max_pool2d(x, 2))
            skips.append(x)
        for block, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = block(torch.cat([x, skip], dim=1))
        return self.head(x)


class PyramidDetector(nn.Module):
    """Feature pyramid (Lin et al. 2017): lateral 1x1 layers, one head shared by all levels."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(_conv_block(a, b, 2) for a, b in ((3, 8), (8, 16), (16, 24)))
        self.lateral = nn.ModuleList(nn.Conv2d(n, 12, 1) for n in (8, 16, 24))
        self.smooth = nn.ModuleList(nn.Conv2d(12, 12, 3, padding=1) for _ in range(3))
        self.tower = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), nn.ReLU())
        self.classes, self.boxes = nn.Conv2d(12, _N_CLASSES, 1), nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> (N, anchors, classes + 4)."""
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        merged = [lateral(level) for lateral, level in zip(self.lateral, levels, strict=True)]
        for i in (1, 0):
            merged[i] = merged[i] + F.interpolate(merged[i + 1], scale_factor=2.0, mode="nearest")
        outputs = []
        for smooth, level in zip(self.smooth, merged, strict=True):
            seen = self.tower(smooth(level))
            both = torch.cat([self.classes(seen), self.boxes(seen)], dim=1)
            outputs.append(both.flatten(2).transpose(1, 2))
        return torch.cat(outputs, dim=1)


class GruSeq2Seq(nn.Module):
    """A bidirectional GRU reads, a GRU with additive attention answers, the last state decides."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 16)
        self.encoder = nn.GRU(16, 12, bidirectional=True, batch_first=True)
        self.bridge = nn.Linear(24, 20)
        self.decoder = nn.GRU(16, 20, batch_first=True)
        self.query, self.key, self.score = nn.Linear(20, 14), nn.Linear(24, 14), nn.Linear(14, 1)
        self.head = nn.Linear(20 + 24, _N_CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T) -> (N, classes)."""
        x = self.embed(tokens)
        seen, state = self.encoder(x)
        first = torch.tanh(self.bridge(torch.cat([state[0], state[1]], dim=1)))
        answers, _ = self.decoder(x.flip(1), first[None])
        pairs = torch.tanh(self.query(answers)[:, :, None] + self.key(seen)[:, None])
        context = torch.softmax(self.score(pairs)[..., 0], dim=-1) @ seen
        return self.head(torch.cat([answers, context], dim=-1)[:, -1])


class SqueezeExciteNet(nn.Module):
    """Residual blocks whose sums are gated by squeeze-and-excite of linear layers (Hu 2018)."""

    class Block(nn.Module):
        """One gated residual block."""

        def __init__(self, width: int) -> None:
            super().__init__()
            self.body = nn.Sequential(_conv_block(width, width), _conv_block(width, width))
            self.squeeze = nn.Sequential(
                *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, width // 4)),
                *(nn.ReLU(), nn.Linear(width // 4, width), nn.Hardsigmoid()),
            )

        def forward(self, x: Tensor) -> Tensor:
            """(N, C, H, W) -> the same shape."""
            inner = self.body(x)
            return x + inner * self.squeeze(inner)[:, :, None, None]

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv_block(3, 16, 2)
        self.blocks = nn.Sequential(self.Block(16), nn.MaxPool2d(2), self.Block(16))
        self.head = nn.Linear(16, _N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, classes)."""
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class InvertedGlu(nn.Module):
    """Inverted residual whose expansion is split into values and gates, with a depthwise 5x5."""

    class Block(nn.Module):
        """Expand twofold, gate, mix in space, project."""

        def __init__(self, width: int) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(width)
            self.expand = nn.Conv2d(width, 4 * width, 1)
            self.spatial = nn.Conv2d(2 * width, 2 * width, 5, padding=2, groups=2 * width)
            self.project = nn.Conv2d(2 * width, width, 1)

        def forward(self, x: Tensor) -> Tensor:
            """(N, C, H, W) -> the same shape."""
            values, gates = self.expand(self.norm(x)).chunk(2, dim=1)
            return x + self.project(self.spatial(values) * F.silu(gates))

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 4, stride=4)
        self.blocks = nn.Sequential(self.Block(12), self.Block(12))
        self.head = nn.Linear(12, _N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, classes)."""
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class ConvAttention(nn.Module):
    """Strided 1-d convolutions, then torch's own attention over what they leave."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            *(nn.Conv1d(12, 16, 5, stride=2, padding=2), nn.BatchNorm1d(16), nn.GELU()),
            *(nn.Conv1d(16, 24, 3, padding=1), nn.GroupNorm(4, 24), nn.GELU()),
        )
        self.attention = nn.MultiheadAttention(24, 4, batch_first=True)
        self.norm, self.head = nn.LayerNorm(24), nn.Linear(24, _N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, 12) -> (N, classes)."""
        x = self.conv(x.transpose(1, 2)).transpose(1, 2)
        mixed, _ = self.attention(x, x, x, need_weights=False)
        return self.head(self.norm(x + mixed).amax(dim=1))


class MlpMixer(nn.Module):
    """Linear layers over patches and over channels in turn (Tolstikhin et al. 2021)."""

    class Block(nn.Module):
        """Mix tokens, then channels."""

        def __init__(self, n_tokens: int, width: int) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.tokens = nn.Sequential(nn.Linear(n_tokens, 24), nn.GELU(), nn.Linear(24, n_tokens))
            self.channels = nn.Sequential(nn.Linear(width, 48), nn.GELU(), nn.Linear(48, width))

        def forward(self, x: Tensor) -> Tensor:
            """(N, tokens, C) -> the same shape."""
            x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
            return x + self.channels(self.norm2(x))

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 20, 8, stride=8)
        self.blocks = nn.Sequential(self.Block(16, 20), self.Block(16, 20))
        self.norm, self.head = nn.LayerNorm(20), nn.Linear(20, _N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> (N, classes)."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(x)).mean(dim=1))


class Siamese(nn.Module):
    """One tower called on both of two images; what decides is their difference and product."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(_conv_block(3, 12, 2), _conv_block(12, 16, 2))
        self.embed = nn.Linear(16, 10)
        self.head = nn.Sequential(nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, _N_CLASSES))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Two of (N, 3, H, W) -> (N, classes)."""
        a, b = (self.embed(self.tower(x).mean((2, 3))) for x in (left, right))
        return self.head(torch.cat([(a - b).abs(), a * b], dim=1))


class DictOutput(nn.Module):
    """A net that returns a record, behind a wrapper that picks the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv_block(3, 12, 2), _conv_block(12, 20, 2))
        self.logits, self.embedding = nn.Linear(20, _N_CLASSES), nn.Linear(20, 8)

    def record(self, x: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) -> logits and an embedding nobody asks for."""
        x = self.body(x).mean((2, 3))
        return {"logits": self.logits(x), "embedding": F.normalize(self.embedding(x), dim=1)}

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, classes)."""
        return self.record(x)["logits"]


class CustomLayer(nn.Module):
    """With two layers nobody knows: a scaled norm of own, and a linear layer with unit rows."""

    class ScaledNorm(nn.Module):
        """One gain for all, one shift for each channel."""

        def __init__(self, width: int) -> None:
            super().__init__()
            self.gain, self.shift = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(width))

        def forward(self, x: Tensor) -> Tensor:
            """(N, C) -> the same shape."""
            return F.normalize(x, dim=-1) * self.gain + self.shift

    class UnitLinear(nn.Linear):
        """A linear layer whose rows are of length one as they are used."""

        def forward(self, x: Tensor) -> Tensor:
            """(..., I) -> (..., O)."""
            return F.linear(x, F.normalize(self.weight, dim=1), self.bias)

    def __init__(self) -> None:
        super().__init__()
        self.conv = _conv_block(3, 12, 2)
        self.hidden, self.norm = nn.Linear(12, 24), self.ScaledNorm(24)
        self.unit, self.head = self.UnitLinear(24, 16), nn.Linear(16, _N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, classes)."""
        x = self.norm(F.relu(self.hidden(self.conv(x).mean((2, 3)))))
        return self.head(F.relu(self.unit(x)))


class TemporalConv(nn.Module):
    """Causal dilated convolutions under weight norm, with skips to the end (Bai et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.utils.parametrizations.weight_norm(nn.Conv1d(n, 16, 3, dilation=d))
            for n, d in ((12, 1), (16, 2), (16, 4))
        )
        self.skips = nn.ModuleList(nn.Conv1d(16, 20, 1) for _ in range(3))
        self.head = nn.Linear(20, _N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, 12) -> (N, classes)."""
        x, total = x.transpose(1, 2), None
        for conv, skip in zip(self.convs, self.skips, strict=True):
            x = F.relu(conv(F.pad(x, (2 * conv.dilation[0], 0))))
            total = skip(x) if total is None else total + skip(x)
        return self.head(total[:, :, -1])


class ShuffleNet(nn.Module):
    """Half of the channels pass by, then the halves are shuffled (Ma et al. 2018)."""

    class Unit(nn.Module):
        """One unit of stride 1."""

        def __init__(self, width: int) -> None:
            super().__init__()
            half = width // 2
            self.branch = nn.Sequential(
                *(nn.Conv2d(half, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU()),
                nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False),
                *(nn.BatchNorm2d(half), nn.Conv2d(half, half, 1), nn.ReLU()),
            )

        def forward(self, x: Tensor) -> Tensor:
            """(N, C, H, W) -> the same shape."""
            left, right = x.chunk(2, dim=1)
            x = torch.stack([left, self.branch(right)], dim=2)
            return x.flatten(1, 2)

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv_block(3, 16, 2)
        self.units = nn.Sequential(self.Unit(16), self.Unit(16))
        self.last, self.head = _conv_block(16, 24, 2), nn.Linear(24, _N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, classes)."""
        return self.head(self.last(self.units(self.stem(x))).mean((2, 3)))


def _images() -> tuple[Tensor, ...]:
    return (torch.randn(N_EXAMPLES, 3, 32, 32),)


def _sequences() -> tuple[Tensor, ...]:
    return (torch.randn(N_EXAMPLES, 24, 12),)


NETS: Final[Mapping[str, tuple[type[nn.Module], Callable[[], tuple[Tensor, ...]]]]] = {
    "segmentation_net": (SegmentationNet, _images),
    "pyramid_detector": (PyramidDetector, _images),
    "gru_seq2seq": (GruSeq2Seq, lambda: (torch.randint(0, 40, (N_EXAMPLES, 12)),)),
    "squeeze_excite_net": (SqueezeExciteNet, _images),
    "inverted_glu": (InvertedGlu, _images),
    "conv_attention": (ConvAttention, _sequences),
    "mlp_mixer": (MlpMixer, _images),
    "siamese": (Siamese, lambda: (*_images(), *_images())),
    "dict_output": (DictOutput, _images),
    "custom_layer": (CustomLayer, _images),
    "temporal_conv": (TemporalConv, _sequences),
    "shuffle_net": (ShuffleNet, _images),
}


def build(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A net with random weights in eval mode, and inputs for it."""
    make, draw = NETS[name]
    return make().eval(), draw()
