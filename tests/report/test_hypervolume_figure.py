from collections.abc import Callable

import pytest

from autocompress.report.hypervolume_figure import hypervolume_figure
from autocompress.report.tables import controls_hypervolume, hypervolume_history
from autocompress.run_record import RunRecord

Factory = Callable[..., RunRecord]


def test_hypervolume_figure_draws_history_and_the_controls_line(make_run: Factory) -> None:
    run = make_run(12)
    progress, controls = hypervolume_figure(run).data
    assert progress.y == pytest.approx(100 * hypervolume_history(run)["hypervolume"])
    alone = controls_hypervolume(run)
    assert alone is not None
    assert controls.y == pytest.approx([100 * alone] * 2)


def test_hypervolume_figure_has_no_controls_line_without_controls(make_run: Factory) -> None:
    assert len(hypervolume_figure(make_run(5, with_controls=False)).data) == 1


def test_hypervolume_figure_says_why_it_is_empty_without_a_baseline(make_run: Factory) -> None:
    figure = hypervolume_figure(make_run(5, with_baseline=False))
    assert not figure.data
    assert "baseline" in figure.layout.annotations[0].text
