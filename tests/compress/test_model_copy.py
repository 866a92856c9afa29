import copy

import torch
from torch import nn

from autocompress.compress.model_copy import copy_model


def test_copy_equals_deepcopy(zoo_net, model_hash):
    copied = copy_model(zoo_net.model)
    assert model_hash(copied) == model_hash(copy.deepcopy(zoo_net.model))
    assert [(n, type(m)) for n, m in copied.named_modules()] == [
        (n, type(m)) for n, m in zoo_net.model.named_modules()
    ]
    assert len(list(copied.parameters())) == len(list(zoo_net.model.parameters()))
    with torch.no_grad():
        assert torch.equal(copied(*zoo_net.inputs), zoo_net.model(*zoo_net.inputs))


def test_copy_shares_nothing_with_the_original(zoo_net):
    copied = copy_model(zoo_net.model)
    ours = {t.data_ptr() for t in zoo_net.model.state_dict().values()}
    assert not ours & {t.data_ptr() for t in copied.state_dict().values()}
    for new, old in zip(copied.modules(), zoo_net.model.modules(), strict=True):
        assert new._forward_hooks is not old._forward_hooks
        assert new._buffers is not old._buffers
        assert new._modules is not old._modules


def test_copy_keeps_what_is_shared_within_the_model():
    model = nn.Module()
    storage = torch.arange(6.0)
    model.register_buffer("whole", storage)
    model.register_buffer("alias", storage)
    model.register_buffer("view", storage[2:4])
    model.first, model.second = nn.Linear(2, 2), nn.Linear(2, 2)
    model.second.weight = model.first.weight
    model.options = model.more_options = {}
    copied = copy_model(model)
    copied.whole[2] = 9.0
    assert copied.alias is copied.whole
    assert copied.view[0] == 9.0
    assert storage[2] == 2.0
    assert copied.first.weight is copied.second.weight
    assert copied.options is copied.more_options
    assert copied.options is not model.options


def test_copy_keeps_hooks_memory_layout_and_frozen_parameters():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(
        memory_format=torch.channels_last
    )
    model.register_buffer("image", torch.rand(1, 3, 4, 4).to(memory_format=torch.channels_last))
    model[0].weight.requires_grad_(False)
    calls = []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    copied = copy_model(model)
    copied(torch.rand(1, 3, 8, 8))
    assert calls == [1]
    assert not copied[0].weight.requires_grad
    assert copied[1].weight.requires_grad
    assert copied.image.is_contiguous(memory_format=torch.channels_last)
    assert copied[0].weight.stride() == model[0].weight.stride()
