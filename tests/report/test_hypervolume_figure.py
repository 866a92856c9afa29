from collections.abc import Callable

from autocompress.report.gain_figure import hypervolume_figure
from autocompress.report.tables import controls_hypervolume, hypervolume_history
from autocompress.run_record import RunRecord

Factory = Callable[..., RunRecord]


def test_hypervolume_figure_draws_history_and_the_controls_line(make_run: Factory) -> None:
    run = make_run(12)
    figure = hypervolume_figure(run)
    progress, controls = figure.data
    volumes = hypervolume_history(run)["hypervolume"].tolist()
    assert list(progress.y) == volumes
    alone = controls_hypervolume(run)
    assert alone is not None
    assert list(controls.y) == [alone] * 2
    title = f"The hypervolume is {volumes[-1]:.2f}, that of the controls alone {alone:.2f}"
    assert title in figure.layout.title.text
    assert figure.layout.yaxis.title.text == "hypervolume"


def test_hypervolume_figure_says_what_each_trial_added(make_run: Factory) -> None:
    run = make_run(12)
    volumes = hypervolume_history(run)["hypervolume"].tolist()
    texts = hypervolume_figure(run).data[0].hovertext
    for text, before, after in zip(texts, [0.0, *volumes], volumes, strict=False):
        assert text.endswith(f"{after:.3f} ({after - before:+.3f})")


def test_hypervolume_figure_has_no_controls_line_without_controls(make_run: Factory) -> None:
    assert len(hypervolume_figure(make_run(5, with_controls=False)).data) == 1


def test_hypervolume_figure_says_why_it_is_empty_without_a_baseline(make_run: Factory) -> None:
    figure = hypervolume_figure(make_run(5, with_baseline=False))
    assert not figure.data
    assert "baseline" in figure.layout.annotations[0].text
