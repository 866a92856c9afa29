import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autocompress.errors import InputError
from autocompress.objective import Limits
from autocompress.report.compare import Comparison, compare_runs
from autocompress.run_record import RunRecord, TrialRecord

INFO = {
    "model": "m" * 64,
    "data": {"val": "v" * 64, "example_inputs": "e" * 64},
    "metric": "top-1 accuracy",
    "fidelity": 1,
    "objectives": "accuracy,size,latency",
    "limits": {},
    "settings": {"runtime": "onnxruntime", "runtime_threads": 1},
    "machine": {"processor": "Xeon"},
    "seed": 0,
}
Make = Callable[..., RunRecord]


def variant(run: RunRecord, name: str, **info: Any) -> RunRecord:
    folder = Path("results") / name
    return dataclasses.replace(run, name=name, folder=folder, info={**INFO, **info})


@pytest.fixture
def pair(make_run: Make) -> tuple[RunRecord, RunRecord]:
    return variant(make_run(), "a"), variant(make_run(seed=1), "b", seed=1)


def at(found: Comparison, cost: str, drop: float) -> Any:
    return next(r for r in found.at_drops if r.cost.name == cost and r.max_drop == drop)


def test_compare_runs_gives_each_runs_hypervolume_and_its_value_after_as_many_trials(
    pair: tuple[RunRecord, RunRecord], make_run: Make
) -> None:
    short = variant(make_run(n_search=5, seed=1), "b")
    found = compare_runs([pair[0], short])
    assert found.hypervolumes == (
        pair[0].hypervolume(pair[0].feasible),
        short.hypervolume(short.feasible),
    )
    assert found.n_equal == short.n_finished < pair[0].n_finished
    assert found.equal_hypervolumes[1] == found.hypervolumes[1]
    assert found.equal_hypervolumes[0] < found.hypervolumes[0]


def test_compare_runs_finds_the_smallest_file_within_each_drop_by_hand(
    pair: tuple[RunRecord, RunRecord],
) -> None:
    found = compare_runs(pair)
    sizes = []
    for run in pair:
        assert run.baseline is not None
        least = run.baseline.measurement.accuracy - 0.02 - 1e-9
        sizes.append(
            min(
                t.measurement.size_bytes
                for t in run.complete
                if t.role != "baseline"
                and t.measurement.accuracy >= least
                and t.measurement.fidelity == 1
            )
        )
    row = at(found, "size", 0.02)
    assert [t.measurement.size_bytes for t in row.trials] == sizes
    assert row.winner == sizes.index(min(sizes))


def test_compare_runs_names_no_winner_when_sizes_are_equal(
    pair: tuple[RunRecord, RunRecord],
) -> None:
    twin = dataclasses.replace(pair[0], name="twin", folder=Path("results/twin"))
    found = compare_runs([pair[0], twin])
    assert {row.winner for row in found.at_drops} == {None}


def test_compare_runs_names_no_winner_for_a_few_bytes(pair: tuple[RunRecord, RunRecord]) -> None:
    first, second = pair

    def larger(trial: TrialRecord) -> TrialRecord:
        if trial.measurement is None:
            return trial
        n_bytes = trial.measurement.size_bytes + 2
        figures = dataclasses.replace(trial.measurement, size_bytes=n_bytes)
        return dataclasses.replace(trial, measurement=figures)

    twin = dataclasses.replace(second, trials=tuple(map(larger, first.trials)))
    assert at(compare_runs([first, twin]), "size", 0.01).winner is None


def test_compare_runs_names_no_winner_by_latency_within_the_noise(
    pair: tuple[RunRecord, RunRecord],
) -> None:
    first, second = pair
    slower = tuple(
        t
        if t.measurement is None or t.role == "baseline"
        else dataclasses.replace(
            t,
            measurement=dataclasses.replace(
                t.measurement, latency_ms=t.measurement.latency_ms * 1.001
            ),
        )
        for t in first.trials
    )
    twin = dataclasses.replace(second, trials=slower)
    assert at(compare_runs([first, twin]), "latency", 0.01).winner is None


@pytest.mark.parametrize(
    ("change", "spoiled"),
    [
        ({"seed": 7}, {}),
        ({"metric": "F1"}, {"accuracy", "size_at_drop", "speedup_at_drop", "hypervolume"}),
        ({"model": "n" * 64}, {"size_at_drop", "speedup_at_drop", "hypervolume"}),
        ({"machine": {"processor": "Arm"}}, {"speedup_at_drop", "hypervolume"}),
        ({"objectives": "accuracy,size"}, {"hypervolume"}),
        ({"limits": {"max_drop": 0.01}}, {"hypervolume"}),
    ],
)
def test_compare_runs_says_which_figures_a_difference_spoils(
    make_run: Make, change: dict[str, Any], spoiled: set[str]
) -> None:
    run = make_run()
    found = compare_runs([variant(run, "a"), variant(run, "b", **change)])
    assert {figure for figure, why in found.obstacles.items() if why} == set(spoiled)
    key = next(iter(change))
    assert all(any(w.startswith(key) for w in found.obstacles[f]) for f in spoiled)
    assert [d.key.partition(".")[0] for d in found.differences] == [key]


def test_compare_runs_names_no_winner_when_models_differ(make_run: Make) -> None:
    found = compare_runs([variant(make_run(), "a"), variant(make_run(seed=1), "b", model="n" * 64)])
    assert all(row.winner is None and not row.is_comparable for row in found.at_drops)


def test_compare_runs_says_that_a_run_has_no_baseline(make_run: Make) -> None:
    bare = variant(make_run(with_baseline=False), "bare")
    found = compare_runs([variant(make_run(), "a"), bare])
    assert found.hypervolumes[1] is None
    assert "bare has no baseline" in found.obstacles["hypervolume"]


def test_compare_runs_counts_only_what_keeps_a_runs_limits(make_run: Make) -> None:
    run = make_run()
    strict = dataclasses.replace(variant(run, "b"), limits=Limits(max_size_bytes=1))
    assert at(compare_runs([variant(run, "a"), strict]), "size", 0.02).trials[1] is None


def test_compare_runs_calls_runs_of_one_name_by_their_folders(make_run: Make) -> None:
    runs = [dataclasses.replace(make_run(), folder=Path(f"{x}/demo"), name="demo") for x in "ab"]
    assert compare_runs(runs).names == ("a/demo", "b/demo")


@pytest.mark.parametrize("n", [0, 1, 7])
def test_compare_runs_refuses_too_few_and_too_many(make_run: Make, n: int) -> None:
    runs = [dataclasses.replace(make_run(), folder=Path(str(i))) for i in range(n)]
    with pytest.raises(InputError, match=f"needs 2 to 6 runs, but got {n}"):
        compare_runs(runs)


def test_compare_runs_refuses_the_same_run_twice(make_run: Make) -> None:
    with pytest.raises(InputError, match="is named twice"):
        compare_runs([make_run(), make_run()])
