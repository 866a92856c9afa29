import dataclasses
from collections.abc import Callable
from pathlib import Path

from autocompress.report.compare import compare_runs
from autocompress.report.compare_page import render_comparison, write_comparison
from autocompress.run_record import RunRecord

Make = Callable[..., RunRecord]


def named(run: RunRecord, name: str, **info: object) -> RunRecord:
    return dataclasses.replace(run, name=name, folder=Path(name), info={**run.info, **info})


def test_page_of_a_comparison_escapes_hostile_names_and_asks_for_nothing(make_run: Make) -> None:
    evil = "<script>alert(1)</script>"
    page = render_comparison(compare_runs([named(make_run(), evil), named(make_run(), "b")]))
    assert evil not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "default-src 'none'" in page
    assert "src=" not in page.replace("src='", "").split("<script>")[0]


def test_page_of_a_comparison_draws_nothing_when_accuracies_are_not_comparable(
    make_run: Make,
) -> None:
    runs = [named(make_run(), "a", metric="F1"), named(make_run(), "b", metric="top-1")]
    page = render_comparison(compare_runs(runs))
    assert "Not drawn: accuracies of these runs are not comparable." in page
    assert "Not comparable: accuracies, because these differ: metric." in page
    assert 'data-figure="fronts' not in page


def test_write_comparison_writes_the_rendered_page(make_run: Make, tmp_path: Path) -> None:
    comparison = compare_runs([named(make_run(), "a"), named(make_run(seed=1), "b", seed=1)])
    write_comparison(comparison, tmp_path / "x" / "compare.html")
    text = (tmp_path / "x" / "compare.html").read_text(encoding="utf-8")
    assert text == render_comparison(comparison)
    assert 'data-figure="fronts-size"' in text
    assert '<th scope="row">seed</th><td>0</td><td>1</td>' in text
