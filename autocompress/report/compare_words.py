"""A comparison of runs as cells and sentences, for the terminal and for the page; not escaped."""

import re
from typing import Any, Final, Literal

from autocompress.objective import OBJECTIVES
from autocompress.report.compare import BestAtDrop, Comparison, Figure
from autocompress.report.findings import accuracy_change, differs_from_baseline, measured
from autocompress.report.gain_figure import drop_name
from autocompress.report.wording import (
    format_gain,
    format_points,
    format_share,
    format_size,
    shorten,
)
from autocompress.run_record import RunRecord, TrialRecord

Rows = list[list[str]]

FIGURE_NAMES: Final[dict[Figure, str]] = {
    "accuracy": "accuracies",
    "size_at_drop": "sizes at equal loss of accuracy",
    "speedup_at_drop": "speedups at equal loss of accuracy",
    "hypervolume": "hypervolumes",
}
_NONE: Final = "–"
_MAX_CHARS: Final = 60
_N_DIGEST: Final = 10
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


def run_cells(comparison: Comparison) -> tuple[list[str], Rows]:
    """Titles and a row per run: how far it went, its baseline, its hypervolume."""
    titles = ["run", "finished", "on the front", "baseline", "its size", "hypervolume"]
    lengths = {run.n_finished for run in comparison.runs}
    is_uneven = len(lengths) > 1
    titles += [f"after {comparison.n_equal} trials"] if is_uneven else []
    rows = []
    for name, run, volume, equal in zip(
        comparison.names,
        comparison.runs,
        comparison.hypervolumes,
        comparison.equal_hypervolumes,
        strict=True,
    ):
        row = [name, str(run.n_finished), str(len(run.front())), *_baseline(run), _volume(volume)]
        rows.append([*row, _volume(equal)] if is_uneven else row)
    return titles, rows


def drop_cells(comparison: Comparison, cost: Literal["size", "latency"]) -> tuple[list[str], Rows]:
    """Titles and a row per allowed drop: each run's cheapest point, and which is ahead."""
    rows = [
        [drop_name(row.max_drop), *_points(comparison, row), _winner(comparison, row)]
        for row in comparison.at_drops
        if row.cost is OBJECTIVES[cost]
    ]
    return ["loses at most", *comparison.names, "best"], rows


def difference_cells(comparison: Comparison) -> tuple[list[str], Rows]:
    """Titles and a row per thing that is not the same in all runs."""
    rows = [
        [row.topic, row.key, *(_short(value) for value in row.values)]
        for row in comparison.differences
    ]
    return ["topic", "what", *comparison.names], rows


def obstacle_sentences(comparison: Comparison) -> list[str]:
    """What may not be compared, and why; says so, too, if everything may."""
    sentences = [
        f"Not comparable: {FIGURE_NAMES[figure]}, because these differ: {', '.join(why)}."
        if not any(" " in reason for reason in why)
        else f"Not comparable: {FIGURE_NAMES[figure]}: {', '.join(why)}."
        for figure, why in comparison.obstacles.items()
        if why and not _goes_without_saying(comparison, figure)
    ]
    return sentences or ["All figures below are comparable."]


def _goes_without_saying(comparison: Comparison, figure: Figure) -> bool:
    """Speed, where no run has measured any."""
    return figure == "speedup_at_drop" and not any(
        row.cost is OBJECTIVES["latency"] for row in comparison.at_drops
    )


def _baseline(run: RunRecord) -> list[str]:
    if run.baseline is None:
        return [_NONE, _NONE]
    figures = measured(run.baseline)
    return [format_share(figures.accuracy), format_size(figures.size_bytes)]


def _volume(volume: float | None) -> str:
    return _NONE if volume is None else f"{volume:.3f}"


def _points(comparison: Comparison, row: BestAtDrop) -> list[str]:
    return [
        _NONE if trial is None else _point(run, trial, gain, row.cost.name)
        for run, trial, gain in zip(comparison.runs, row.trials, row.gains, strict=True)
    ]


def _point(run: RunRecord, trial: TrialRecord, gain: float | None, cost: str) -> str:
    """Text such as `578 B, 25.4× smaller, −1.00 pt (#13)`; ≈ marks a speedup within the noise."""
    change = accuracy_change(run, trial)
    assert change is not None  # points at a drop have a baseline
    words = [] if gain is None else [format_gain(gain, cost)]
    if cost == "size":
        words = [format_size(measured(trial).size_bytes), *words]
    elif words and not differs_from_baseline(run, trial):
        words = [f"≈ {words[0]}"]
    return f"{', '.join([*words, format_points(change, 2)])} (#{trial.number})"


def _winner(comparison: Comparison, row: BestAtDrop) -> str:
    return _NONE if row.winner is None else comparison.names[row.winner]


def _short(value: Any) -> str:
    """A recorded value in a cell: digests by their first digits, nothing as a dash."""
    if value is None or value in ("", [], {}):
        return _NONE
    if isinstance(value, list | tuple):
        return shorten(", ".join(str(item) for item in value), _MAX_CHARS)
    text = str(value)
    return text[:_N_DIGEST] if _DIGEST.fullmatch(text) else shorten(text, _MAX_CHARS)
