import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from autocompress.analysis.profile import profile_model
from autocompress.compress.share_weights import mean_weight, share_weights_, sharing_partners
from autocompress.errors import InputError


class _Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.a, self.b, self.c = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))
        self.grouped = nn.Conv2d(16, 8, 3, padding=1, groups=2)  # its weight is (8, 8, 3, 3), too
        self.norm = nn.BatchNorm2d(8)
        self.fc1, self.fc2 = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = F.relu(self.b(F.relu(self.a(x)))) + F.relu(self.c(x))
        x = self.norm(self.grouped(torch.cat([x, -x], 1)))
        return self.fc2(F.relu(self.fc1(x.mean((2, 3)))))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return _Net().eval()


def test_layers_of_one_source_get_one_parameter_that_is_their_mean(net):
    mean = (net.a.weight + net.b.weight + net.c.weight).detach() / 3
    biases = [net.a.bias, net.b.bias, net.c.bias]
    assert share_weights_(net, {"b": "a", "c": "a"}) == {"b": "", "c": ""}
    assert net.a.weight is net.b.weight is net.c.weight
    torch.testing.assert_close(net.a.weight.detach(), mean)
    assert [net.a.bias, net.b.bias, net.c.bias] == biases


def test_model_computes_as_one_whose_weights_were_replaced_by_hand(net):
    by_hand, x = copy.deepcopy(net), torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        for names in (("a", "c"), ("fc1", "fc2")):
            mean = sum(getattr(net, name).weight for name in names) / 2
            for name in names:
                getattr(by_hand, name).weight.copy_(mean)
    share_weights_(net, {"c": "a", "fc2": "fc1"})
    torch.testing.assert_close(net(x), by_hand(x))


def test_state_dict_stores_the_weight_once(net):
    n_before = len({t.data_ptr() for t in net.state_dict().values()})
    share_weights_(net, {"b": "a", "c": "a"})
    state = net.state_dict()
    assert len({t.data_ptr() for t in state.values()}) == n_before - 2
    assert state["a.weight"].data_ptr() == state["c.weight"].data_ptr()
    assert "b.weight" not in dict(net.named_parameters())


def test_gradients_of_all_users_add_up(net):
    share_weights_(net, {"b": "a", "c": "a"})
    untied, x = copy.deepcopy(net), torch.randn(2, 3, 6, 6)
    for name in "bc":
        getattr(untied, name).weight = nn.Parameter(net.a.weight.detach().clone())
    net(x).square().sum().backward()
    untied(x).square().sum().backward()
    expected = untied.a.weight.grad + untied.b.weight.grad + untied.c.weight.grad
    torch.testing.assert_close(net.a.weight.grad, expected)


def test_copies_stay_tied_among_themselves(net):
    share_weights_(net, {"b": "a"})
    copied = copy.deepcopy(net)
    assert copied.a.weight is copied.b.weight
    assert copied.a.weight is not net.a.weight


def test_layer_under_two_names_counts_once(net):
    net.alias = net.b
    mean = (net.a.weight + net.b.weight).detach() / 2
    assert share_weights_(net, {"b": "a", "alias": "a"}) == {"b": "", "alias": ""}
    torch.testing.assert_close(net.a.weight.detach(), mean)


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        ({"a": "stem"}, "its weight is (8, 8, 3, 3), the other (8, 3, 3, 3)"),
        ({"grouped": "a"}, "one is grouped_conv, the other conv"),
        ({"fc1": "a"}, "one is linear, the other conv"),
        ({"norm": "a"}, "'norm' is a BatchNorm2d, not a plain Linear or convolution"),
        ({"a": "a"}, "they are the same layer"),
        ({"c": "b", "b": "a"}, "'b' itself shares the weight of 'a'"),
    ],
)
def test_pair_that_cannot_share_stays_apart_and_says_why(net, pairs, reason):
    name, source = next(iter(pairs.items()))
    before = getattr(net, name).weight.detach().clone()
    assert share_weights_(net, pairs)[name] == f"shared_with='{source}' of '{name}' skipped: " + (
        reason
    )
    assert torch.equal(getattr(net, name).weight, before)


def test_pair_that_cannot_share_does_not_keep_others_from_it(net):
    mean = (net.a.weight + net.b.weight).detach() / 2
    reasons = share_weights_(net, {"b": "a", "grouped": "a"})
    assert reasons["b"] == ""
    assert reasons["grouped"]
    torch.testing.assert_close(net.b.weight.detach(), mean)


def test_weight_that_is_tied_already_is_left_alone():
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))
    model[1].weight = model[0].weight
    assert "the weight of '1' is tied to '0' already" in share_weights_(model, {"2": "1"})["2"]


def test_weight_that_is_computed_is_left_alone():
    model = nn.Sequential(nn.Linear(4, 4), nn.utils.spectral_norm(nn.Linear(4, 4)))
    assert "the weight of '1' is computed" in share_weights_(model, {"1": "0"})["1"]


@pytest.mark.parametrize("pairs", [{"a": "z"}, {"z": "a"}])
def test_name_of_no_layer_is_refused(net, pairs):
    with pytest.raises(InputError, match="has no 'z'"):
        share_weights_(net, pairs)


@given(st.integers(1, 4), st.integers(0, 20))
@settings(deadline=None, max_examples=10)
def test_mean_weight_is_the_nearest_to_all(n, seed):
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(3, 4, generator=generator) for _ in range(n)]
    mean = mean_weight(weights)

    def error(weight):
        return sum(float((w - weight).square().sum()) for w in weights)

    moved = mean + 0.1 * torch.randn(3, 4, generator=generator)
    assert mean.dtype == torch.float32
    assert error(mean) < error(moved)


def test_partners_are_the_first_earlier_layers_of_one_kind_and_shape(net):
    profile = profile_model(net, (torch.randn(2, 3, 6, 6),))
    assert sharing_partners(profile.layers) == {"b": "a", "c": "a", "fc2": "fc1"}


def test_partners_can_all_share_in_every_family(zoo_net):
    model = copy.deepcopy(zoo_net.model)
    partners = sharing_partners(zoo_net.profile.layers)
    assert not partners.keys() & set(partners.values())
    assert set(share_weights_(model, partners).values()) <= {""}
    with torch.no_grad():
        assert model(*zoo_net.inputs).isfinite().all()


def test_attention_layers_find_partners_and_tied_ones_do_not(zoo):
    partners = sharing_partners(zoo("attention").profile.layers)
    assert partners == {"k": "q", "v": "q", "out": "q"}
    assert sharing_partners(zoo("tied_weights").profile.layers) == {}
