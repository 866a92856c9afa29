import os

import pytest

from autocompress.errors import InputError
from autocompress.space.rules import PRESETS, load_rules, parse_rules

SHIPPED = [
    "compensated_rounding",
    "default",
    "depth",
    "distillation",
    "lottery_ticket",
    "low_rank",
    "mobile",
    "prune_only",
    "quantize_only",
    "quantizers",
    "recurrent",
    "small_file",
    "sparse_training",
    "sparsity",
    "transformer",
    "uniform_bits",
    "weight_sharing",
]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_search_space_is_valid_and_explains_itself(name):
    assert load_rules(name).rules
    assert (PRESETS / f"{name}.yaml").read_text(encoding="utf-8").startswith("#")


def test_shipped_search_spaces_are_these():
    assert sorted(path.stem for path in PRESETS.glob("*.yaml")) == SHIPPED


def test_load_rules_reads_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("rules: [{match: {kind: conv}, weight_bits: [4]}]")
    rules = load_rules(path)
    assert rules.rules[0].match.kind == "conv"
    assert rules.rules[0].weight_bits == [4]
    assert (rules.version, rules.pruning.criterion, rules.pruning.round_to) == (1, "l2", 8)


def test_load_rules_takes_a_folder_of_a_preset_name_for_what_it_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "default").mkdir()
    assert load_rules("default") == load_rules(PRESETS / "default.yaml")


def test_load_rules_names_the_closest_shipped_space():
    with pytest.raises(InputError) as caught:
        load_rules("defualt")
    assert caught.value.message == "Unknown search space 'defualt'."
    assert caught.value.hint.startswith(
        "Did you mean 'default'? Choose from: compensated_rounding, default"
    )


def test_load_rules_refuses_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml cannot be read: .*No such file"):
        load_rules(tmp_path / "none.yaml")


def test_load_rules_refuses_a_folder(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_rules(tmp_path)


def test_load_rules_refuses_what_is_not_text(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_bytes(b"\xff\xfe rules")
    with pytest.raises(InputError, match="cannot be read: 'utf-8' codec"):
        load_rules(path)


def test_load_rules_refuses_a_large_file(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("#" * (256 * 1024 + 1))
    with pytest.raises(InputError, match="at most 262144 bytes"):
        load_rules(path)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs an endless device")
def test_load_rules_refuses_an_endless_file():
    with pytest.raises(InputError, match="at most 262144 bytes"):
        load_rules("/dev/zero")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("a: &x [1]\nb: *x", "aliases are not allowed"),
        ("version: 1\nversion: 1\nrules: []", "the key 'version' stands twice"),
        ("rules: [{match: {name: a, name: b}}]", "the key 'name' stands twice"),
        ("rules: [", "while parsing"),
        ("{[a]: b}", "unhashable key"),
        ("a: 2001-99-99", "month must be in 1..12"),
        ("a: !!int x", "invalid literal for int()"),
        ("[" * 5000, "recursion"),
        ("rules: []\n---\nrules: []", "single document"),
    ],
)
def test_parse_rules_refuses_yaml_it_does_not_trust(text, message):
    with pytest.raises(InputError) as caught:
        parse_rules(text, "mine.yaml")
    assert caught.value.message.startswith("The search space mine.yaml is not valid YAML: ")
    assert message in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "place", "got"),
    [
        ("", "top level", "None"),
        ("[1]", "top level", "[1]"),
        ("rules: []", "rules", "[]"),
        ("rules: [{bits: [4]}]", "rules.0.bits", "[4]"),
        ("rules: [{match: {nam: x}}]", "rules.0.match.nam", "x"),
        ("rules: [{pruning_ratio: [1.0]}]", "rules.0.pruning_ratio.0", "1.0"),
        ("rules: [{}, {pruning_ratio: [-0.1]}]", "rules.1.pruning_ratio.0", "-0.1"),
        ("rules: [{pruning_ratio: 0.5}]", "rules.0.pruning_ratio", "0.5"),
        ("rules: [{pruning_ratio: [.nan]}]", "rules.0.pruning_ratio.0", "nan"),
        ("rules: [{rank_ratio: [0]}]", "rules.0.rank_ratio.0", "0"),
        ("rules: [{rank_ratio: [.inf]}]", "rules.0.rank_ratio.0", "inf"),
        ("rules: [{weight_bits: [0]}]", "rules.0.weight_bits.0", "0"),
        ("rules: [{weight_bits: [four]}]", "rules.0.weight_bits.0", "four"),
        ("rules: [{match: {position: [middle]}}]", "rules.0.match.position.0", "middle"),
        ("rules: [{match: {min_params: -1}}]", "rules.0.match.min_params", "-1"),
        ("rules: [{shared: [bits]}]", "rules.0.shared.0", "bits"),
        ("version: 2\nrules: [{}]", "version", "2"),
        ("pruning: {round_to: 0}\nrules: [{}]", "pruning.round_to", "0"),
    ],
)
def test_parse_rules_names_the_place_and_what_came(text, place, got):
    with pytest.raises(InputError) as caught:
        parse_rules(text, "mine.yaml")
    assert f"mine.yaml is wrong at `{place}`:" in caught.value.message
    assert caught.value.message.endswith(f"but got {got!r}.")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "rules: [{}, {weight_bits: [8, 16]}]",
            "`weight_bits` must be among [1, 1.58, 2, 3, 4, 5, 6, 7, 8, 32], but got 16 "
            "in f: rules.1.",
        ),
        (
            "rules: [{weight_bits: [4.5]}]",
            "`weight_bits` must be among [1, 1.58, 2, 3, 4, 5, 6, 7, 8, 32], but got 4.5 "
            "in f: rules.0.",
        ),
        (
            "rules: [{activation_bits: [4]}]",
            "`activation_bits` must be among [8, 32], but got 4 in f: rules.0.",
        ),
    ],
)
def test_parse_rules_refuses_bits_that_nothing_stores(text, message):
    with pytest.raises(InputError) as caught:
        parse_rules(text, "f")
    assert caught.value.message == message


@pytest.mark.parametrize("price", ["-0.1", ".inf", ".nan", "cheap"])
def test_parse_rules_refuses_prices_that_are_no_price(price):
    with pytest.raises(InputError, match=r"wrong at `rules\.0\.rate_price\.0`"):
        parse_rules(f"rules: [{{rate_price: [{price}]}}]", "f")


def test_parse_rules_reads_1e_3_as_a_number():
    """YAML 1.1 takes it for a string, because the dot is missing."""
    rules = parse_rules("rules: [{rank_ratio: [1e-3], pruning_ratio: ['0.5']}]", "f")
    assert rules.rules[0].rank_ratio == [0.001]
    assert rules.rules[0].pruning_ratio == [0.5]


def test_rules_cannot_be_changed():
    rules = parse_rules("rules: [{}]", "f")
    with pytest.raises(ValueError, match="frozen"):
        rules.rules[0].optional = True


def test_bits_can_be_named():
    rules = parse_rules("rules: [{weight_bits: [8, ternary, binary]}]", "test")
    assert rules.rules[0].weight_bits == [8, 1.58, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules: [{sparsity: [1.0]}]", "`rules.0.sparsity.0`"),
        ("rules: [{weight_bits: [trinary]}]", "`rules.0.weight_bits.0`"),
        ("rules: [{weight_bits: [true]}]", "`rules.0.weight_bits.0`"),
        ("rules: [{quantizer: []}]", "`rules.0.quantizer"),
        ("rules: [{match: {name: []}}]", "`rules.0.match.name"),
        ("rules: [{weight_bits: [1.5]}]", "`weight_bits` must be among"),
        ("pruning: {scope: everywhere}\nrules: [{}]", "`pruning.scope`"),
        ("recipe: {prune_steps: many}\nrules: [{}]", "`recipe.prune_steps`"),
        ("recipe: {epochs: 3}\nrules: [{}]", "`recipe.epochs`"),
    ],
)
def test_parse_rules_refuses_and_names_the_place(text, message):
    with pytest.raises(InputError) as caught:
        parse_rules(text, "test")
    assert message in caught.value.message
