"""A small vision transformer for CIFAR-10, with convolutions in front (Xiao et al. 2021).

    autocompress search examples/07_vit.py --data FOLDER --space depth --budget 24

FOLDER holds `cifar-10-batches-bin` (or `-py`). The model is trained from scratch, once, on 45,000
of the training images, which takes about six minutes on one core; its weights are kept in the
cache folder. `--task-arg epochs=24` trains it four times as long, `--task-arg quick=true` a smaller
one on a tenth of the images, in half a minute.
"""

import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autocompress import Task, TensorData, crop_and_flip, normalize, read_cifar10
from autocompress.tasks.digits import training_progress
from autocompress.tasks.model_cache import load_or_train

AUGMENT = crop_and_flip(pad=4)


class Attention(nn.Module):
    """Self-attention of several heads."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = n_heads, width // n_heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.output = nn.Linear(width, width), nn.Linear(width, width)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, D) -> (N, T, D)."""
        q, k, v = self._split(self.query(x)), self._split(self.key(x)), self._split(self.value(x))
        # Explicit: for sequences this short the fused kernel trains three times slower on a CPU.
        scores = q @ k.transpose(-1, -2) / self.head_dim**0.5  # (N, heads, T, T)
        return self.output((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Attention, then a perceptron, each of normalised inputs and added to them."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, n_heads)
        self.norm2 = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, D) -> (N, T, D)."""
        x = x + self.attention(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Vit(nn.Module):
    """Images (N, 3, 32, 32) -> 16 patches -> layers -> their mean -> logits (N, 10)."""

    def __init__(self, width: int, n_layers: int, n_heads: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            _convolution(3, 32, 2), _convolution(32, 64, 1), _convolution(64, width, 2)
        )
        self.patches = nn.Conv2d(width, width, 2, stride=2)
        self.positions = nn.Parameter(torch.zeros(16, width))
        self.layers = nn.ModuleList(Layer(width, n_heads) for _ in range(n_layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (N, 3, 32, 32) -> logits (N, 10)."""
        x = self.patches(self.stem(images)).flatten(2).transpose(1, 2)  # (N, T, D)
        x = x + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x).mean(dim=1))


def _convolution(n_in: int, n_out: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(n_out), nn.ReLU())


def keep_aside(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of nine tenths of the examples and of one tenth, with equally many of each class."""
    generator = torch.Generator().manual_seed(0)
    kept, aside = [], []
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        aside.append(members[: len(members) // 10])
        kept.append(members[len(members) // 10 :])
    return torch.cat(kept).sort().values, torch.cat(aside).sort().values


def train(model: Vit, data: TensorData, n_epochs: int) -> None:
    """AdamW with a warm-up, bfloat16 where the processor is good at it."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.5e-3, weight_decay=0.05)
    batch_size = min(128, len(data))
    n_batches = len(data) // batch_size
    n_steps = n_epochs * n_batches
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.5e-3, total_steps=n_steps, pct_start=0.1
    )
    model.train()
    with training_progress("a ViT on CIFAR-10", n_steps) as advance:
        for _ in range(n_epochs):
            order = torch.randperm(len(data))
            for chosen in order[: n_batches * batch_size].split(batch_size):
                (images,), labels = data.batch(chosen, lambda batch: AUGMENT(batch, generator))
                with torch.autocast("cpu", torch.bfloat16):
                    logits = model(images).float()
                loss = F.cross_entropy(logits, labels, label_smoothing=0.1)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                rate.step()
                advance()


def task(data: Path, quick: bool = False, epochs: int = 6) -> Task:
    (images, labels), (test_images, test_labels) = read_cifar10(data)
    standardize = normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    # The val images are not used for training, so that the search can judge on them.
    known, val = keep_aside(labels)
    everything = TensorData((images,), labels, standardize)
    train_data = everything.subset(known[:: 10 if quick else 1])
    width, n_layers, n_epochs = (64, 2, min(epochs, 4)) if quick else (128, 6, epochs)
    torch.manual_seed(0)
    model = Vit(width, n_layers)
    content = f"{train_data.fingerprint()} {model} {n_epochs} 1"
    digest = hashlib.sha256(content.encode()).hexdigest()
    load_or_train(model, "cifar10-vit", digest, lambda: train(model, train_data, n_epochs))
    return Task(
        model=model,
        train=train_data,
        val=everything.subset(val),
        test=TensorData((test_images,), test_labels, standardize),
        name="cifar10-vit",
        augment=AUGMENT,
        batch_size=128,
        learning_rate=0.001,
        proxy_epochs=0.2,
    )
