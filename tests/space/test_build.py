import dataclasses
import importlib.metadata

import pytest

from autocompress.compress.low_rank.registry import shrinks
from autocompress.compress.prune import kept_channels
from autocompress.errors import InputError
from autocompress.space.build import build_space
from autocompress.space.rules import load_rules, parse_rules


def _build(net, text):
    return build_space(net.profile, parse_rules(text, "test"))


def _knobs(built):
    return {knob.name: knob for knob in built.space.knobs}


@pytest.mark.parametrize("preset", ["default", "mobile", "quantize_only", "sparsity", "quantizers"])
def test_shipped_spaces_fit_nets_of_all_kinds(zoo_net, preset):
    built = build_space(zoo_net.profile, load_rules(preset))
    names = [knob.name for knob in built.space.knobs]
    assert names
    assert len(set(names)) == len(names)
    assert all(built.refused.values())


def test_every_knob_starts_untouched_and_compresses_more_and_more(zoo_net):
    built = _build(
        zoo_net,
        "rules: [{pruning_ratio: [0.5, 0.25], rank_ratio: [0.25, 0.5], weight_bits: [2, 8, 4]}]",
    )
    for knob in built.space.knobs:
        is_rising = knob.kind == "pruning_ratio"
        assert (
            knob.levels[0]
            == {"pruning_ratio": 0.0, "rank_ratio": 1.0, "weight_bits": 32}[knob.kind]
        )
        assert list(knob.levels) == sorted(set(knob.levels), reverse=not is_rising)
        assert len(knob.levels) > 1


def test_every_target_has_a_knob_or_a_reason(zoo_net):
    built = _build(
        zoo_net,
        """
        pruning: {round_to: 1}
        rules: [{pruning_ratio: [0.5], weight_bits: [4], rank_ratio: [0.2]}]
        """,
    )
    for kind in ("weight_bits", "rank_ratio"):
        had = {t for knob in built.space.knobs if knob.kind == kind for t in knob.targets}
        refused = {target for k, target in built.refused if k == kind}
        asked = {
            la.name
            for la in zoo_net.profile.layers
            if la.kind == "recurrent" or (la.weight_shape and la.kind != "norm")
        }
        assert had | refused == asked
        assert not had & refused
    had = {t for knob in built.space.knobs if knob.kind == "pruning_ratio" for t in knob.targets}
    assert had == {group.name for group in zoo_net.profile.groups}
    refused = {target for kind, target in built.refused if kind == "pruning_ratio"}
    assert refused == set(zoo_net.profile.refused_groups)


def test_levels_that_change_nothing_are_left_out(zoo):
    net = zoo("plain")
    built = _build(
        net,
        "pruning: {round_to: 4}\n"
        "rules: [{pruning_ratio: [0.05, 0.2, 0.3, 0.5, 0.55], rank_ratio: [0.99, 0.1]}]",
    )
    for knob in built.space.knobs:
        if knob.kind == "pruning_ratio":
            n = next(g.n_channels for g in net.profile.groups if g.name == knob.label)
            widths = [kept_channels(n, ratio, 4) for ratio in knob.levels]
            assert len(set(widths)) == len(widths)
        else:
            shape = next(la.weight_shape for la in net.profile.layers if la.name == knob.label)
            assert all(shrinks("svd", shape, ratio) for ratio in knob.levels[1:])


def test_group_that_rounding_leaves_as_it_is_says_so(zoo):
    built = _build(
        zoo("plain"), "pruning: {round_to: 8}\nrules: [{pruning_ratio: [0.1], weight_bits: [4]}]"
    )
    assert built.refused["pruning_ratio", "hidden"] == (
        "its 16 channels stay when rounded to multiples of 8"
    )


def test_later_rule_overrides_technique_by_technique(zoo):
    built = _build(
        zoo("plain"),
        """
        rules:
          - {weight_bits: [4], rank_ratio: [0.25]}
          - {match: {name: conv*}, weight_bits: [8]}
          - {match: {name: conv2}, weight_bits: []}
        """,
    )
    knobs = _knobs(built)
    assert knobs["weight_bits:hidden"].levels == (32, 4)
    assert knobs["weight_bits:conv1"].levels == (32, 8)
    assert "weight_bits:conv2" not in knobs
    assert ("weight_bits", "conv2") not in built.refused
    assert "rank_ratio:conv2" in knobs


def test_weights_beside_quantized_inputs_have_no_more_bits_than_integer_kernels_take(zoo):
    rules = parse_rules(
        """
        rules:
          - {weight_bits: [8, 7, 4], activation_bits: [8]}
          - {match: {name: conv1}, activation_bits: []}
          - {match: {name: conv2}, quantizer: kmeans}
        """,
        "test",
    )
    for widest, expected in ((7, (32, 7, 4)), (8, (32, 8, 7, 4)), (None, (32, 8, 7, 4))):
        asked = rules.model_copy(update={"integer_weight_bits": widest})
        knobs = _knobs(build_space(zoo("plain").profile, asked))
        assert knobs["weight_bits:hidden"].levels == expected
        assert knobs["weight_bits:conv1"].levels == (32, 8, 7, 4)  # its input stays float
        assert knobs["weight_bits:conv2"].levels == (32, 8, 7, 4)  # it has no integer form


def test_shared_knob_names_all_its_layers(zoo):
    knobs = _knobs(
        _build(
            zoo("plain"),
            "rules: [{weight_bits: [8], activation_bits: [8], "
            "shared: [weight_bits, activation_bits]}]",
        )
    )
    assert list(knobs) == ["weight_bits:all", "activation_bits:all"]
    assert knobs["activation_bits:all"].targets == ("conv1", "conv2", "hidden", "head")


def test_two_shared_rules_make_two_knobs_named_by_rule(zoo):
    knobs = _knobs(
        _build(
            zoo("plain"),
            """
            rules:
              - {weight_bits: [4], shared: [weight_bits]}
              - {match: {kind: linear}, weight_bits: [8], shared: [weight_bits]}
            """,
        )
    )
    assert {name: knob.targets for name, knob in knobs.items()} == {
        "weight_bits:rule1": ("conv1", "conv2"),
        "weight_bits:rule2": ("hidden", "head"),
    }


def test_shared_pruning_splits_by_levels_and_keeps_names_unique(zoo):
    built = _build(
        zoo("plain"),
        "pruning: {round_to: 4}\nrules: [{pruning_ratio: [0.4, 0.5], shared: [pruning_ratio]}]",
    )
    names = [knob.name for knob in built.space.knobs]
    assert len(set(names)) == len(names)
    assert sorted(t for knob in built.space.knobs for t in knob.targets) == [
        "conv1",
        "conv2",
        "hidden",
    ]


@pytest.mark.parametrize(
    ("position", "layers"),
    [("[first]", {"conv1"}), ("[last]", {"head"}), ("[first, last]", {"conv1", "head"})],
)
def test_position_counts_layers_that_can_be_quantized(zoo, position, layers):
    built = _build(zoo("plain"), f"rules: [{{match: {{position: {position}}}, weight_bits: [8]}}]")
    assert {knob.label for knob in built.space.knobs} == layers


def test_min_params_counts_the_layer_alone(zoo):
    built = _build(zoo("plain"), "rules: [{match: {min_params: 876}, weight_bits: [8]}]")
    assert {knob.label for knob in built.space.knobs} == {"conv2", "hidden"}


def test_conditions_must_all_hold(zoo):
    built = _build(
        zoo("plain"),
        """
        rules:
          - match: {name: ["conv*", head], kind: [linear, conv], position: [last]}
            weight_bits: [8]
        """,
    )
    assert {knob.label for knob in built.space.knobs} == {"head"}


def test_glob_star_matches_dots(zoo):
    rules = "rules: [{match: {name: 'encoder*linear1'}, weight_bits: [8]}]"
    assert set(_knobs(_build(zoo("encoder"), rules))) == {
        f"weight_bits:encoder.layers.{i}.linear1"
        for i in range(len(zoo("encoder").model.encoder.layers))
    }


@pytest.mark.parametrize(
    ("match", "hint"),
    [
        ("{name: conv_1}", "Closest: conv1, conv, conv2. "),
        ("{kind: lineer}", "Closest: linear. "),
        ("{name: zzz}", "Closest: conv1, norm1, conv2, .... "),
        ("{kind: conv, min_params: 100000}", "Closest: conv"),
    ],
)
def test_rule_that_matches_nothing_names_the_closest(zoo, match, hint):
    with pytest.raises(InputError) as caught:
        _build(zoo("plain"), f"rules: [{{weight_bits: [8]}}, {{match: {match}, weight_bits: [8]}}]")
    assert caught.value.message.startswith("Rule 2 of the search space matches no layer: {")
    assert caught.value.hint.startswith(hint)
    assert "Kinds here: conv, linear, norm." in caught.value.hint


def test_optional_rule_may_match_nothing(zoo):
    text = (
        "rules: [{weight_bits: [8]}, {match: {kind: depthwise}, weight_bits: [4], optional: true}]"
    )
    assert {knob.levels for knob in _build(zoo("plain"), text).space.knobs} == {(32, 8)}


def test_layer_named_outright_must_take_what_is_asked(zoo):
    text = "rules: [{match: {name: grouped}, rank_ratio: [0.5]}]"
    with pytest.raises(InputError) as caught:
        _build(zoo("grouped"), text)
    assert caught.value.message == (
        "Rule 1 asks for rank_ratio of 'grouped', but grouped and depthwise convolutions have no "
        "low-rank form here."
    )


def test_space_without_a_knob_says_why(zoo):
    with pytest.raises(InputError) as caught:
        _build(zoo("plain"), "rules: [{match: {kind: norm}, weight_bits: [8]}]")
    assert caught.value.message == (
        "The search space has no knob for this model: no rule asks for an amount, such as "
        "pruning_ratio, drop_block or weight_bits."
    )


def test_model_that_cannot_be_traced_says_so(zoo):
    profile = dataclasses.replace(
        zoo("plain").profile, groups=(), refused_groups={"(all)": "channels cannot be traced: x"}
    )
    rules = parse_rules("rules: [{pruning_ratio: [0.5], weight_bits: [4]}]", "test")
    assert build_space(profile, rules).refused["pruning_ratio", "(all)"] == (
        "channels cannot be traced: x"
    )
    with pytest.raises(InputError, match="no knob for this model: channels cannot be traced: x"):
        build_space(profile, parse_rules("rules: [{pruning_ratio: [0.5]}]", "test"))


def test_method_as_a_name_is_fixed_and_as_a_list_is_a_knob(zoo):
    built = _build(
        zoo("plain"),
        "rules: [{weight_bits: [4], quantizer: kmeans}, "
        "{match: {name: head}, quantizer: [fixed_point]}]",
    )
    knobs = _knobs(built)
    assert knobs["quantizer:head"].levels == ("uniform", "fixed_point")
    assert {(m.target, m.value) for m in built.space.methods} == {
        ("conv1", "kmeans"),
        ("conv2", "kmeans"),
        ("hidden", "kmeans"),
    }
    levels = {name: len(knob.levels) - 1 for name, knob in knobs.items()}
    plan = built.space.decode(levels)
    assert {name: layer.quantizer for name, layer in plan.layers.items()} == {
        "conv1": "kmeans",
        "conv2": "kmeans",
        "hidden": "kmeans",
        "head": "fixed_point",
    }
    assert built.space.decode({**levels, "weight_bits:conv1": 0}).layers.keys() == {
        "conv2",
        "hidden",
        "head",
    }


def test_method_that_some_bits_rule_out_gets_no_knob(zoo):
    built = _build(zoo("plain"), "rules: [{weight_bits: [4, ternary], quantizer: [fixed_point]}]")
    assert all(knob.kind == "weight_bits" for knob in built.space.knobs)
    assert "1.58" in built.refused["quantizer", "conv1"]


def test_bits_that_a_fixed_quantizer_has_not_are_refused_with_those_it_has(zoo):
    with pytest.raises(InputError) as caught:
        _build(zoo("plain"), "rules: [{weight_bits: [8, ternary], quantizer: fixed_point}]")
    assert caught.value.message.startswith("`weight_bits` 1.58 of 'conv1' cannot be had: ")
    assert caught.value.hint == "Leave out 1.58 there; 8 can be had."


@pytest.mark.parametrize(
    ("rule", "unknown"),
    [
        ("weight_bits: [4], quantizer: kmean", "quantizer 'kmean'"),
        ("rank_ratio: [0.5], factorization: [svdd]", "factorization 'svdd'"),
        ("sparsity: [0.5], sparsity_pattern: 'n:x'", "'n:x'"),
        ("weight_bits: [4], granularity: row", "'row'"),
    ],
)
def test_unknown_method_is_refused_and_lists_those_there_are(zoo, rule, unknown):
    with pytest.raises(InputError) as caught:
        _build(zoo("plain"), f"rules: [{{{rule}}}]")
    assert unknown in caught.value.message
    assert caught.value.hint


def test_rule_that_names_another_layer_of_a_group_is_refused(zoo):
    profile = zoo("residual").profile
    group = next(g for g in profile.groups if sum(m.side == "out" for m in g.members) > 1)
    others = [m.layer for m in group.members if m.side == "out" and m.layer != group.name]
    with pytest.raises(InputError) as caught:
        _build(zoo("residual"), f"rules: [{{match: {{name: {others[0]}}}, pruning_ratio: [0.5]}}]")
    assert f"cut together with those of {group.name!r}" in caught.value.message


def test_blocks_are_matched_by_name_and_kind(zoo):
    profile = zoo("depthwise_separable").profile
    assert len(profile.blocks) == 2
    built = _build(zoo("depthwise_separable"), "rules: [{match: {kind: block}, drop_block: true}]")
    assert [knob.name for knob in built.space.knobs] == [f"drop_block:{b}" for b in profile.blocks]
    assert all(knob.levels == (0, 1) for knob in built.space.knobs)
    plan = built.space.decode({knob.name: 1 for knob in built.space.knobs})
    assert plan.dropped_blocks == tuple(sorted(profile.blocks))


def test_shared_with_earlier_takes_the_first_layer_of_the_same_shape(zoo):
    built = _build(zoo("attention"), "rules: [{shared_with: earlier}]")
    levels = {knob.label: knob.levels for knob in built.space.knobs}
    assert levels["k"] == ("", "q")
    assert levels["v"] == ("", "q")
    assert "q" not in levels
    assert built.refused["shared_with", "q"] == "no layer before it has the same shape"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("nothing", "'nothing' is no layer (it needs a linear of shape (16, 16))"),
        ("fc1", "'fc1' is another shape (it needs a linear of shape (16, 16))"),
        ("v", "'v' is itself asked to take another layer's weight"),
    ],
)
def test_shared_with_a_layer_that_does_not_fit_is_refused(zoo, source, reason):
    text = f"rules: [{{match: {{name: v}}, shared_with: {source}}}]"
    with pytest.raises(InputError) as caught:
        _build(zoo("attention"), text)
    assert reason in caught.value.message


def test_rank_ratios_that_keep_the_same_rank_are_one_level(zoo):
    built = _build(zoo("mlp"), "rules: [{match: {name: fc2}, rank_ratio: [0.3, 0.31, 0.2]}]")
    (knob,) = built.space.knobs
    assert knob.levels == (1.0, 0.31, 0.2)


def test_inputs_of_weights_that_stay_float_get_no_bits(zoo):
    built = _build(
        zoo("plain"),
        "rules: [{match: {name: conv*}, weight_bits: [8]}, {activation_bits: [8]}, "
        "{match: {name: hidden}, weight_bits: [4], quantizer: kmeans}]",
    )
    had = {knob.label for knob in built.space.knobs if knob.kind == "activation_bits"}
    assert had == {"conv1", "conv2"}
    for layer in ("hidden", "head"):
        assert "never becomes int8" in built.refused["activation_bits", layer]


def test_prices_are_for_bits_of_linear_layers_and_convolutions(zoo):
    rules = "{match: {name: '*'}, weight_bits: [8], rate_price: [0.1, 0.01, 0]}"
    built = _build(zoo("plain"), f"rules: [{rules}, {{match: {{name: head}}, weight_bits: []}}]")
    prices = {k.label: k.levels for k in built.space.knobs if k.kind == "rate_price"}
    assert prices == dict.fromkeys(("conv1", "conv2", "hidden"), (0.0, 0.01, 0.1))
    assert "stays float" in built.refused["rate_price", "head"]
    recurrent = _build(zoo("lstm"), f"rules: [{rules}]").refused
    assert any(
        kind == "rate_price" and "recurrent layers are rounded to the nearest" in reason
        for (kind, _), reason in recurrent.items()
    )
    hashed = _build(zoo("plain"), f"rules: [{rules}, {{quantizer: hashed, granularity: tensor}}]")
    assert "share values" in hashed.refused["rate_price", "hidden"]


def test_methods_left_out_of_a_knob_are_listed_with_the_reason(zoo):
    built = _build(
        zoo("plain"), "rules: [{weight_bits: [8, 4], quantizer: [kmeans, power_of_two]}]"
    )
    knob = _knobs(built)["quantizer:conv1"]
    assert knob.levels == ("uniform", "kmeans")
    assert built.refused["quantizer", "conv1"].startswith("no power_of_two: ")


def test_sparsities_that_a_pattern_makes_equal_are_one_level(zoo):
    text = "rules: [{sparsity: [0.1, 0.5, 0.75, 0.9], sparsity_pattern: 'n:4'}]"
    built = _build(zoo("mlp"), f"{text}")
    assert _knobs(built)["sparsity:fc1"].levels == (0.0, 0.5, 0.75)


@pytest.mark.parametrize(
    ("match", "message"),
    [
        ("{position: [first]}", "blocks have no position"),
        ("{kind: conv}", "the only kind `block`"),
        ("{name: stem}", "asks for drop_block of 'stem', but that is a layer"),
    ],
)
def test_drop_block_that_would_be_ignored_is_refused(zoo, match, message):
    with pytest.raises(InputError) as caught:
        _build(zoo("depthwise_separable"), f"rules: [{{match: {match}, drop_block: true}}]")
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("recipe", "field"),
    [("penalty: l1", "penalty"), ("prune_steps: 3", "prune_steps"), ("rewind: true", "rewind")],
)
def test_recipe_without_anything_to_prune_is_refused(zoo, recipe, field):
    with pytest.raises(InputError, match=f"recipe's `{field}`"):
        _build(zoo("plain"), f"recipe: {{{recipe}}}\nrules: [{{weight_bits: [4]}}]")


def test_method_whose_package_is_missing_is_refused(zoo, monkeypatch):
    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", version)
    with pytest.raises(InputError, match="'nni_l1' needs the package 'nni'") as caught:
        _build(zoo("plain"), "pruning: {criterion: nni_l1}\nrules: [{pruning_ratio: [0.5]}]")
    assert "autocompress[nni]" in caught.value.hint
