from autocompress.search.seeding import make_seeds
from autocompress.space.search_space import Knob, SearchSpace


def test_make_seeds_starts_with_the_untouched_baseline(space: SearchSpace) -> None:
    baseline = make_seeds(space)[0]

    assert baseline.role == "baseline"
    assert set(baseline.levels.values()) == {0}


def test_make_seeds_sets_uniform_bits_in_every_layer(space: SearchSpace) -> None:
    by_label = {seed.label: seed for seed in make_seeds(space)}

    for bits in (8, 4, 3, 2):
        plan = space.decode(by_label[f"uniform {bits} bit"].levels)
        assert {layer.weight_bits for layer in plan.layers.values()} == {bits}
        assert {layer.activation_bits for layer in plan.layers.values()} == {8}
        assert len(plan.layers) == 3


def test_make_seeds_takes_the_next_higher_level_where_a_knob_has_no_such_bits() -> None:
    knobs = (
        Knob(kind="weight_bits", targets=("a",), levels=(32, 8, 4, 2), label="a"),
        Knob(kind="weight_bits", targets=("b",), levels=(32, 8), label="b"),
    )
    by_label = {seed.label: seed for seed in make_seeds(SearchSpace(knobs=knobs))}

    assert by_label["uniform 4 bit"].levels == {"weight_bits:a": 2, "weight_bits:b": 1}
    assert "uniform 3 bit" not in by_label  # it would be the same plan


def test_make_seeds_prunes_uniformly_near_thirty_percent(space: SearchSpace) -> None:
    seed = next(s for s in make_seeds(space) if s.label == "uniform pruning")

    assert space.decode(seed.levels).pruning_ratios == {"stem": 0.25}


def test_make_seeds_leaves_out_what_the_space_cannot_say() -> None:
    knob = Knob(kind="pruning_ratio", targets=("a",), levels=(0.0, 0.5), label="a")
    labels = [seed.label for seed in make_seeds(SearchSpace(knobs=(knob,)))]

    assert labels == ["baseline", "uniform pruning"]


def test_make_seeds_never_repeats_a_plan_at_one_fidelity(space: SearchSpace) -> None:
    seeds = make_seeds(space)
    keys = [(tuple(sorted(s.levels.items())), s.fidelity) for s in seeds]

    assert len(set(keys)) == len(keys)
    assert [s.label for s in seeds if s.fidelity == 0] == ["int8 post-training"]
