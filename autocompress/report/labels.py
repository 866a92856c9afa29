"""Where to write the name of a point, so that it covers neither another name nor a point."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

# A common width of the plotting area; on a narrower screen names are switched off altogether.
_AREA_PX: Final = (820.0, 380.0)
_CHAR_PX: Final = 6.4
_LINE_PX: Final = 15.0
_GAP_PX: Final = 6.0
_POINT_PX: Final = 5.0

# Plotly's textposition -> direction of the box seen from its point. Cheaper and more accurate lies
# up and left, where the front is; so names go down and right first.
_DIRECTIONS: Final = {
    "bottom right": (1, -1),
    "middle right": (1, 0),
    "bottom center": (0, -1),
    "top right": (1, 1),
    "bottom left": (-1, -1),
    "middle left": (-1, 0),
    "top center": (0, 1),
    "top left": (-1, 1),
}
Box = tuple[float, float, float, float]


def place_labels(
    labels: Sequence[str],
    anchors: Sequence[tuple[float, float]],
    obstacles: Sequence[tuple[float, float]],
) -> list[str | None]:
    """Choose a side for each label, greedily in the order given.

    Args:
        labels: Texts.
        anchors: Their points, both coordinates in [0, 1] of the plotting area, y upwards.
        obstacles: Points that no label may cover; may hold the anchors.

    Returns:
        Plotly's `textposition` per label; None where every side is taken.
    """
    width_px, height_px = _AREA_PX
    taken: list[Box] = [
        (x * width_px - _POINT_PX, y * height_px - _POINT_PX,
         x * width_px + _POINT_PX, y * height_px + _POINT_PX)
        for x, y in obstacles
    ]  # fmt: skip
    places: list[str | None] = []
    for label, (x, y) in zip(labels, anchors, strict=True):
        place = None
        for position, direction in _DIRECTIONS.items():
            box = _box(label, x * width_px, y * height_px, direction)
            if _is_inside(box) and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                place = position
                break
        places.append(place)
    return places


def along_steps(corners: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points along a step line (right, then up), close enough that no label fits between them.

    Args:
        corners: Points of the line from left to right, coordinates in [0, 1].
    """
    points: list[tuple[float, float]] = []
    for (x0, y0), (x1, y1) in pairwise(corners):
        n_right = math.ceil((x1 - x0) * _AREA_PX[0] / _LINE_PX)
        n_up = math.ceil((y1 - y0) * _AREA_PX[1] / _LINE_PX)
        points += [(x0 + (x1 - x0) * i / n_right, y0) for i in range(n_right)]
        points += [(x1, y0 + (y1 - y0) * i / n_up) for i in range(n_up)]
    return points


def _box(label: str, x: float, y: float, direction: tuple[int, int]) -> Box:
    width, height = _CHAR_PX * len(label), _LINE_PX
    left = x - width / 2 + direction[0] * (width / 2 + _GAP_PX)
    bottom = y - height / 2 + direction[1] * (height / 2 + _GAP_PX)
    return left, bottom, left + width, bottom + height


def _is_inside(box: Box) -> bool:
    return box[0] >= 0 and box[1] >= 0 and box[2] <= _AREA_PX[0] and box[3] <= _AREA_PX[1]


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
