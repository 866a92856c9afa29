"""Small networks, one for each structure that compression can get wrong. Loaded by conftest.py."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autocompress.tasks.explicit_attention import make_attention_explicit


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


class BertSelfAttention(nn.Module):
    """Numbers of heads and widths are attributes that forward reads."""

    def __init__(self, hidden_size: int, num_attention_heads: int) -> None:
        super().__init__()
        self.num_attention_heads = num_attention_heads
        self.attention_head_size = hidden_size // num_attention_heads
        self.all_head_size = hidden_size
        self.query, self.key = (
            nn.Linear(hidden_size, hidden_size),
            nn.Linear(hidden_size, hidden_size),
        )
        self.value = nn.Linear(hidden_size, hidden_size)

    def _split(self, x: Tensor) -> Tensor:
        shape = (*x.shape[:-1], self.num_attention_heads, self.attention_head_size)
        return x.view(shape).permute(0, 2, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self._split(self.query(x)), self._split(self.key(x)), self._split(self.value(x))
        scores = q @ k.transpose(-1, -2) / self.attention_head_size**0.5
        mixed = (scores.softmax(-1) @ v).permute(0, 2, 1, 3).contiguous()
        return mixed.view(*mixed.shape[:-2], self.all_head_size)


class BertLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.output = BertSelfAttention(16, 4), nn.Linear(16, 16)
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.output(self.attention(x)))
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class BertLike(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(11, 16), nn.Embedding(6, 16)
        self.norm, self.layers = nn.LayerNorm(16), nn.Sequential(BertLayer(), BertLayer())
        self.pooler, self.head = nn.Linear(16, 16), nn.Linear(16, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.layers(self.norm(self.words(tokens) + self.positions(places)))
        return self.head(torch.tanh(self.pooler(x[:, 0])))


class VitBlock(nn.Module):
    """Queries, keys and values come out of one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim = 4, 4
        self.norm1, self.qkv, self.proj = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.norm2, self.fc1, self.fc2 = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(n, length, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, -1)
        x = x + self.proj(mixed)
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class VitLike(nn.Module):
    """The class token and the positions are parameters that no layer owns."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 16, 4, 4), nn.Parameter(torch.randn(1, 1, 16))
        self.positions = nn.Parameter(torch.randn(1, 5, 16) * 0.1)
        self.blocks = nn.Sequential(VitBlock(), VitBlock())
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


class GptBlock(nn.Module):
    """Causal attention; the fused projection is split by an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.n_head, self.inner_dim = 2, 16
        self.norm1, self.attend = nn.LayerNorm(16), nn.Linear(16, 48)
        self.project, self.norm2 = nn.Linear(16, 16), nn.LayerNorm(16)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))

    def forward(self, x: Tensor) -> Tensor:
        parts = self.attend(self.norm1(x)).split(self.inner_dim, dim=2)
        q, k, v = (part.unflatten(2, (self.n_head, 8)).transpose(1, 2) for part in parts)
        scores = q @ k.transpose(-1, -2) / 8**0.5
        future = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        mixed = scores.masked_fill(future, -1e9).softmax(-1) @ v
        x = x + self.project(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class GptLike(nn.Module):
    """The embedding of the tokens is the weight of the last layer as well."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(11, 16), nn.Embedding(6, 16)
        self.blocks = nn.ModuleList([GptBlock(), GptBlock()])
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 11, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.tokens(tokens) + self.positions(places)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))[:, -1]


class LstmText(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm = nn.Embedding(11, 12), nn.LSTM(12, 8, 2, batch_first=True)
        self.hidden, self.head = nn.Linear(8, 16), nn.Linear(16, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(F.relu(self.hidden(self.lstm(self.embed(tokens))[0][:, -1])))


class Glu(nn.Module):
    """One half of a layer gates the other (Dauphin et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gated, self.back = nn.Linear(12, 16), nn.Linear(16, 32), nn.Linear(16, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.gated(F.relu(self.stem(x))).chunk(2, dim=-1)
        return self.head(F.relu(self.back(value * F.silu(gate))))


class ConvGlu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.conv, self.head = nn.Conv2d(8, 12, 3), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.glu(self.norm(self.stem(x)), dim=1)
        return self.head(F.relu(self.conv(x)).mean((2, 3)))


class SeparableBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(16), nn.BatchNorm2d(16)
        self.pointwise = nn.Conv2d(16, 16, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.relu(self.norm2(self.pointwise(F.relu(self.norm1(self.depthwise(x))))))


class DepthwiseSeparable(nn.Module):
    """Blocks that keep the shape, so that each can be left out; one widens its input first."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(3, 16, 3, padding=1), nn.Sequential()
        self.blocks.extend([SeparableBlock(), SeparableBlock()])
        self.widen = nn.Conv2d(16, 32, 3, padding=1, groups=16)
        self.last, self.head = nn.Conv2d(32, 16, 1), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.stem(x)))
        return self.head(F.relu(self.last(F.relu(self.widen(x)))).mean((2, 3)))


class TwoInputs(nn.Module):
    """An image and a vector that scales its features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.scale = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(12, 16)
        self.last, self.head = nn.Conv2d(16, 8, 3), nn.Linear(8 + 12, 5)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x = F.relu(self.conv(x)) * torch.sigmoid(self.scale(y))[:, :, None, None]
        return self.head(torch.cat([F.relu(self.last(x)).mean((2, 3)), y], dim=1))


def _images() -> Tensor:
    return torch.randn(4, 3, 8, 8)


def _sequences() -> Tensor:
    return torch.randn(4, 6, 12)


def _tokens() -> Tensor:
    return torch.randint(0, 11, (4, 6))


Recipe = tuple[Callable[[], nn.Module], Callable[[], Tensor | tuple[Tensor, ...]]]
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
    "explicit_encoder": (lambda: make_attention_explicit(Encoder()), _sequences),
    "bert_like": (BertLike, _tokens),
    "vit_like": (VitLike, _images),
    "gpt_like": (GptLike, _tokens),
    "lstm_text": (LstmText, _tokens),
    "glu": (Glu, lambda: torch.randn(4, 12)),
    "conv_glu": (ConvGlu, _images),
    "depthwise_separable": (DepthwiseSeparable, _images),
    "two_inputs": (TwoInputs, lambda: (_images(), torch.randn(4, 12))),
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
        inputs = make_input()
        return model.eval(), inputs if isinstance(inputs, tuple) else (inputs,)
