"""Hypervolume against trials and against time, as a picture for the docs."""

import json
from collections import defaultdict
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from published import PICTURE_STYLE

_COLOURS = {
    "ours": "#d1495b",
    "ours without table": "#edae49",
    "gp": "#00798c",
    "tpe-default": "#30638e",
    "tpe-multivariate": "#7b9acc",
    "nsga2": "#6a994e",
    "random": "#8d99ae",
}
_NAMES = {
    "ours": "autocompress",
    "ours without table": "autocompress without its table",
    "gp": "Optuna GPSampler",
    "tpe-default": "Optuna TPE",
    "tpe-multivariate": "Optuna TPE, multivariate",
    "nsga2": "Optuna NSGA-II",
    "random": "random",
}

_BOTTOM = 0.5  # of the highest: nobody asks about the first trials
_N_TIMES = 100


def write_figure(folders: dict[str, Path], path: Path) -> None:
    """One row per net: mean over repeats, lowest to highest shaded.

    Args:
        folders: Name of a net -> folder of its searches.
        path: Where to write; an SVG without dates and random names, so that equal figures are
            equal files.
    """
    mpl.rcParams.update(PICTURE_STYLE)
    figure = Figure(figsize=(9.0, 3.4 * len(folders)), layout="constrained")
    rows = figure.subplots(len(folders), 2, squeeze=False)
    for (net, folder), (by_trial, by_time) in zip(folders.items(), rows, strict=True):
        searches = _read(folder)
        for name in (name for name in _COLOURS if name in searches):
            _draw(by_trial, by_time, name, searches[name])
        fewest, most = (of(map(len, searches.values())) for of in (min, max))
        n_seeds = f"{fewest} seeds" if fewest == most else f"{fewest} to {most} seeds"
        by_trial.set_title(f"{net}, {n_seeds}", loc="left")
        by_trial.set_xlabel("trials")
        by_trial.set_ylabel("hypervolume, halvings of the file")
        by_time.set_xlabel("CPU seconds, sensitivity table included")
        for axes in (by_trial, by_time):
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_ylim(bottom=_BOTTOM * axes.get_ylim()[1])
    handles, labels = rows[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, metadata={"Date": None})


def _read(folder: Path) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Config -> for each repeat seconds and hypervolumes after each trial."""
    searches = defaultdict(list)
    for path in sorted(folder.glob("*.json")):
        search = json.loads(path.read_text())
        seconds = np.array([row["seconds"] for row in search["rows"]])
        volumes = np.array([row["volume"] for row in search["rows"]])
        searches[search["config"]].append((seconds, volumes))
    return dict(searches)


def _draw(
    by_trial: Axes, by_time: Axes, name: str, repeats: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    style = {"color": _COLOURS[name], "lw": 2.2 if name == "ours" else 1.3}
    n_trials = min(len(volumes) for _, volumes in repeats)
    trials = np.arange(1, n_trials + 1)
    _curve(by_trial, trials, [v[:n_trials] for _, v in repeats], _NAMES[name], style)
    ends = min(seconds[-1] for seconds, _ in repeats)
    starts = max(seconds[0] for seconds, _ in repeats)
    times = np.linspace(starts, ends, _N_TIMES)
    after = [v[np.searchsorted(s, times, side="right") - 1] for s, v in repeats]
    _curve(by_time, times, after, _NAMES[name], style)


def _curve(
    axes: Axes, x: np.ndarray, curves: list[np.ndarray], name: str, style: dict[str, object]
) -> None:
    values = np.array(curves)
    axes.plot(x, values.mean(axis=0), label=name, **style)
    if len(values) > 1:
        low, high = values.min(axis=0), values.max(axis=0)
        axes.fill_between(x, low, high, color=style["color"], alpha=0.12, lw=0)
