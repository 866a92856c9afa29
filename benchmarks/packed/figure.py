"""Accuracy against bytes of every point that was trained, as a picture for the docs."""

from collections import defaultdict
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from published import PICTURE_STYLE

_COLOURS = {True: "#d1495b", False: "#30638e"}
_NAMES = {True: "a rate penalty", False: "uniform bits (controls)"}
_ALLOWED_DROP = 0.003  # of the target
_FEW_EPOCHS = 10


def write_figure(rows: list[dict[str, str]], path: Path) -> None:
    """One picture per net: points of equal recipes are joined.

    Args:
        rows: The published table.
        path: Where to write; an SVG without dates and random names, so that equal figures are
            equal files.
    """
    mpl.rcParams.update(PICTURE_STYLE)
    nets = sorted({row["net"] for row in rows})
    figure = Figure(figsize=(6.5 * len(nets), 4.2), layout="constrained")
    for net, axes in zip(nets, figure.subplots(1, len(nets), squeeze=False)[0], strict=True):
        _draw_net(axes, net, [row for row in rows if row["net"] == net])
    figure.savefig(path, metadata={"Date": None})


def _draw_net(axes: Axes, net: str, rows: list[dict[str, str]]) -> None:
    untouched = next(row for row in rows if row["point"] == "untouched")
    base = 100.0 * float(untouched["held_out_accuracy"])
    axes.axhline(base, color="#555555", lw=1.0)
    axes.axhline(base - 100.0 * _ALLOWED_DROP, color="#555555", lw=0.8, ls=":")
    axes.text(1.0, base, "untouched", ha="right", va="bottom", transform=axes.get_yaxis_transform())
    curves = defaultdict(list)
    for row in rows:
        if row is untouched:
            continue
        price, entropy = float(row["price"]), float(row["entropy"])
        key = (price > 0.0, int(row["n_epochs"]), row["teacher"], entropy)
        point = (int(row["size_bytes"]) / 1e3, 100.0 * float(row["held_out_accuracy"]), row)
        curves[key].append(point)
    for (has_rate_penalty, n_epochs, teacher, entropy), curve in sorted(curves.items()):
        sizes, accuracies, _ = zip(*sorted(curve, key=lambda p: p[0]), strict=True)
        label = f"{_NAMES[has_rate_penalty]}, {n_epochs} epochs"
        label += "" if teacher == net else f", learned from {teacher.split('-')[-1]}"
        label += f", entropy penalty {entropy:g}" if entropy > 0.0 else ", no entropy penalty"
        axes.plot(
            sizes,
            accuracies,
            _marker(net, teacher, n_epochs),
            color=_COLOURS[has_rate_penalty],
            mfc=_COLOURS[has_rate_penalty] if entropy > 0.0 else "white",
            lw=1.2,
            label=label,
        )
        for size, accuracy, point in curve:
            text = point["point"].split(",")[0].removeprefix("uniform ").removeprefix("price ")
            axes.annotate(text, (size, accuracy), (4, -10), textcoords="offset points", size=7)
    left = axes.get_yaxis_transform()
    target = base - 100.0 * _ALLOWED_DROP
    axes.text(1.0, target, "0.3 points below", ha="right", va="bottom", transform=left)
    axes.set_xscale("log")
    axes.set_xticks(ticks := [40, 50, 60, 80, 100, 150, 200, 300], [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_title(net, loc="left")
    axes.set_xlabel("packed file in kB")
    axes.set_ylabel("accuracy on the 10,000 in %, int8 ONNX")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="best")


def _marker(net: str, teacher: str, n_epochs: int) -> str:
    if teacher != net:
        return "D-"
    return "o-" if n_epochs <= _FEW_EPOCHS else "s-"
