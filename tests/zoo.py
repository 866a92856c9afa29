"""Small networks, one for each structure that compression can get wrong. Loaded by conftest.py."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.hidden, self.head = nn.Linear(12 * 4 * 4, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return self.head(F.relu(self.hidden(x.flatten(1))))


class Residual(nn.Module):
    """One block with a 1x1 shortcut, one that keeps the shape."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.conv1 = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(16)
        self.shortcut = nn.Conv2d(8, 16, 1, stride=2)
        self.conv3 = nn.Conv2d(16, 8, 3, padding=1)
        self.conv4 = nn.Conv2d(8, 16, 3, padding=1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        inner = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        x = F.relu(inner + self.shortcut(x))
        x = F.relu(x + self.conv4(F.relu(self.conv3(x))))
        return self.head(x.mean((2, 3)))


class ZeroPaddedShortcut(nn.Module):
    """Option A of He et al. 2016: the shortcut is subsampled and padded with zero channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv1 = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        x = F.relu(self.conv2(F.relu(self.conv1(x))) + shortcut)
        return self.head(x.mean((2, 3)))


class InvertedBottleneck(nn.Module):
    """Depthwise convolution with squeeze-and-excite."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.expand, self.norm1 = nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24)
        self.depthwise = nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False)
        self.norm2 = nn.BatchNorm2d(24)
        self.squeeze, self.excite = nn.Conv2d(24, 4, 1), nn.Conv2d(4, 24, 1)
        self.project = nn.Conv2d(24, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        inner = F.relu6(self.norm2(self.depthwise(F.relu6(self.norm1(self.expand(x))))))
        gate = self.excite(F.relu(self.squeeze(inner.mean((2, 3), keepdim=True))))
        return self.head((x + self.project(inner * torch.sigmoid(gate))).mean((2, 3)))


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.grouped, self.norm = nn.Conv2d(8, 16, 3, padding=1, groups=2), nn.GroupNorm(4, 16)
        self.last, self.head = nn.Conv2d(16, 8, 1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.grouped(F.relu(self.stem(x)))))
        return self.head(F.relu(self.last(x)).mean((2, 3)))


class DenseConcat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv3 = nn.Conv2d(16, 8, 3, padding=1)
        self.head = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.conv1(x))
        b = F.relu(self.norm(self.conv2(a)))
        c = F.relu(self.conv3(torch.cat([a, b], 1)))
        return self.head(torch.cat([a, b, c], 1).mean((2, 3)))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Conv2d(3, 8, 3, padding=1)
        self.down2 = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.merge, self.head = nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.relu(self.down1(x))
        up = F.relu(self.up(F.relu(self.down2(skip))))
        return self.head(F.relu(self.merge(torch.cat([skip, up], 1))))


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.norm = nn.Linear(12, 16), nn.BatchNorm1d(16)
        self.fc2, self.head = nn.Linear(16, 10), nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.fc2(F.relu(self.norm(self.fc1(x))))))


class Conv1d(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm = nn.Conv1d(12, 8, 3, padding=1), nn.BatchNorm1d(8)
        self.conv2, self.head = nn.Conv1d(8, 16, 3, dilation=2), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv1(x.transpose(1, 2))))
        return self.head(F.relu(self.conv2(x)).mean(2))


class Attention(nn.Module):
    """A block of own q, k, v layers, as ViT and BERT have them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm1, self.norm2 = nn.Linear(12, 16), nn.LayerNorm(16), nn.LayerNorm(16)
        self.q, self.k, self.v = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.out, self.fc1, self.fc2 = nn.Linear(16, 16), nn.Linear(16, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        y = self.norm1(x)
        q, k, v = (f(y).unflatten(-1, (2, 8)).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.out(y)
        x = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return self.head(x.mean(1))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(12, 2, 24, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.hidden, self.head = nn.Linear(12, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.hidden(self.encoder(x).mean(1))))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn = kind(12, 8, batch_first=True)
        self.hidden, self.head = nn.Linear(8, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.hidden(self.rnn(x)[0][:, -1])))


class SharedLayer(nn.Module):
    """One layer called twice, and registered under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.twice = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.alias = self.twice
        self.last, self.head = nn.Conv2d(8, 8, 3), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.alias(F.relu(self.twice(F.relu(self.stem(x))))))
        return self.head(F.relu(self.last(x)).mean((2, 3)))


class TiedWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.hidden = nn.Embedding(11, 8), nn.Linear(8, 16)
        self.back, self.head = nn.Linear(16, 8), nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.back(F.relu(self.hidden(self.embed(tokens)))).mean(1))


class PixelShuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.head = nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.pixel_shuffle(F.relu(self.conv2(F.relu(self.conv1(x)))), 2))


class FreeParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.gain, self.head = nn.Parameter(torch.rand(1, 8, 1, 1) + 0.5), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((F.relu(self.conv2(F.relu(self.conv1(x)))) * self.gain).mean((2, 3)))


def _images() -> Tensor:
    return torch.randn(4, 3, 8, 8)


def _sequences() -> Tensor:
    return torch.randn(4, 6, 12)


def _tokens() -> Tensor:
    return torch.randint(0, 11, (4, 6))


Recipe = tuple[Callable[[], nn.Module], Callable[[], Tensor]]
ZOO: dict[str, Recipe] = {
    "plain": (Plain, _images),
    "residual": (Residual, _images),
    "zero_padded_shortcut": (ZeroPaddedShortcut, _images),
    "inverted_bottleneck": (InvertedBottleneck, _images),
    "grouped": (Grouped, _images),
    "dense_concat": (DenseConcat, _images),
    "unet": (UNet, _images),
    "mlp": (Mlp, lambda: torch.randn(4, 12)),
    "conv1d": (Conv1d, _sequences),
    "attention": (Attention, _sequences),
    "encoder": (Encoder, _sequences),
    "lstm": (lambda: Recurrent(nn.LSTM), _sequences),
    "gru": (lambda: Recurrent(nn.GRU), _sequences),
    "shared_layer": (SharedLayer, _images),
    "tied_weights": (TiedWeights, _tokens),
    "pixel_shuffle": (PixelShuffle, _images),
    "free_parameter": (FreeParameter, _images),
}


def build(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A net in eval mode whose statistics and weights are all in play, and inputs for it."""
    make_model, make_input = ZOO[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make_model()
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.running_mean.normal_(0.0, 0.2)
                    module.running_var.uniform_(0.5, 1.5)
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.normal_(0.0, 0.2)
        return model.eval(), (make_input(),)
