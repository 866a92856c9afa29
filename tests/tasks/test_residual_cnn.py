import torch
import torch.nn.functional as F

from autocompress.tasks.digits import ResidualBlock, ResidualCnn


def test_residual_block_adds_its_input_when_shapes_stay():
    block = ResidualBlock(4, 4, stride=1).eval()
    torch.nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 4, 6, 6)

    assert torch.equal(block(x), F.relu(x))


def test_residual_block_halves_and_widens():
    assert ResidualBlock(4, 8, stride=2)(torch.randn(2, 4, 6, 6)).shape == (2, 8, 3, 3)


def test_residual_cnn_returns_logits_for_any_batch():
    model = ResidualCnn((16, 32, 48), n_channels=3, n_classes=7).eval()

    for n in (1, 5):
        assert model(torch.randn(n, 3, 8, 8)).shape == (n, 7)
    assert model.linear.in_features == 48
