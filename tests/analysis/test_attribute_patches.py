import numpy as np
from torch import nn

from autocompress.analysis.channel_group import AttributePatch, ChannelGroup, GroupMember
from autocompress.analysis.proof import propose_patches


class _Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.query = nn.Linear(6, 12)
        self.num_heads, self.width, self.n_layers, self.is_causal = 3, 12, 7, True


def _group():
    member = GroupMember(
        layer="inner.query", side="out", local=np.arange(12), root=np.arange(12) // 4
    )
    return ChannelGroup(name="inner.query", n_channels=3, members=(member,), block=4)


def test_propose_patches_starts_with_none_and_grows():
    model = nn.ModuleDict({"inner": _Heads()})
    heads = AttributePatch(module="inner", attribute="num_heads", per_channel=1)
    width = AttributePatch(module="inner", attribute="width", per_channel=4)
    assert list(propose_patches(model, _group())) == [(), (heads,), (width,), (heads, width)]


def test_propose_patches_looks_two_modules_up_but_not_into_layers():
    model = nn.ModuleDict({"inner": nn.ModuleDict({"query": nn.Linear(6, 12)})})
    model.total = 12  # the model itself is the grandparent
    model["inner"]["query"].note = 12
    assert [
        [p.module + ":" + p.attribute for p in s] for s in propose_patches(model, _group())
    ] == [
        [],
        [":total"],
    ]
