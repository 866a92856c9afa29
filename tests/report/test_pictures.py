import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from autocompress.errors import InputError
from autocompress.report.pictures import all_figures, run_figures, write_pictures
from autocompress.report.theme import new_figure
from autocompress.run_record import RunRecord
from tests.needs import need_extra, need_program


@pytest.fixture
def kaleido() -> None:
    need_extra("figures")


@pytest.fixture
def chromium() -> str:
    return need_program("chromium")


@pytest.fixture
def figure() -> go.Figure:
    figure = new_figure(
        "A finding " * 30, "2 trials below 81 % are out of view; double-click shows all"
    )
    return figure.add_scatter(x=[1, 2], y=[3, 4])


def test_all_figures_holds_what_the_page_draws_and_the_search_gain(
    make_run: Callable[..., RunRecord],
) -> None:
    run = make_run()
    gains = ["gain_size", "gain_latency"]
    assert list(all_figures(run)) == [*run_figures(run), *gains]
    assert "gain_latency" not in all_figures(make_run(objectives="accuracy,size"))


@pytest.mark.usefixtures("kaleido", "chromium")
def test_write_pictures_writes_files_of_the_right_kind_whose_titles_fit(
    figure: go.Figure, tmp_path: Path
) -> None:
    (svg,) = write_pictures({"a": figure}, tmp_path / "x", "svg")
    assert svg == tmp_path / "x" / "a.svg"
    text = svg.read_text(encoding="utf-8")
    assert text.startswith("<svg")
    assert "2 trials below 81 % are out of view" in text
    assert "double-click" not in text
    assert text.count("A finding A finding") >= 3  # broken into lines
    assert "<br>" not in str(figure.layout.title.text)


@pytest.mark.usefixtures("kaleido")
def test_write_pictures_says_what_to_install_when_there_is_no_browser(
    figure: go.Figure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kaleido import Kaleido
    from kaleido.errors import ChromeNotFoundError

    def refuse(self: Any, *arguments: Any, **options: Any) -> None:
        raise ChromeNotFoundError

    monkeypatch.setattr(Kaleido, "__init__", refuse)
    monkeypatch.delenv("BROWSER_PATH", raising=False)
    with pytest.raises(InputError, match="Chromium or Chrome, but none was found") as caught:
        write_pictures({"a": figure}, tmp_path, "png")
    assert "apt install chromium" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("kaleido")
def test_write_pictures_says_that_the_browser_named_is_none(
    figure: go.Figure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_PATH", "/no/such/browser")
    with pytest.raises(InputError, match="'/no/such/browser' is no program"):
        write_pictures({"a": figure}, tmp_path, "png")


def test_write_pictures_says_what_to_install_without_kaleido(
    figure: go.Figure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(InputError, match="package kaleido") as caught:
        write_pictures({"a": figure}, tmp_path, "png")
    assert caught.value.hint == "Install it: pip install 'autocompress[figures]'"
