import dataclasses
from collections.abc import Callable
from pathlib import Path

from autocompress.report.run_differences import KNOBS, differences, leaves_at
from autocompress.run_record import RunRecord

Make = Callable[..., RunRecord]


def test_differences_is_empty_for_runs_that_are_the_same(make_run: Make) -> None:
    assert differences([make_run(), make_run(seed=1)]) == ()


def test_differences_tells_a_fact_once_that_is_recorded_twice(make_run: Make) -> None:
    runs = [
        dataclasses.replace(
            make_run(), info={"seed": seed, "options": {"seed": seed, "jobs": jobs}}
        )
        for seed, jobs in ((0, 1), (1, 2))
    ]
    assert [(d.key, d.values) for d in differences(runs)] == [
        ("seed", (0, 1)),
        ("options.jobs", (1, 2)),
    ]


def test_differences_names_knobs_that_one_run_lacks_or_that_have_other_levels(
    make_run: Make,
) -> None:
    run = make_run()
    first = run.knobs[0]
    other = dataclasses.replace(first, levels=first.levels[:2])
    changed = dataclasses.replace(run, folder=Path("b"), knobs=(other, *run.knobs[2:]))
    found = [d for d in differences([run, changed]) if d.topic == KNOBS]
    assert [d.key for d in found] == [first.name, run.knobs[1].name]
    assert found[0].values == ("0 %, 25 %, 50 %", "0 %, 25 %")
    assert found[1].values[1] is None


def test_leaves_at_flattens_what_lies_below_a_key() -> None:
    info = {"data": {"val": 1, "more": {"a.b": 2}}, "seed": 3, "limits": {}}
    assert leaves_at(info, "data") == {"data.val": 1, "data.more.a.b": 2}
    assert leaves_at(info, "data.val") == {"data.val": 1}
    assert leaves_at(info, "limits") == {}
    assert leaves_at(info, "none.such") == {"none.such": None}
