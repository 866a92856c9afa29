"""The figures of a run as picture files, drawn by kaleido in a Chromium that is there already."""

import asyncio
import importlib
import os
import shutil
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import plotly.graph_objects as go

from autocompress.atomic_file import write_atomically
from autocompress.errors import InputError, first_line
from autocompress.report.choices_figure import choices_figure
from autocompress.report.cube_figure import cube_figure, has_two_costs
from autocompress.report.findings import cost_of
from autocompress.report.front_figure import front_figure
from autocompress.report.gain_figure import gain_figure, hypervolume_figure
from autocompress.report.importance_figure import importance_figure, importances
from autocompress.report.search_gain import search_gain
from autocompress.report.sensitivity_figure import sensitivity_figure
from autocompress.report.tables import hypervolume_history
from autocompress.run_record import RunRecord

__all__ = ["choices_figure", "front_figure", "hypervolume_figure", "run_figures"]


def run_figures(run: RunRecord, *, has_texts: bool = True) -> dict[str, go.Figure]:
    """Every picture this run has data for, by name.

    They are a front for every cost, such as `size`, `cube` (with two costs), `hypervolume`,
    `choices`, `sensitivity` (with a sensitivity table) and `importance` (with enough trials). A
    cost that no finished trial has measured gets no picture; a run without any finished trial has
    none.

    Args:
        run: Any state of a run.
        has_texts: Whether points carry what a pointer over them shows; the page does without.
    """
    figures: dict[str, go.Figure] = {}
    for cost in run.shown_costs:
        if any(cost_of(t, cost) is not None for t in run.complete):
            figures[cost.name] = front_figure(run, cost.name, has_texts=has_texts)
    if has_two_costs(run):
        figures["cube"] = cube_figure(run, has_texts=has_texts)
    if len(hypervolume_history(run)) > 1:
        figures["hypervolume"] = hypervolume_figure(run)
    if any(trial.role != "baseline" for trial in run.front()):
        figures["choices"] = choices_figure(run)
    if run.complete and run.options is not None and any(o.figures for o in run.options.options):
        figures["sensitivity"] = sensitivity_figure(run)
    if found := importances(run):
        figures["importance"] = importance_figure(found)
    return figures


Format = Literal["png", "svg"]

_WIDTH_PX: Final = 1000
# The report scales its heat maps the same way: a cell must stay wide enough to tell apart.
_CELL_PX: Final = 30
_LABELS_PX: Final = 190
# Of a bold letter of 19 px in the figures' font, on average; and a line of it.
_TITLE_CHAR_PX: Final = 10.0
_TITLE_LINE_PX: Final = 24
# For slides and screens of two pixels per point.
_PNG_SCALE: Final = 2
_TIMEOUT_S: Final = 90.0
# What a still picture cannot do.
_ONLY_ON_SCREEN: Final = ("; double-click shows all", "Drag to turn it, scroll to come closer")


def all_figures(run: RunRecord, repeats: Sequence[RunRecord] = ()) -> dict[str, go.Figure]:
    """Every picture of a run by name: those of `run_figures`, and `gain_size` for a cost `size`.

    Args:
        run: The run.
        repeats: The same run with other seeds, for error bars.
    """
    figures = run_figures(run)
    gain = search_gain(run, repeats)
    for row in () if gain is None else gain.at_drops:
        name = f"gain_{row.cost.name}"
        if name not in figures and gain is not None:
            rows = [r for r in gain.at_drops if r.cost == row.cost]
            figures[name] = gain_figure(rows, gain.seeds)
    return figures


def write_pictures(figures: Mapping[str, go.Figure], folder: Path, kind: Format) -> list[Path]:
    """Write each figure as a file named after it.

    Nothing is fetched: plotly's script is that of the package, and mathematics is not typeset.

    Args:
        figures: Name -> figure; not modified.
        folder: Made if needed.
        kind: `png` (2,000 pixels wide and more) or `svg`.

    Returns:
        The files, in the order of `figures`.

    Raises:
        InputError: If kaleido or a Chromium is missing or fails, or a file cannot be written.
    """
    try:
        kaleido = importlib.import_module("kaleido")
        errors = importlib.import_module("kaleido.errors")
    except ImportError as error:
        raise InputError(
            f"Pictures need the package kaleido, which cannot be imported: {first_line(error)}.",
            "Install it: pip install 'autocompress[figures]'",
        ) from error
    try:
        # Chromium keeps a profile while it runs; one of its own, so that no other is disturbed.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            drawn = asyncio.run(_draw(kaleido.Kaleido, figures, kind, Path(profile)))
    except errors.ChromeNotFoundError as error:
        raise _no_browser() from error
    except (
        *(errors.BrowserClosedError, errors.BrowserFailedError),
        *(errors.JavascriptError, errors.KaleidoError, OSError, TimeoutError),
    ) as error:
        why = str(next(iter(error.args), type(error).__name__)).rstrip(".")
        raise InputError(
            f"The browser {_browser()} must draw the pictures, but: {why}.",
            "Try it by itself: chromium --headless --dump-dom about:blank. Another one is taken "
            "from the environment variable BROWSER_PATH.",
        ) from error
    paths = [folder / f"{name}.{kind}" for name in figures]
    for path, content in zip(paths, drawn, strict=True):
        write_atomically(path, content)
    return paths


async def _draw(
    kaleido: Any, figures: Mapping[str, go.Figure], kind: Format, profile: Path
) -> list[bytes]:
    """All figures in one browser, one after the other."""
    async with kaleido(n=1, timeout=_TIMEOUT_S, mathjax=False, tmp_dir=profile) as browser:
        return [
            await browser.calc_fig(*_prepared(name, figure, kind))
            for name, figure in figures.items()
        ]


def _prepared(name: str, figure: go.Figure, kind: Format) -> tuple[go.Figure, dict[str, Any]]:
    """A copy whose title fits, and the picture's size."""
    width = _WIDTH_PX
    if name == "choices" and figure.data:
        width = max(width, _LABELS_PX + _CELL_PX * len(figure.data[0].z[0]))
    copy = go.Figure(figure)
    title = str(copy.layout.title.text or "")
    lines = textwrap.wrap(title, int(width / _TITLE_CHAR_PX), break_long_words=False) or [""]
    more_px = _TITLE_LINE_PX * (len(lines) - 1)
    height = (copy.layout.height or 520) + more_px
    top = (copy.layout.margin.t or 84) + more_px
    subtitle = str(copy.layout.title.subtitle.text or "")
    for words in _ONLY_ON_SCREEN:
        subtitle = subtitle.removesuffix(words)
    copy.update_layout(
        title={"text": "<br>".join(lines), "subtitle_text": subtitle}, height=height, margin_t=top
    )
    scale = _PNG_SCALE if kind == "png" else 1
    return copy, {"format": kind, "width": width, "height": height, "scale": scale}


def _no_browser() -> InputError:
    named = os.environ.get("BROWSER_PATH")
    if named:
        return InputError(
            f"BROWSER_PATH must name a Chromium or Chrome, but {named!r} is no program.",
            "Correct the environment variable, or unset it to have one looked for.",
        )
    return InputError(
        "Pictures need a Chromium or Chrome, but none was found.",
        "Install one (on Debian: apt install chromium), or name its program in the environment "
        "variable BROWSER_PATH.",
    )


def _browser() -> str:
    """What will have been started, for a message."""
    found = (shutil.which(name) for name in ("chrome", "google-chrome", "chromium"))
    return os.environ.get("BROWSER_PATH") or next((path for path in found if path), "Chromium")
