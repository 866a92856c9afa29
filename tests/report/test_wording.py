import doctest

from hypothesis import given
from hypothesis import strategies as st

from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.report import wording


def test_wording_examples_are_right() -> None:
    results = doctest.testmod(wording)
    assert results.attempted >= 6
    assert results.failed == 0


@given(st.floats(-1.0, 1.0))
def test_format_points_never_shows_a_signed_zero(difference: float) -> None:
    text = wording.format_points(difference)
    assert (text == "±0.0 pt") == (round(abs(100 * difference), 1) == 0.0)


@given(st.text(max_size=80), st.integers(1, 40))
def test_shorten_keeps_to_its_length_and_both_ends(name: str, n_chars: int) -> None:
    short = wording.shorten(name, n_chars)
    assert len(short) <= n_chars
    if len(name) <= n_chars:
        assert short == name
    else:
        head, tail = short.split("…") if "…" not in name else (short[0], "")
        assert name.startswith(head)
        assert name.endswith(tail)


def test_plan_lines_groups_equal_levels_and_names_the_rare_ones() -> None:
    layers = {f"conv{i}": LayerPlan(weight_bits=4, activation_bits=8) for i in range(12)}
    plan = CompressionPlan(
        pruning_ratios={"g1": 0.25, "g2": 0.25, "g3": 0.25},
        layers={**layers, "fc": LayerPlan(weight_bits=8, rank_ratio=0.5)},
    )
    assert wording.plan_lines(plan) == [
        "channels removed: 25 % × 3",
        "rank kept: 50 % × 1 (fc)",
        "weights: 4 bit × 12, 8 bit × 1 (fc)",
        "inputs: 8 bit × 12",
    ]


def test_plan_lines_says_untouched_when_nothing_is_asked() -> None:
    assert wording.plan_lines(CompressionPlan()) == ["unchanged"]
