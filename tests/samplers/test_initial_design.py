import dataclasses

import numpy as np

from autocompress.objective import Limits
from autocompress.samplers.initial_design import depth_path, initial_trials, swept_plans
from autocompress.space.prediction import Predictor
from autocompress.space.search_space import Knob, SearchSpace
from autocompress.space.sensitivity_table import Figures, MeasuredLevel, SensitivityTable
from tests.samplers.guided.conftest import make_world


def test_initial_trials_start_with_the_baseline(space: SearchSpace) -> None:
    baseline = initial_trials(space)[0]

    assert baseline.role == "baseline"
    assert set(baseline.levels.values()) == {0}


def test_initial_trials_set_uniform_bits_in_every_layer(space: SearchSpace) -> None:
    by_label = {seed.label: seed for seed in initial_trials(space)}

    for bits in (8, 4, 3, 2):
        plan = space.decode(by_label[f"uniform {bits} bit"].levels)
        assert {layer.weight_bits for layer in plan.layers.values()} == {bits}
        assert {layer.activation_bits for layer in plan.layers.values()} == {8}
        assert len(plan.layers) == 3


def test_initial_trials_take_the_next_higher_level_where_a_knob_has_no_such_bits() -> None:
    knobs = (
        Knob(kind="weight_bits", targets=("a",), levels=(32, 8, 4, 2), label="a"),
        Knob(kind="weight_bits", targets=("b",), levels=(32, 8), label="b"),
    )
    by_label = {seed.label: seed for seed in initial_trials(SearchSpace(knobs=knobs))}

    assert by_label["uniform 4 bit"].levels == {"weight_bits:a": 2, "weight_bits:b": 1}
    assert "uniform 3 bit" not in by_label  # it would be the same plan


def test_initial_trials_take_seven_bits_for_eight_where_integer_kernels_have_no_more() -> None:
    knobs = (
        Knob(kind="weight_bits", targets=("a",), levels=(32, 7, 4), label="a"),
        Knob(kind="weight_bits", targets=("b",), levels=(32, 8, 7), label="b"),
        Knob(kind="activation_bits", targets=("a",), levels=(32, 8), label="a"),
    )
    found = {trial.label: trial.levels for trial in initial_trials(SearchSpace(knobs=knobs))}
    expected = {"weight_bits:a": 1, "weight_bits:b": 1, "activation_bits:a": 1}
    assert found["int8 post-training"] == expected
    assert found["uniform 7 bit"] == expected


def test_initial_trials_penalize_all_layers_alike() -> None:
    knobs = (
        Knob(kind="weight_bits", targets=("a", "b"), levels=(32, 8, 2), label="all"),
        Knob(kind="rate_price", targets=("a", "b"), levels=(0.0, 0.01, 0.03, 0.1), label="all"),
    )
    space = SearchSpace(knobs=knobs)
    prices = {
        seed.label: {
            (la.weight_bits, la.rate_price) for la in space.decode(seed.levels).layers.values()
        }
        for seed in initial_trials(space)
        if seed.label.startswith("rate penalty")
    }
    assert prices == {f"rate penalty {price}": {(8, price)} for price in (0.01, 0.03, 0.1)}


def test_first_come_rate_penalties_far_apart() -> None:
    """Three points of the curve before anything else; the others in turn with proposals."""
    prices = (0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.045, 0.07, 0.1, 0.15, 0.2)
    knobs = (
        Knob(kind="weight_bits", targets=("a",), levels=(32, 8, 2), label="all"),
        Knob(kind="rate_price", targets=("a",), levels=(0.0, *prices), label="all"),
        Knob(kind="sparsity", targets=("a",), levels=(0.0, 0.3), label="a"),
    )
    swept = [{"weight_bits:all": 2, "rate_price:all": 0, "sparsity:a": 1}]
    trials = initial_trials(SearchSpace(knobs=knobs), swept)
    curve = [t for t in trials if t.label.startswith("rate penalty")]

    assert len(curve) == 8
    assert [t.takes_turns for t in curve] == [False] * 3 + [True] * 5
    first = [float(t.label.removeprefix("rate penalty ")) for t in curve[:3]]
    assert 0.0025 < min(first) < 0.02 < sorted(first)[1] < 0.07 < max(first) < 0.2
    assert [t.label for t in trials[:6]] == [
        "baseline",
        *(t.label for t in curve[:3]),
        "uniform 8 bit",
        "initial 1",
    ]


def test_rate_penalties_stand_at_the_bits_they_are_measured_at() -> None:
    knobs = (
        Knob(kind="weight_bits", targets=("a",), levels=(32, 6, 4), label="a"),
        Knob(kind="weight_bits", targets=("b",), levels=(32, 8), label="b"),
        Knob(kind="rate_price", targets=("a", "b"), levels=(0.0, 0.01), label="all"),
    )
    seeds = {seed.label: seed.levels for seed in initial_trials(SearchSpace(knobs=knobs))}
    assert set(seeds["rate penalty 0.01"].values()) == {1}


def test_initial_trials_name_the_bits_that_a_control_has() -> None:
    knobs = (Knob(kind="weight_bits", targets=("a", "b"), levels=(32, 6, 5), label="all"),)
    space = SearchSpace(knobs=knobs, methods=())
    labels = [seed.label for seed in initial_trials(space)]
    assert labels == ["baseline", "uniform 5 bit"]


def test_initial_trials_prune_uniformly_near_thirty_percent(space: SearchSpace) -> None:
    seed = next(s for s in initial_trials(space) if s.label == "uniform pruning")

    assert space.decode(seed.levels).pruning_ratios == {"stem": 0.25}


def test_initial_trials_leave_out_what_the_space_cannot_say() -> None:
    knob = Knob(kind="pruning_ratio", targets=("a",), levels=(0.0, 0.5), label="a")
    labels = [seed.label for seed in initial_trials(SearchSpace(knobs=(knob,)))]

    assert labels == ["baseline", "uniform pruning"]


def test_initial_trials_never_repeat_a_plan_at_one_fidelity(space: SearchSpace) -> None:
    seeds = initial_trials(space)
    keys = [(tuple(sorted(s.levels.items())), s.fidelity) for s in seeds]

    assert len(set(keys)) == len(keys)
    assert [s.label for s in seeds if s.fidelity == 0] == ["int8 post-training"]


def test_initial_trials_put_swept_plans_before_controls(space: SearchSpace) -> None:
    swept = [{knob.name: min(i, 1) for knob in space.knobs} for i in (0, 1)]
    seeds = initial_trials(space, swept)

    # the first initial plan is the baseline over again: left out
    assert [s.label for s in seeds[:4]] == [
        "baseline",
        "initial 2",
        "int8 post-training",
        "uniform 8 bit",
    ]
    assert next(s for s in seeds if s.label == "initial 2").role == "search"


def test_initial_trials_leave_a_control_to_the_controls(space: SearchSpace) -> None:
    controls = {seed.label: seed.levels for seed in initial_trials(space)}
    other = {knob.name: 1 for knob in space.knobs}
    swept = [controls["uniform 2 bit"], other, controls["uniform pruning"]]
    seeds = initial_trials(space, swept)

    assert [s.label for s in seeds if s.role == "search"] == ["initial 2"]
    assert {s.label: s.levels for s in seeds if s.role != "search"} == controls


def test_swept_plans_lose_little_of_the_accuracy() -> None:
    """The smallest plans that diverge by at most so much: the more they may, the smaller."""
    predictor = make_world(1).predictor
    names = [knob.name for knob in predictor.space.knobs]
    plans = swept_plans(predictor, Limits(), has_latency=False)
    levels = np.array([[plan[name] for name in names] for plan in plans])

    assert len(plans) == 2
    divergence, sizes = predictor.divergence(levels), predictor.size_bytes(levels)
    assert (divergence <= np.array([0.05, 0.5])).all()  # what a structure loses is repaired
    assert sizes[1] < sizes[0] < predictor.table.baseline.size_bytes / 2


def test_swept_plans_keep_the_limit_on_size() -> None:
    predictor = make_world(1).predictor
    limit = predictor.table.baseline.size_bytes // 10
    names = [knob.name for knob in predictor.space.knobs]
    plans = swept_plans(predictor, Limits(max_size_bytes=limit), has_latency=False)
    levels = np.array([[plan[name] for name in names] for plan in plans])

    assert len(levels)
    assert (predictor.size_bytes(levels) <= limit).all()


def test_depth_path_drops_the_blocks_that_matter_least_first() -> None:
    knobs = tuple(
        Knob(kind="drop_block", targets=(name,), levels=(0, 1), label=name) for name in "abcd"
    )
    base = Figures(divergence=0.0, size_bytes=100, layer_bytes={"a": 100})
    harms = {"a": 0.3, "b": 0.1, "c": None, "d": 0.2}  # c cannot be dropped
    options = tuple(
        MeasuredLevel(
            knob=f"drop_block:{name}",
            level=1,
            figures=None if harm is None else dataclasses.replace(base, divergence=harm),
        )
        for name, harm in harms.items()
    )
    table = SensitivityTable(baseline=base, contexts={}, options=options, seconds=0.0)
    paths = depth_path(Predictor(SearchSpace(knobs=knobs), table))
    dropped = [[name[-1] for name, level in plan.items() if level] for plan in paths]
    assert dropped == [["b"], ["b", "d"], ["a", "b", "d"]]


def test_swept_levels_are_none_where_no_plan_keeps_the_limit() -> None:
    predictor = make_world(1).predictor
    assert swept_plans(predictor, Limits(max_size_bytes=1), has_latency=False) == []
