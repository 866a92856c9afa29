import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autocompress.executors.job import EvaluationJob
from autocompress.measurement import Measurement
from autocompress.runs.repeats import find_repeats
from autocompress.space.search_space import SearchSpace
from autocompress.study.records import load_run
from autocompress.study.study import Study

Make = Callable[..., Path]


@pytest.fixture
def make_run_folder(
    open_study: Callable[..., Study],
    measure: Callable[[EvaluationJob], Measurement],
    space: SearchSpace,
) -> Make:
    """A run folder with so many finished trials, the last one failed, and one left running."""

    def make(name: str, seed: int = 0, n_trials: int = 4, **changes: Any) -> Path:
        identity = {"seed": seed, **changes.pop("identity", {})}
        with open_study(name, identity=identity, **changes) as study:
            first = study.space.knobs[0].name
            for number in range(n_trials + 1):
                levels = {knob.name: 0 for knob in study.space.knobs} | {first: number % 6}
                job = study.add(levels, "search" if number else "baseline", f"trial {number}", 1)
                evaluation = EvaluationJob(
                    plan=space.decode(levels), seed=seed + number, fidelity=1, keep=Path()
                )
                if number < n_trials - 1:
                    study.complete(job, measure(evaluation))
                elif number == n_trials - 1:
                    study.fail(job, "oom")
            return study.folder

    return make


def test_find_repeats_finds_siblings_that_differ_in_the_seed_alone(make_run_folder: Make) -> None:
    here = make_run_folder("a", seed=5)
    make_run_folder("z", seed=1)
    make_run_folder("b", seed=7)
    make_run_folder("other model", seed=2, identity={"model": "xyz"})
    make_run_folder("other objectives", seed=3, objectives="accuracy,size")
    repeats = find_repeats(load_run(here))
    assert [(r.name, r.info["seed"]) for r in repeats] == [("z", 1), ("b", 7)]
    assert [r.info["seed"] for r in find_repeats(load_run(here.parent / "b"))] == [1, 5]


def test_find_repeats_cuts_longer_runs_and_leaves_out_shorter_ones(make_run_folder: Make) -> None:
    here = make_run_folder("here", seed=0, n_trials=4)
    make_run_folder("longer", seed=1, n_trials=6)
    make_run_folder("shorter", seed=2, n_trials=3)
    (repeat,) = find_repeats(load_run(here))
    assert repeat.name == "longer"
    assert [t.number for t in repeat.trials] == [0, 1, 2, 3]
    assert repeat.n_finished == 4
    assert {r.name for r in find_repeats(load_run(here.parent / "shorter"))} == {"here", "longer"}
    assert all(r.n_finished == 3 for r in find_repeats(load_run(here.parent / "shorter")))
    assert find_repeats(load_run(here.parent / "longer")) == ()


def test_find_repeats_counts_every_seed_once(make_run_folder: Make) -> None:
    here = make_run_folder("here", seed=0)
    make_run_folder("one-a", seed=1, n_trials=2)  # too short: the next one of this seed counts
    make_run_folder("one-b", seed=1)
    shutil.copytree(here.parent / "one-b", here.parent / "one-c")
    shutil.copytree(here, here.parent / "copy of here")
    assert [r.name for r in find_repeats(load_run(here))] == ["one-b"]


def test_find_repeats_passes_over_what_it_cannot_read_and_writes_nothing(
    make_run_folder: Make,
) -> None:
    here = make_run_folder("here", seed=0)
    results = here.parent
    make_run_folder("repeat", seed=1)
    for name, content in (("empty", b""), ("damaged", b"SQLite format 3\0" + b"\xff" * 200)):
        (results / name).mkdir()
        (results / name / "study.db").write_bytes(content)
    (results / "no study").mkdir()
    before = {path: path.read_bytes() for path in results.glob("*/study.db")}
    assert [r.name for r in find_repeats(load_run(here))] == ["repeat"]
    assert {path: path.read_bytes() for path in results.glob("*/study.db")} == before


def test_find_repeats_of_a_run_whose_study_is_elsewhere_is_empty(
    make_run_folder: Make, tmp_path: Path
) -> None:
    run = load_run(make_run_folder("here", seed=0))
    make_run_folder("repeat", seed=1)
    (tmp_path / "none").mkdir()
    assert find_repeats(dataclasses.replace(run, folder=tmp_path / "none")) == ()
    assert list((tmp_path / "none").iterdir()) == []
    assert find_repeats(dataclasses.replace(run, folder=tmp_path / "missing")) == ()


def test_find_repeats_of_a_run_without_a_finished_trial_is_empty(
    make_run_folder: Make, open_study: Callable[..., Study]
) -> None:
    make_run_folder("repeat", seed=1)
    with open_study("here") as study:
        folder = study.folder
    assert find_repeats(load_run(folder)) == ()
