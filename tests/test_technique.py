import dataclasses
from typing import get_args

import pytest

from autocompress.errors import InputError
from autocompress.plan import LayerPlan
from autocompress.space.rules import Rule
from autocompress.technique import METHODS, OF_LAYERS, TECHNIQUES, KnobKind


def test_every_kind_has_a_row_and_a_field_in_rules():
    assert set(TECHNIQUES) == set(get_args(KnobKind))
    assert set(TECHNIQUES) <= set(Rule.model_fields)


def test_layer_plans_have_a_field_for_each_technique_of_layers_untouched_by_default():
    defaults = {field.name: field.default for field in dataclasses.fields(LayerPlan)}
    assert defaults == {row.kind: row.untouched for row in OF_LAYERS}


def test_what_does_nothing_alone_names_what_it_needs():
    needs = {row.kind: row.needs for row in TECHNIQUES.values() if row.needs}
    assert needs == {
        "factorization": "rank_ratio",
        "sparsity_pattern": "sparsity",
        **dict.fromkeys(
            ("quantizer", "granularity", "activation_bits", "rate_price"), "weight_bits"
        ),
    }
    assert {row.kind for row in METHODS} == set(needs) - {"activation_bits", "rate_price"}
    assert all(TECHNIQUES[amount].needs is None for amount in needs.values())


@pytest.mark.parametrize("kind", TECHNIQUES)
def test_the_untouched_level_is_a_level_in_the_form_of_plans(kind):
    row = TECHNIQUES[kind]
    checked = row.checked(row.untouched)
    assert checked == row.untouched
    assert type(checked) is type(row.untouched)


@pytest.mark.parametrize("kind", [row.kind for row in OF_LAYERS])
def test_what_is_no_level_is_refused_by_name(kind):
    with pytest.raises(InputError, match=f"`{kind}` must be"):
        LayerPlan(**{kind: -1})


def test_a_refusal_of_an_amount_is_one_of_its_methods():
    assert TECHNIQUES["quantizer"].refused_as == "weight_bits"
    assert TECHNIQUES["rate_price"].refused_as == "rate_price"
