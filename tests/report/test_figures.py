from collections.abc import Callable

from autocompress.report.figures import run_figures
from autocompress.run_record import RunRecord

Factory = Callable[..., RunRecord]


def test_run_figures_holds_all_four_for_a_full_run(make_run: Factory) -> None:
    assert list(run_figures(make_run(5))) == ["size", "latency", "hypervolume", "choices"]


def test_run_figures_leaves_out_what_has_no_data(make_run: Factory) -> None:
    assert "latency" not in run_figures(make_run(5, objectives="accuracy,size"))
    assert "hypervolume" not in run_figures(make_run(5, with_baseline=False))
    assert run_figures(make_run(0, with_baseline=False, with_controls=False)) == {}
