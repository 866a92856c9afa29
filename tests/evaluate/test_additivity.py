"""Predictions beside measurements: exact where options do not interact, and errors by hand."""

import math
from pathlib import Path

import pytest

from autocompress.errors import TrialError
from autocompress.evaluate.additivity import WholePlan, additivity, prediction_errors
from autocompress.evaluate.evaluator import Evaluator
from autocompress.evaluate.sensitivity import SensitivityCache, measure_levels
from autocompress.plan import CompressionPlan
from autocompress.space.prediction import Predictor
from autocompress.space.search_space import Knob, SearchSpace
from autocompress.space.sensitivity_table import Figures

SPACE = SearchSpace(
    knobs=tuple(
        Knob(kind="weight_bits", targets=(name,), levels=(32, 8, 4), label=name) for name in "ab"
    )
)


def figures_of(plan: CompressionPlan) -> Figures:
    """A model of two layers whose options do not interact."""
    bits = {n: plan.layers[n].weight_bits if n in plan.layers else 32 for n in "ab"}
    layer_bytes = {n: round(100 * b) for n, b in bits.items()}
    return Figures(
        divergence=sum(0.0 if b == 32 else 1 / b**2 for b in bits.values()),
        size_bytes=50 + sum(layer_bytes.values()),
        layer_bytes=layer_bytes,
        latency_ratio=math.prod(b / 32 for b in bits.values()),
    )


@pytest.fixture
def cache(tmp_path: Path) -> SensitivityCache:
    return SensitivityCache("k", tmp_path / "options.jsonl")


def test_additivity_predicts_what_does_not_interact(cache: SensitivityCache) -> None:
    predictor = Predictor(SPACE, measure_levels(SPACE, figures_of, cache))
    plans = {
        "both": SPACE.decode({"weight_bits:a": 1, "weight_bits:b": 2}),
        "the same": SPACE.decode({"weight_bits:a": 1, "weight_bits:b": 2}),
        "a level": SPACE.decode({"weight_bits:a": 1, "weight_bits:b": 0}),
        "nothing": SPACE.decode({"weight_bits:a": 0, "weight_bits:b": 0}),
    }
    wholes = additivity(predictor, plans, figures_of, cache)

    assert [whole.label for whole in wholes] == ["both"]
    assert wholes[0].figures == figures_of(plans["both"])
    assert wholes[0].est_divergence == pytest.approx(1 / 64 + 1 / 16)
    assert wholes[0].est_size_bytes == pytest.approx(50 + 1200)
    assert wholes[0].est_latency_ratio == pytest.approx(1 / 32)
    for error in prediction_errors(wholes).values():
        assert error.worst == pytest.approx(0.0, abs=1e-9)


def test_additivity_measures_a_plan_once_and_keeps_why_one_failed(cache: SensitivityCache) -> None:
    predictor = Predictor(SPACE, measure_levels(SPACE, figures_of, cache))
    plans = {
        "good": SPACE.decode({"weight_bits:a": 1, "weight_bits:b": 2}),
        "bad": SPACE.decode({"weight_bits:a": 2, "weight_bits:b": 2}),
    }

    def probe(plan: CompressionPlan) -> Figures:
        if plan == plans["bad"]:
            raise TrialError("export", "No.")
        return figures_of(plan)

    def never(plan: CompressionPlan) -> Figures:
        raise TrialError("never", "Asked again.")

    first = additivity(predictor, plans, probe, cache)
    assert [whole.reason for whole in first] == [None, "export: No."]
    assert first[1].figures is None
    second = additivity(predictor, plans, never, cache)
    assert second[0] == first[0]


def whole(est: tuple[float, float, float | None], figures: Figures | None) -> WholePlan:
    return WholePlan(
        label="x",
        est_divergence=est[0],
        est_size_bytes=est[1],
        est_latency_ratio=est[2],
        figures=figures,
    )


def test_prediction_errors_are_relative_and_of_logarithms() -> None:
    wholes = [
        whole((0.2, 110.0, 0.5), Figures(divergence=0.1, size_bytes=100, latency_ratio=0.4)),
        whole((0.1, 100.0, 0.5), Figures(divergence=0.4, size_bytes=100, latency_ratio=0.5)),
        whole((0.3, 70.0, 0.5), Figures(divergence=0.3, size_bytes=100, latency_ratio=1.0)),
        whole((0.0, 90.0, 0.5), Figures(divergence=0.1, size_bytes=100, latency_ratio=None)),
        whole((9.0, 9.0, 9.0), None),
    ]
    errors = prediction_errors(wholes)

    assert errors["size"].median == pytest.approx(0.1)
    assert errors["size"].worst == pytest.approx(0.3)
    assert errors["size"].n_plans == 4
    assert errors["latency"].median == pytest.approx(0.25)
    assert errors["latency"].worst == pytest.approx(0.5)
    assert errors["log_divergence"].median == pytest.approx(math.log(2))
    assert errors["log_divergence"].worst == pytest.approx(math.log(4))
    assert errors["log_divergence"].n_plans == 3


def test_prediction_errors_leave_out_what_was_not_measured() -> None:
    assert prediction_errors([]) == {}
    only_divergence = whole((0.1, 0.0, None), Figures(divergence=0.1))
    assert list(prediction_errors([only_divergence])) == ["log_divergence"]


def test_table_of_a_real_net_predicts_its_whole_plans(
    evaluator: Evaluator, cache: SensitivityCache
) -> None:
    layers = ("conv1", "conv2", "fc")
    space = SearchSpace(
        knobs=(
            *(
                Knob(kind="weight_bits", targets=(n,), levels=(32, 8, 4, 2), label=n)
                for n in layers
            ),
            *(
                Knob(kind="pruning_ratio", targets=(n,), levels=(0.0, 0.25, 0.5), label=n)
                for n in ("conv1", "conv2")
            ),
            Knob(kind="activation_bits", targets=layers, levels=(32, 8), label="all"),
        )
    )

    def probe(plan: CompressionPlan) -> Figures:
        return evaluator.probe(plan, has_size=True)

    predictor = Predictor(space, measure_levels(space, probe, cache))
    names = [knob.name for knob in space.knobs]
    levels = [
        (1, 1, 1, 1, 1, 0),
        (2, 2, 1, 2, 0, 0),
        (1, 2, 2, 0, 2, 1),
        (3, 3, 2, 2, 2, 0),
        (2, 3, 1, 1, 2, 1),
        (0, 2, 0, 2, 1, 0),
    ]
    plans = {str(at): space.decode(dict(zip(names, at, strict=True))) for at in levels}
    wholes = additivity(predictor, plans, probe, cache)
    errors = prediction_errors(wholes)

    assert errors["size"].n_plans == len(levels)
    assert errors["size"].worst < 0.1
    assert errors["log_divergence"].worst < math.log(10)
    divergences = {whole.label: whole.figures.divergence for whole in wholes if whole.figures}
    predicted = {whole.label: whole.est_divergence for whole in wholes}
    assert max(predicted, key=predicted.get) == max(divergences, key=divergences.get)
