import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autocompress.analysis.channel_groups import find_channel_groups
from autocompress.analysis.dependency_graph import trace_groups


class _Norm(nn.Module):
    """A norm that is spelled out, whose gain no layer of a known kind owns."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6))


class _Rotary(nn.Module):
    """A block of Llama: grouped queries, turned by halves, and a gate."""

    def __init__(self, width=32, n_heads=4):
        super().__init__()
        self.width = width // n_heads
        self.norm, self.norm2 = _Norm(width), _Norm(width)
        self.q, self.k, self.v, self.out = (
            nn.Linear(width, n, bias=False) for n in (width, width // 2, width // 2, width)
        )
        self.gate, self.up, self.down = (
            nn.Linear(*n) for n in ((width, 40), (width, 40), (40, width))
        )

    def forward(self, x):
        n, t, _ = x.shape
        normed = self.norm(x)
        q, k, v = (
            p(normed).view(n, t, -1, self.width).transpose(1, 2) for p in (self.q, self.k, self.v)
        )
        angles = torch.arange(t)[:, None] / torch.arange(1, q.shape[-1] + 1)
        q, k = (y * angles.cos() + _halves_turned(y) * angles.sin() for y in (q, k))
        k, v = (y[:, :, None].expand(-1, -1, 2, -1, -1).flatten(1, 2) for y in (k, v))
        mixed = torch.softmax(q @ k.mT, dim=-1) @ v
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        normed = self.norm2(x)
        return x + self.down(F.silu(self.gate(normed)) * self.up(normed))


def _halves_turned(x):
    half = x.shape[-1] // 2
    return torch.cat([-x[..., half:], x[..., :half]], dim=-1)


@pytest.fixture(scope="module")
def rotary():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 32), _Rotary(), _Rotary(), nn.Linear(32, 3))
    return model.eval(), (torch.randn(2, 4, 6),)


def test_trace_groups_gives_up_on_a_group_that_grows_without_end(rotary):
    with pytest.raises(ValueError, match=r"more than 1000 couplings"):
        trace_groups(*rotary)


def test_groups_of_a_net_with_rotary_embeddings_are_found(rotary):
    groups, _ = find_channel_groups(*rotary)
    assert {"1.gate": 40, "2.gate": 40}.items() <= {g.name: g.n_channels for g in groups}.items()
