"""Non-dominated sets, hypervolume and knee, in plain numpy.

Everything here minimises; turn a maximised objective around by its sign first.
Dimension key: `N` points, `M` objectives.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def non_dominated(points: Array) -> NDArray[np.bool_]:
    """Mark the points that no other point beats.

    A point is dominated if another is at least as good everywhere and better somewhere. Of equal
    points all are kept.

    Args:
        points: Shape (N, M), smaller is better, finite.

    Returns:
        Mask of shape (N,).
    """
    mask = np.zeros(len(points), dtype=bool)
    left = np.lexsort(points.T[::-1])  # nobody is dominated by one that comes later
    while len(left) > 0:
        first = points[left[0]]
        mask[left] |= (points[left] == first).all(axis=1)
        left = left[(points[left] < first).any(axis=1)]
    return mask


def hypervolume(points: Array, reference: Array) -> float:
    """Volume that the points dominate, up to a reference point.

    Slices the last objective and sums the volumes of the slices (HSO; While et al. 2006).

    Args:
        points: Shape (N, M), smaller is better; points that do not beat `reference` everywhere
            add nothing.
        reference: Shape (M,).

    Returns:
        The volume, in the product of the objectives' units; 0.0 without points.

    >>> hypervolume(np.array([[0.0, 0.0]]), np.array([2.0, 3.0]))
    6.0
    """
    inside = points[(points < reference).all(axis=1)]
    if len(inside) == 0:
        return 0.0
    return _slice_volume(inside[non_dominated(inside)], reference)


def _slice_volume(points: Array, reference: Array) -> float:
    if points.shape[1] == 1:
        return float(reference[0] - points[:, 0].min())
    ordered = points[np.argsort(points[:, -1], kind="stable")]
    ends = np.append(ordered[1:, -1], reference[-1])
    volume = 0.0
    for i, end in enumerate(ends):
        depth = float(end - ordered[i, -1])
        if depth > 0.0:
            slab = ordered[: i + 1, :-1]
            volume += depth * _slice_volume(slab[non_dominated(slab)], reference[:-1])
    return volume


def running_hypervolume(points: Array, reference: Array) -> list[float]:
    """Hypervolume of the first point, of the first two, and so on.

    Each point adds its exclusive volume: the box it spans, less what others already cover of that
    box (WFG; While, Bradstreet & Barone 2012). That is far cheaper than starting over each time.

    Args:
        points: Shape (N, M), smaller is better, in the order in which they were found.
        reference: Shape (M,).

    Returns:
        N volumes, as `hypervolume` gives them; they never fall.
    """
    volumes: list[float] = []
    front = np.empty((0, len(reference)))
    for point in points:
        added = 0.0
        if (point < reference).all() and not (front <= point).all(axis=1).any():
            covered = np.unique(np.maximum(front, point), axis=0)
            added = float(np.prod(reference - point)) - hypervolume(covered, reference)
            front = np.vstack([front[~(point <= front).all(axis=1)], point])
        volumes.append((volumes[-1] if volumes else 0.0) + added)
    return volumes


def knee(points: Array, spans: Array | None = None) -> int:
    """Index of the point with the best trade-off.

    Objectives are scaled to [0, 1] over the given points; the knee is the point closest to the
    ideal corner in Euclidean distance (a compromise solution; Yu 1973).

    Args:
        points: Shape (N, M) with N >= 1, smaller is better.
        spans: Shape (M,): how much of an objective counts as 1; NaN for the range of the points.
    """
    if len(points) == 0:
        msg = "`points` must hold at least one point."
        raise ValueError(msg)
    low, high = points.min(axis=0), points.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    if spans is not None:
        span = np.where(np.isnan(spans), span, spans)
    return int(np.argmin(np.linalg.norm((points - low) / span, axis=1)))
