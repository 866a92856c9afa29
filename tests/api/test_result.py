"""What a result offers: the front, choices, figures, exports."""

from pathlib import Path
from typing import Any

import pytest
import torch

import autocompress as ac
from autocompress.api.points import figure_html, points_html
from autocompress.errors import InputError
from autocompress.report.tables import front_table, trials_table
from tests.needs import need_extra


def test_front_is_a_sequence_and_a_table(searched: Any) -> None:
    front = searched.front

    assert [p.trial for p in front] == [t.number for t in searched.run.front()]
    assert front[0].accuracy >= front[-1].accuracy
    assert front[0].size_bytes == front[0].record.measurement.size_bytes
    assert front.to_pandas().equals(front_table(searched.run))
    assert searched.trials.to_pandas().equals(trials_table(searched.run))
    assert len(searched.trials[1:3]) == 2
    assert str(front[0].size_bytes) in repr(front)


def test_best_and_knee_are_what_export_would_take(searched: Any) -> None:
    assert searched.knee.trial == searched.run.knee().number
    best = searched.best(max_drop="100%")
    assert best.size_bytes == min(p.size_bytes for p in searched.front)
    assert best.compression == pytest.approx(searched.baseline.size_bytes / best.size_bytes)
    with pytest.raises(InputError, match="`max_drop` must be a share in"):
        searched.best(max_drop=3.0)
    with pytest.raises(InputError, match="must be below 1 or have a unit, but got '1'"):
        searched.best(max_drop=1)
    with pytest.raises(InputError, match="Unknown cost 'bytes'"):
        searched.best(by="bytes")


def test_plot_draws_what_there_is(searched: Any) -> None:
    assert searched.plot().data
    assert searched.plot("hypervolume").data
    with pytest.raises(InputError, match="Unknown figure 'loss'"):
        searched.plot("loss")


def test_report_is_written_where_it_is_asked_for(searched: Any, tmp_path: Path) -> None:
    assert searched.report(tmp_path / "a.html").read_text().startswith("<!DOCTYPE html>")


def test_export_writes_a_bundle_that_loads(searched: Any, task_module: Any, tmp_path: Path) -> None:
    task = task_module.task()
    bundle = searched.export("smallest", tmp_path / "out")

    assert bundle.folder == tmp_path / "out"
    assert bundle.size_bytes == (tmp_path / "out" / "model.acz").stat().st_size
    assert bundle.compression == pytest.approx(searched.best("100%").compression)
    model = bundle.load(task.model)
    inputs, targets = task.test
    with torch.no_grad():
        right = float((model(inputs).argmax(dim=1) == targets).double().mean())
    assert bundle.accuracy == pytest.approx(right, abs=0.026)  # one of 40, where 8 bits round apart
    assert "model.acz" in bundle._repr_html_()


@pytest.mark.parametrize(
    ("which", "options", "said"),
    [
        ("best", {}, "Unknown point 'best'"),
        (99, {}, "`trial` must be in"),
        (1.5, {}, "`trial` must be a whole number, but got 1.5"),
        ("smallest", {"max_drop": "1"}, "`max_drop` must be below 1 or have a unit"),
        ("smallest", {"max_drop": [1]}, "`max_drop` must be a number, or a text with its unit"),
        ("knee", {"max_drop": 0.1}, "goes with 'smallest' and 'fastest'"),
        ("knee", {"runtimes": "onnx"}, "Unknown runtime 'onnx'"),
    ],
)
def test_export_names_what_cannot_be_exported(
    searched: Any, which: Any, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        searched.export(which, **options)


@pytest.mark.parametrize(
    ("which", "options", "said"),
    [
        (2, {"foo": 1}, "Unknown setting of recipe 'foo'"),
        (2, {"patience": 1.5}, "`patience` must be a whole number, but got 1.5."),
        (2, {"seed": "a"}, "`seed` must be a whole number, but got 'a'."),
        (2, {"minutes": "1h"}, "`minutes` must be a number, but got '1h'."),
        (2, {"minutes": 1, "epochs": 2}, "`minutes` sets the epochs"),
        (2, {"top": -1}, "`top` must be at least 0, but got -1."),
        (2.5, {}, "`trial` must be a whole number, but got 2.5."),
    ],
)
def test_refine_names_what_cannot_be_used(
    searched: Any, which: Any, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError) as caught:
        searched.refine(which, quiet=True, **options)
    assert said in caught.value.message


def test_open_run_gives_the_same_result(searched: Any, tmp_path: Path) -> None:
    opened = ac.open_run(str(searched.folder))

    assert repr(opened) == repr(searched)
    assert opened.front.to_pandas().equals(searched.front.to_pandas())
    with pytest.raises(ac.AutocompressError, match=r"holds no study\.db"):
        ac.open_run(tmp_path)


def test_result_shows_table_and_figure_in_a_notebook(
    searched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_extra("notebook")
    import plotly.io

    monkeypatch.setattr(plotly.io.renderers, "default", "notebook_connected")
    shown = searched._repr_mimebundle_()

    assert shown["text/plain"] == repr(searched)
    assert shown["text/html"].count("<table>") == 1
    assert shown["text/html"].count("<tr>") == 1 + len(searched.front)
    assert "plotly" in shown["text/html"]
    monkeypatch.setattr(plotly.io.renderers, "default", "plotly_mimetype")
    assert figure_html(searched.plot()) == ""


def test_points_html_takes_nothing_for_markup(searched: Any) -> None:
    table = searched.front.to_pandas()[["trial", "label", "latency_ms"]]
    table.loc[0, "label"] = "<script>"
    table.loc[0, "latency_ms"] = float("nan")

    shown = points_html(table)

    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert "<td>-</td>" in shown
