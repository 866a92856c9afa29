"""A small residual classifier for small images (He et al. 2016, with projected shortcuts)."""

import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (He et al. 2016), projected where shapes change."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or n_in != n_out:
            self.shortcut.append(nn.Conv2d(n_in, n_out, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        """(N, n_in, H, W) -> (N, n_out, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResidualCnn(nn.Module):
    """Stem, one residual block per stage, mean over the pixels, linear classifier.

    Args:
        widths: Channels of the three stages; the second and third halve height and width.
        n_channels: Channels of the images.
        n_classes: Number of logits.
    """

    def __init__(
        self, widths: tuple[int, int, int], n_channels: int = 1, n_classes: int = 10
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_channels, widths[0], 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(widths[0])
        self.stage1 = ResidualBlock(widths[0], widths[0], stride=1)
        self.stage2 = ResidualBlock(widths[0], widths[1], stride=2)
        self.stage3 = ResidualBlock(widths[1], widths[2], stride=2)
        self.linear = nn.Linear(widths[2], n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, n_channels, H, W) -> logits (N, n_classes)."""
        x = F.relu(self.bn(self.conv(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.linear(x.mean((2, 3)))
