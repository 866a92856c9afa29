"""The training-free score: exact where nothing changes, and what it says it is elsewhere."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autocompress.compress.pipeline import Candidate
from autocompress.errors import TrialError
from autocompress.evaluate.dominance import HopelessError, Rival, Rivals
from autocompress.evaluate.evaluator import Evaluator
from autocompress.evaluate.probe import Probe
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.runtime.latency import Latency
from autocompress.space.search_space import Knob, SearchSpace
from autocompress.space.sensitivity_table import (
    Figures,
    MeasuredLevel,
    SensitivityTable,
    score_reliability,
)
from autocompress.tasks.base import Inputs
from autocompress.tasks.fingerprint import model_fingerprint
from autocompress.tasks.prepare import PreparedTask
from autocompress.train.recalibrate import calibration_batches, recalibrate_

LAYERS = ("conv1", "conv2", "fc")
UNTOUCHED = CompressionPlan()


def uniform(bits: int, **others: Any) -> CompressionPlan:
    return CompressionPlan(layers={n: LayerPlan(weight_bits=bits, **others) for n in LAYERS})


def make(
    evaluator: Evaluator,
    prepared: PreparedTask | None = None,
    build: Callable[[CompressionPlan], Candidate] | None = None,
    compensates_all: bool = False,
) -> Probe:
    def time_graph(exported: object) -> Latency:
        return Latency(
            median_ms=1.0,
            spread_ms=0.1,
            baseline_median_ms=2.0,
            ratio=0.5,
            ratio_low=0.4,
            ratio_high=0.6,
            n_runs=10,
            peak_memory_bytes=None,
        )

    return Probe(
        evaluator.model,
        prepared or evaluator.prepared,
        layers={layer.name: layer.kind for layer in evaluator.profile.layers},
        build=build or evaluator.build,
        deploy=evaluator.measurer.deploy,
        time_candidate=time_graph,
        compensates_all=compensates_all,
        device=torch.device("cpu"),
    )


def test_probe_finds_no_divergence_where_nothing_changes(evaluator: Evaluator) -> None:
    assert evaluator.probe(UNTOUCHED).divergence == 0.0
    idle = CompressionPlan(layers={"fc": LayerPlan(quantizer="kmeans")})
    assert evaluator.probe(idle).divergence == 0.0


def test_probe_measures_the_kl_divergence_of_models_with_equal_statistics(
    evaluator: Evaluator,
) -> None:
    prepared = evaluator.prepared
    statistics = list(calibration_batches(prepared, 128, 2, 0))
    inputs, _ = prepared.val.batch(slice(None))  # fewer than would be compared
    logits = []
    for plan in (UNTOUCHED, uniform(3)):
        model = evaluator.build(plan).model
        recalibrate_(model, statistics)
        with torch.no_grad():
            logits.append(model(*inputs).double().numpy() / 2.0)
    q, p = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in logits)
    expected = 4.0 * float((q * np.log(q / p)).sum(axis=1).mean())

    assert evaluator.probe(uniform(3)).divergence == pytest.approx(expected, rel=1e-3)


def test_scores_repeat_on_the_other_half_of_the_examples(evaluator: Evaluator) -> None:
    """What tells plans apart is the plan, not the examples that it happened to be scored on."""
    knobs = tuple(
        Knob(kind="weight_bits", targets=(name,), levels=(32, 4, 3, 2), label=name)
        for name in LAYERS
    )
    space = SearchSpace(knobs=knobs)
    options = tuple(
        MeasuredLevel(
            knob=knob.name,
            level=level,
            figures=evaluator.probe(
                CompressionPlan(layers={knob.label: LayerPlan(weight_bits=knob.levels[level])})
            ),
        )
        for knob in knobs
        for level in (1, 2, 3)
    )
    table = SensitivityTable(
        baseline=Figures(divergence=0.0), contexts={}, options=options, seconds=0.0
    )
    reliability = score_reliability(space, table)
    assert reliability is not None
    assert reliability > 0.9


def test_probe_orders_bits(evaluator: Evaluator) -> None:
    found = [evaluator.probe(uniform(bits)).divergence for bits in (8, 4, 2)]
    assert 0.0 < found[0] < found[1] < found[2]
    assert found[0] < 1e-3


def test_probe_takes_only_what_was_asked_for(evaluator: Evaluator) -> None:
    probe = make(evaluator)
    plain, sized, timed = (
        probe.measure(uniform(4), **asked)
        for asked in ({}, {"has_size": True}, {"has_latency": True})
    )

    assert plain.size_bytes is None
    assert plain.layer_bytes == {}
    assert plain.latency_ratio is None
    assert sized == dataclasses.replace(timed, latency_ratio=None)
    assert timed.latency_ratio == 0.5
    assert plain.divergence == sized.divergence


def test_probe_knows_every_layer_of_the_model(evaluator: Evaluator) -> None:
    base = evaluator.probe(UNTOUCHED, has_size=True)
    low_rank = CompressionPlan(layers={"conv2": LayerPlan(rank_ratio=0.25)})
    split = evaluator.probe(low_rank, has_size=True)

    assert list(base.layer_bytes) == ["conv1", "bn1", "conv2", "bn2", "fc"]
    assert list(split.layer_bytes) == list(base.layer_bytes)
    assert base.layer_bytes["conv2"] == 4 * (32 * 32 * 9 + 32)
    assert split.layer_bytes["conv2"] < base.layer_bytes["conv2"] / 2
    assert split.layer_bytes["conv1"] == base.layer_bytes["conv1"]
    assert base.size_bytes is not None
    assert 0 < base.size_bytes - sum(base.layer_bytes.values()) < 1000


def test_probe_gives_the_same_again_and_leaves_no_trace(evaluator: Evaluator) -> None:
    plan = CompressionPlan(pruning_ratios={"conv1": 0.5}, layers={"fc": LayerPlan(weight_bits=4)})
    before = model_fingerprint(evaluator.model), torch.get_rng_state()
    first, second = (evaluator.probe(plan, has_size=True) for _ in range(2))

    assert first == second == make(evaluator).measure(plan, has_size=True)
    assert model_fingerprint(evaluator.model) == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_probe_times_the_untouched_model_against_itself(evaluator: Evaluator) -> None:
    assert evaluator.probe(UNTOUCHED, has_latency=True).latency_ratio == 1.0


def test_probe_rounds_as_the_recipe_and_the_plan_say(evaluator: Evaluator) -> None:
    nearest, compensated, cheap = (
        make(evaluator, compensates_all=all_layers).measure(
            uniform(3, rate_price=price), has_size=True
        )
        for all_layers, price in ((False, 0.0), (True, 0.0), (False, 0.1))
    )
    assert compensated.divergence < nearest.divergence
    assert compensated.size_bytes is not None
    assert cheap.size_bytes is not None
    assert cheap.size_bytes < compensated.size_bytes


def test_probe_settles_input_grids(evaluator: Evaluator) -> None:
    figures = evaluator.probe(uniform(8, activation_bits=8), has_size=True)
    assert 0.0 < figures.divergence < 0.05


def test_probe_makes_do_with_few_examples(evaluator: Evaluator) -> None:
    prepared = evaluator.prepared
    few = dataclasses.replace(prepared, train=prepared.train.subset(slice(0, 5)))
    probe = make(evaluator, few)
    assert probe.measure(UNTOUCHED).divergence == 0.0
    assert probe.measure(uniform(2)).divergence > 0.0


def test_probe_fails_where_outputs_are_not_finite(evaluator: Evaluator) -> None:
    def broken(plan: CompressionPlan) -> Candidate:
        model = copy.deepcopy(evaluator.model)
        nn.init.constant_(model.get_parameter("fc.bias"), float("inf"))
        return Candidate(model=model, skipped=())

    with pytest.raises(TrialError) as caught:
        make(evaluator, build=broken).measure(UNTOUCHED)
    assert caught.value.reason == "nonfinite_output"


def test_probe_fingerprint_sees_data_and_augmentation(evaluator: Evaluator) -> None:
    def shifted(inputs: Inputs, generator: torch.Generator) -> tuple[Tensor, ...]:
        return tuple(tensor.roll(1, dims=-1) for tensor in inputs)

    prepared = evaluator.prepared
    moved = dataclasses.replace(prepared, task=dataclasses.replace(prepared.task, augment=shifted))
    other = dataclasses.replace(prepared, train=prepared.train.subset(slice(1, None)))
    prints = {make(evaluator, p).fingerprint() for p in (prepared, moved, other)}

    assert len(prints) == 3
    assert evaluator.probe_fingerprint() == make(evaluator).fingerprint()


def test_evaluate_keeps_both_divergences(evaluator: Evaluator) -> None:
    measured = evaluator.evaluate(uniform(2), seed=1)
    base = evaluator.evaluate(UNTOUCHED, seed=1)

    assert measured.untuned_divergence == evaluator.probe(uniform(2)).divergence
    assert measured.divergence is not None
    assert 0.0 < measured.divergence < measured.untuned_divergence
    assert base.divergence == 0.0
    assert base.untuned_divergence is None


def test_evaluate_does_not_tune_what_its_rivals_dominate(evaluator: Evaluator) -> None:
    rival = Rival(label="trial 7", accuracy=0.99, size_bytes=10, latency_ratio=None)
    hopeless = tuple((1e3, 0.5 + i / 100) for i in range(6))
    rivals = Rivals(front=(rival,), history=hopeless, has_latency=False)
    stages: list[str] = []
    with pytest.raises(HopelessError, match=r"trial 7 has 99\.00 %"):
        evaluator.evaluate(
            uniform(2), seed=1, rivals=rivals, on_stage=lambda stage, share: stages.append(stage)
        )
    assert "tune" not in stages


def test_where_latency_counts_only_what_could_be_hopeless_is_timed_and_stopped(
    evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = EvaluationSettings(threads=1, proxy_epochs=0.05)
    evaluator = Evaluator(evaluator.prepared, settings)
    timed: list[bool] = []
    probed = evaluator.probe

    def probe(plan: CompressionPlan, **how: bool) -> Figures:
        timed.append(how.get("has_latency", False))
        return probed(plan, **how)

    monkeypatch.setattr(evaluator, "probe", probe)
    fast = Rival(label="trial 7", accuracy=0.99, size_bytes=10, latency_ratio=1e-3)
    hopeless = tuple((1e3, 0.5) for _ in range(6))
    rivals = Rivals(front=(fast,), history=hopeless, has_latency=True)
    with pytest.raises(HopelessError, match="trial 7"):
        evaluator.evaluate(uniform(2), seed=1, rivals=rivals)
    assert timed == [False, True]

    large = dataclasses.replace(rivals, front=(dataclasses.replace(fast, size_bytes=10**9),))
    evaluator.evaluate(uniform(2), seed=1, rivals=large)
    assert timed == [False, True, False]


def test_evaluator_passes_the_recipes_rounding_on(evaluator: Evaluator) -> None:
    settings = EvaluationSettings(threads=1, has_latency=False, recipe={"rounding": "compensated"})
    found = Evaluator(evaluator.prepared, settings).probe(uniform(2)).divergence
    assert found == make(evaluator, compensates_all=True).measure(uniform(2)).divergence
    assert found != evaluator.probe(uniform(2)).divergence
