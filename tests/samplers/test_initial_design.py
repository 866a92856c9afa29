import numpy as np

from autocompress.objective import Limits
from autocompress.samplers.initial_design import initial_trials, swept_plans
from autocompress.space.search_space import Knob, SearchSpace
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
        if seed.label.endswith("rate penalty")
    }
    assert prices == {
        "mild rate penalty": {(8, 0.01)},
        "middle rate penalty": {(8, 0.03)},
        "strong rate penalty": {(8, 0.1)},
    }


def test_rate_penalties_stand_at_the_bits_they_are_measured_at() -> None:
    knobs = (
        Knob(kind="weight_bits", targets=("a",), levels=(32, 6, 4), label="a"),
        Knob(kind="weight_bits", targets=("b",), levels=(32, 8), label="b"),
        Knob(kind="rate_price", targets=("a", "b"), levels=(0.0, 0.01), label="all"),
    )
    seeds = {seed.label: seed.levels for seed in initial_trials(SearchSpace(knobs=knobs))}
    assert set(seeds["mild rate penalty"].values()) == {1}
    assert "strong rate penalty" not in seeds  # it would be the same plan


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


def test_swept_levels_spread_over_sizes() -> None:
    predictor = make_world(1).predictor
    names = [knob.name for knob in predictor.space.knobs]
    plans = swept_plans(predictor, Limits(), has_latency=False)
    levels = np.array([[plan[name] for name in names] for plan in plans])
    ratios = predictor.table.baseline.size_bytes / predictor.size_bytes(levels)

    assert len(plans) == 3
    assert ratios.max() / ratios.min() > 3.0


def test_swept_levels_keep_the_limit_on_size() -> None:
    predictor = make_world(1).predictor
    limit = predictor.table.baseline.size_bytes // 10
    names = [knob.name for knob in predictor.space.knobs]
    plans = swept_plans(predictor, Limits(max_size_bytes=limit), has_latency=False)
    levels = np.array([[plan[name] for name in names] for plan in plans])

    assert len(np.unique(levels, axis=0)) > 1
    assert (predictor.size_bytes(levels) <= limit).all()


def test_swept_levels_are_none_where_no_plan_keeps_the_limit() -> None:
    predictor = make_world(1).predictor
    assert swept_plans(predictor, Limits(max_size_bytes=1), has_latency=False) == []
