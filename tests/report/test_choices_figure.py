from collections.abc import Callable

from autocompress.report.choices_figure import choices_figure
from autocompress.report.findings import measured
from autocompress.run_record import RunRecord

Factory = Callable[..., RunRecord]


def test_choices_figure_has_a_column_per_compressed_member_sorted_by_size(
    make_run: Factory,
) -> None:
    run = make_run(20)
    members = [t for t in run.front() if t.role != "baseline"]
    sizes = {t.number: measured(t).size_bytes for t in members}
    numbers = [int(name.split()[0].removeprefix("#")) for name in choices_figure(run).data[0].x]
    assert sorted(numbers) == sorted(sizes)
    assert [sizes[n] for n in numbers] == sorted(sizes.values())


def test_choices_figure_shades_a_level_by_its_place(make_run: Factory) -> None:
    run = make_run(20)
    heat = choices_figure(run).data[0]
    levels = {f"#{t.number}": t.levels for t in run.front()}
    titles = {"weight_bits": "weight bits", "pruning_ratio": "channels removed"}
    for knob in run.knobs:
        if knob.kind not in titles:
            continue
        row = list(heat.y).index(f"{titles[knob.kind]}: {knob.label}")
        for column, name in enumerate(heat.x):
            chosen = levels[name.split()[0]][knob.name]
            assert heat.z[row][column] == chosen / (len(knob.levels) - 1)


def test_choices_figure_counts_knobs_nobody_touched(make_run: Factory) -> None:
    figure = choices_figure(make_run(0))
    rows = [y for y in figure.data[0].y if ": " in y]
    assert not any(row.startswith("rank kept") for row in rows)
    assert "2 of 31 knobs" in figure.layout.title.subtitle.text


def test_choices_figure_keeps_rows_apart_when_their_short_names_are_equal(
    make_run: Factory,
) -> None:
    layers = tuple(f"{'a' * 40}{i}{'b' * 40}" for i in range(6))
    heat = choices_figure(make_run(10, layers=layers)).data[0]
    assert len(set(heat.y)) == len(heat.y) == len(heat.z)


def test_choices_figure_says_why_it_is_empty(make_run: Factory) -> None:
    figure = choices_figure(make_run(0, with_controls=False))
    assert not figure.data
    assert "No compressed point" in figure.layout.annotations[0].text
