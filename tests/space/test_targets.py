from pathlib import Path

import pytest
import torch
from torch import nn

from autocompress.analysis.profile import profile_model
from autocompress.errors import InputError
from autocompress.runtime.registry import RUNTIMES
from autocompress.space.build import build_space
from autocompress.space.rules import load_rules, parse_rules
from autocompress.space.targets import TARGETS, Target, load_target, restrict

RULES = """
rules:
  - match: {name: "*"}
    weight_bits: [8, 4, ternary]
    activation_bits: [8]
    quantizer: [uniform, kmeans]
pruning: {round_to: 6}
"""


def test_shipped_targets_are_these_and_can_be_searched() -> None:
    names = {path.stem for path in TARGETS.glob("*.yaml")}
    assert names == {
        *("x86-onnxruntime", "x86-onnxruntime-vnni", "x86-openvino-amx", "arm-xnnpack"),
        "storage-only",
    }
    for name in names:
        target = load_target(name)
        assert target.runtime is None or target.runtime in {r.name for r in RUNTIMES}
        restrict(load_rules("default"), target)


def test_restrict_leaves_out_what_the_target_does_not_support() -> None:
    target = Target(weight_bits=[8, 4], activation_bits=[], quantizers=["uniform"], round_to=4)
    found = restrict(parse_rules(RULES, "here"), target)
    (rule,) = found.rules
    assert rule.weight_bits == [8, 4]
    assert rule.activation_bits == []
    assert rule.quantizer == ["uniform"]
    assert found.pruning.round_to == 12


def test_restrict_changes_nothing_when_nothing_is_restricted() -> None:
    rules = parse_rules(RULES, "here")
    assert restrict(rules, Target()) == rules


def test_restrict_raises_when_a_fixed_method_is_outside() -> None:
    rules = parse_rules(RULES.replace("[uniform, kmeans]", "kmeans"), "here")
    with pytest.raises(InputError, match=r"`quantizer` of rules\.0 must be one .* \(uniform\)"):
        restrict(rules, Target(quantizers=["uniform"]))


def test_layers_have_what_the_target_has_where_it_lacks_the_default() -> None:
    """Kernels that take one scale per tensor only are common in small devices."""
    model = nn.Sequential(nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 4))
    profile = profile_model(model, (torch.zeros(2, 32),))
    text = RULES.replace("kmeans]", "kmeans, power_of_two]").replace("ternary", "3")
    target = Target(granularities=["tensor"], quantizers=["power_of_two", "kmeans"])
    rules = restrict(parse_rules(text, "here"), target)
    space = build_space(profile, rules).space
    assert {knob.kind for knob in space.knobs} == {"weight_bits"}, "codebooks have no kernel"
    untouched = {knob.name: 0 for knob in space.knobs}
    bits = {k.name: int(k.kind == "weight_bits") for k in space.knobs}
    plan = space.decode({**untouched, **bits})
    assert {(la.quantizer, la.granularity) for la in plan.layers.values()} == {("kmeans", "tensor")}


def test_a_rule_for_some_layers_leaves_the_others_what_the_target_has() -> None:
    rules = restrict(parse_rules(RULES, "here"), Target(granularities=["tensor"]))
    assert [rule.granularity for rule in rules.rules] == ["tensor", None]
    assert rules.rules[1].quantizer == ["uniform", "kmeans"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("quantizers: []", "wrong at `quantizers`"),
        ("granularities: [row]", "Unknown name in `granularities`"),
        ("weight_bits: [9]", "must be among"),
        ("activation_bits: [4]", "must be among"),
        ("round_to: 0", "wrong at `round_to`"),
        ("speed: fast", "wrong at `speed`"),
        ("version: 2", "wrong at `version`"),
        ("a: &x 1", "wrong at `a`"),
        ("a: [", "not valid YAML"),
    ],
)
def test_load_target_names_what_is_wrong(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "target.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=words) as caught:
        load_target(path)
    assert str(path) in caught.value.message


def test_load_target_lists_the_shipped_ones_when_the_name_is_unknown() -> None:
    with pytest.raises(InputError, match="Unknown target 'x86-onnxruntim'") as caught:
        load_target("x86-onnxruntim")
    assert "Did you mean 'x86-onnxruntime'?" in caught.value.hint
    with pytest.raises(InputError, match="cannot be read"):
        load_target("nowhere/target.yaml")
