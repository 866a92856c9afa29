import math
from collections.abc import Callable

import pytest

from autocompress.report.sensitivity_figure import option_rows, sensitivity_figure
from autocompress.run_record import RunRecord

Factory = Callable[..., RunRecord]
Change = Callable[[RunRecord], RunRecord]


def test_sensitivity_figure_shades_by_the_log_of_the_divergence(
    make_run: Factory, add_options: Change
) -> None:
    run = add_options(make_run(2))
    cells = sensitivity_figure(run).data[0]
    rows = dict(zip(cells.y, cells.z, strict=True))
    assert run.options is not None
    n_checked = 0
    for option in run.options.options:
        kind, label = option.knob.split(":", 1)
        if kind == "weight_bits":
            assert option.figures is not None
            expected = math.log10(option.figures.divergence)
            assert rows[f"weight bits: {label}"][option.level - 1] == pytest.approx(expected)
            n_checked += 1
    assert n_checked > 50


def test_sensitivity_figure_names_what_hurts_most(make_run: Factory, add_options: Change) -> None:
    title = sensitivity_figure(add_options(make_run(2))).layout.title.text
    assert "nothing hurts more than weight bits of conv1, 2 bit" in title


def test_sensitivity_figure_shows_the_reason_of_what_failed_and_escapes_it(
    make_run: Factory, add_options: Change
) -> None:
    run = add_options(make_run(2))
    text = str(sensitivity_figure(run).to_dict())
    assert "no kernel for &lt;b&gt;this&lt;/b&gt;" in text
    assert option_rows(run)[-1][3] == "no kernel for <b>this</b>"


def test_option_rows_compare_costs_with_the_context(make_run: Factory, add_options: Change) -> None:
    run = add_options(make_run(2, layers=("a", "b", "c")))
    row = next(r for r in option_rows(run) if r[:2] == ("weight bits: a", "8 bit"))
    # 9000 + 3 layers of 8000 bytes, of which one is halved, and a tenth off the time
    assert run.options is not None
    before = run.options.baseline.size_bytes
    assert before is not None
    assert row[3] == f"{before / (before - 4000):.2f}× smaller"
    assert row[4] == "1.11× faster"


def test_sensitivity_figure_says_so_when_no_option_was_measured(make_run: Factory) -> None:
    assert (
        "has not measured its options" in sensitivity_figure(make_run(2)).layout.annotations[0].text
    )
    assert option_rows(make_run(2)) == []
