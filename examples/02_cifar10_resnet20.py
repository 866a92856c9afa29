"""A trained CIFAR-10 ResNet, as in He et al. (2016), section 4.2.

    autocompress search examples/02_cifar10_resnet20.py --data FOLDER --budget 12

FOLDER holds `cifar-10-batches-bin` (or `-py`) and `models/cifar10_resnet20.safetensors`, in the
key names below. `--task-arg weights=FILE` reads the weights from another file, and
`--task-arg depth=56` uses the deeper ResNet-56.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from autocompress import Task, TensorData, crop_and_flip, normalize, read_cifar10
from autocompress.errors import InputError, first_line


class Block(nn.Module):
    """Two 3×3 convolutions and a shortcut without parameters (the paper's option A)."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.n_padded = (n_out - n_in) // 2

    def forward(self, x: Tensor) -> Tensor:
        """(N, n_in, H, W) -> (N, n_out, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.n_padded:  # every second pixel, and zero channels on both sides
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.n_padded, self.n_padded))
        return F.relu(y + x)


class ResNet(nn.Module):
    """6n + 2 layers: a stem, three stages of n blocks at 16, 32 and 64 channels, a classifier."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        n_blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, 1, n_blocks)
        self.layer2 = _stage(16, 32, 2, n_blocks)
        self.layer3 = _stage(32, 64, 2, n_blocks)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> logits (N, 10)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def _stage(n_in: int, n_out: int, stride: int, n_blocks: int) -> nn.Sequential:
    first = Block(n_in, n_out, stride)
    return nn.Sequential(first, *(Block(n_out, n_out, 1) for _ in range(n_blocks - 1)))


def load_resnet(depth: int, weights: Path) -> ResNet:
    if depth < 8 or (depth - 2) % 6 != 0:
        raise InputError(f"`depth` must be 6n + 2 with n >= 1 (20, 32, 44, 56, ...), got {depth}.")
    if not weights.is_file():
        raise InputError(
            f"The trained weights must exist, but {weights} does not.",
            "Give them with --task-arg weights=FILE.",
        )
    model = ResNet(depth)
    try:
        model.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError) as error:
        raise InputError(
            f"{weights} must hold the weights of a CIFAR-10 ResNet-{depth}, "
            f"but: {first_line(error)}."
        ) from error
    return model.eval()


def halves(labels: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Split examples into two random halves with equally many of each class; sorted indices."""
    generator = torch.Generator().manual_seed(seed)
    first, second = [], []
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        first.append(members[: len(members) // 2])
        second.append(members[len(members) // 2 :])
    return torch.cat(first).sort().values, torch.cat(second).sort().values


def task(data: Path, weights: Path | None = None, depth: int = 20) -> Task:
    model = load_resnet(depth, weights or data / f"models/cifar10_resnet{depth}.safetensors")
    standardize = normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    (images, labels), (held_out_images, held_out_labels) = read_cifar10(data)
    held_out = TensorData((held_out_images,), held_out_labels, standardize)
    # The published weights were trained on all 50,000 training images, so a val split taken from
    # them would be biased. The search uses one half of the test images, `export` the other.
    val, test = halves(held_out_labels)
    return Task(
        model=model,
        train=TensorData((images,), labels, standardize),
        val=held_out.subset(val),
        test=held_out.subset(test),
        name=f"cifar10-resnet{depth}",
        augment=crop_and_flip(pad=4),
        batch_size=128,
        learning_rate=0.01,
        # Ranks plans as longer training does (results/proxy-fidelity-*.csv). So does a quarter of
        # it, `--proxy quick`, but these weights are exported if a point is not refined.
        proxy_epochs=0.1,
    )
