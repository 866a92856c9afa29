import copy
import hashlib
import json
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.errors import InputError
from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.technique import ACTIVATION_BITS, WEIGHT_BITS

LAYERS = st.builds(
    LayerPlan,
    rank_ratio=st.floats(0.0, 1.0, exclude_min=True),
    weight_bits=st.sampled_from(WEIGHT_BITS),
    activation_bits=st.sampled_from(ACTIVATION_BITS),
    rate_price=st.floats(0.0, 10.0),
)
PLANS = st.builds(
    CompressionPlan,
    pruning_ratios=st.dictionaries(st.text(), st.floats(0.0, 1.0, exclude_max=True), max_size=4),
    layers=st.dictionaries(st.text(), LAYERS, max_size=4),
)


@given(PLANS)
def test_plan_survives_json_with_its_digest(plan):
    again = CompressionPlan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again == plan
    assert again.digest == plan.digest


@given(PLANS)
def test_plan_survives_pickle_and_deep_copy(plan):
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert copy.deepcopy(plan) == plan


@given(PLANS, PLANS)
def test_plan_digests_are_equal_exactly_when_plans_are(a, b):
    assert (a.digest == b.digest) == (a == b)
    assert (hash(a) == hash(b)) == (a == b)


def test_plan_digest_is_that_of_its_canonical_text():
    plan = CompressionPlan(
        pruning_ratios={"conv1": 0.25}, layers={"fc": LayerPlan(weight_bits=4, rank_ratio=0.5)}
    )
    text = '{"layers":{"fc":{"rank_ratio":0.5,"weight_bits":4}},"pruning_ratios":{"conv1":0.25}}'
    assert plan.digest == hashlib.sha256(text.encode()).hexdigest()[:12]


def test_plan_forgets_untouched_entries_and_order():
    a = CompressionPlan(pruning_ratios={"b": 0.5, "a": 0.5, "c": 0.0}, layers={"l": LayerPlan()})
    b = CompressionPlan(pruning_ratios={"a": 0.5, "b": 0.5})
    assert a == b
    assert list(a.pruning_ratios) == ["a", "b"]
    assert not a.layers


def test_plan_of_equal_numbers_has_an_equal_digest():
    integer = CompressionPlan(layers={"fc": LayerPlan(weight_bits=8, activation_bits=8)})
    floating = CompressionPlan(layers={"fc": LayerPlan(weight_bits=8.0, activation_bits=8.0)})
    assert integer == floating
    assert integer.digest == floating.digest


def test_plan_cannot_be_changed():
    plan = CompressionPlan(pruning_ratios={"a": 0.5})
    with pytest.raises(TypeError):
        plan.pruning_ratios["a"] = 0.1
    with pytest.raises(AttributeError):
        plan.layers = {}


def test_plan_does_not_follow_the_dict_it_was_made_from():
    ratios = {"a": 0.5}
    plan = CompressionPlan(pruning_ratios=ratios)
    ratios["a"] = 0.1
    assert plan.pruning_ratios["a"] == 0.5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank_ratio": 0.0}, "`rank_ratio` must be in (0, 1], but got 0.0."),
        ({"rank_ratio": 1.5}, "`rank_ratio` must be in (0, 1], but got 1.5."),
        ({"rank_ratio": math.nan}, "but got nan"),
        ({"weight_bits": 1.5}, "`weight_bits` must be 2-8, 1.58, 1 or 32, but got 1.5."),
        ({"sparsity": 1.0}, "`sparsity` must be in [0, 1), but got 1.0."),
        ({"sparsity": math.nan}, "but got nan"),
        ({"quantizer": None}, "`quantizer` must be a name, but got None."),
        ({"weight_bits": 16}, "but got 16"),
        ({"activation_bits": 4}, "`activation_bits` must be 8 or 32, but got 4."),
        ({"rate_price": -0.1}, "`rate_price` must be a number >= 0, but got -0.1."),
        ({"rate_price": float("nan")}, "`rate_price` must be a number >= 0, but got nan."),
    ],
)
def test_layer_plan_refuses_values_out_of_range(fields, message):
    with pytest.raises(InputError) as caught:
        LayerPlan(**fields)
    assert message in caught.value.message


@pytest.mark.parametrize("ratio", [-0.1, 1.0, math.nan])
def test_plan_refuses_a_ratio_out_of_range(ratio):
    with pytest.raises(InputError, match=rf"group 'conv': .* \[0, 1\), but got {ratio}"):
        CompressionPlan(pruning_ratios={"conv": ratio})


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"pruning_ratios": {}},
        {"pruning_ratios": {}, "layers": {}, "more": 1},
        {"pruning_ratios": [], "layers": {}},
        {"pruning_ratios": {"a": "x"}, "layers": {}},
        {"pruning_ratios": {"a": None}, "layers": {}},
        {"pruning_ratios": {}, "layers": {"a": 3}},
        {"pruning_ratios": {}, "layers": {"a": {"bits": 3}}},
        {"pruning_ratios": {}, "layers": {"a": {"weight_bits": "3"}}},
        {"pruning_ratios": {}, "layers": {"a": {"weight_bits": [8]}}},
        {"pruning_ratios": {}, "layers": {"a": {"rank_ratio": "0.5"}}},
        {"pruning_ratios": {}, "layers": {"a": {"weight_bits": 8, "rate_price": 10**400}}},
        {"pruning_ratios": {"a": 10**400}, "layers": {}},
    ],
)
def test_plan_from_json_refuses_other_shapes(data):
    with pytest.raises(InputError):
        CompressionPlan.from_json(data)


def test_plan_keeps_every_field_through_json():
    plan = CompressionPlan(
        pruning_ratios={"conv": 0.5},
        dropped_blocks=("b", "a", "b"),
        layers={
            "conv": LayerPlan(sparsity=0.5, sparsity_pattern="n:4", weight_bits=1.58),
            "fc": LayerPlan(
                shared_with="conv", rank_ratio=0.5, factorization="cp", granularity="tensor"
            ),
        },
    )
    assert plan.dropped_blocks == ("a", "b")
    again = CompressionPlan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again == plan
    assert again.digest == plan.digest


@pytest.mark.parametrize(
    ("idle", "effective"),
    [
        (LayerPlan(quantizer="kmeans", activation_bits=8, granularity="tensor"), LayerPlan()),
        (LayerPlan(rate_price=0.1), LayerPlan()),
        (LayerPlan(sparsity_pattern="n:4", factorization="cp"), LayerPlan()),
        (
            LayerPlan(weight_bits=4, quantizer="kmeans", factorization="cp"),
            LayerPlan(weight_bits=4, quantizer="kmeans"),
        ),
    ],
)
def test_effective_plan_leaves_out_what_changes_nothing(idle, effective):
    plan = CompressionPlan(layers={"fc": idle})
    assert plan.effective == CompressionPlan(layers={"fc": effective})
    assert plan.effective.effective == plan.effective
