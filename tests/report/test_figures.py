from collections.abc import Callable

from autocompress.report.pictures import run_figures
from autocompress.run_record import RunRecord

Factory = Callable[..., RunRecord]


def test_run_figures_holds_all_for_a_full_run(
    make_run: Factory, add_options: Callable[[RunRecord], RunRecord]
) -> None:
    assert list(run_figures(add_options(make_run(20)))) == [
        "size", "latency", "cube", "hypervolume", "choices", "sensitivity", "importance",
    ]  # fmt: skip


def test_run_figures_leaves_out_what_has_no_data(make_run: Factory) -> None:
    assert not {"latency", "cube"} & run_figures(make_run(5, objectives="accuracy,size")).keys()
    assert not {"sensitivity", "importance"} & run_figures(make_run(5)).keys()
    assert "hypervolume" not in run_figures(make_run(5, with_baseline=False))
    assert run_figures(make_run(0, with_baseline=False, with_controls=False)) == {}
