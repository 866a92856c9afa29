"""Time several graphs in turns, so that whatever slows the machine down slows all of them."""

import dataclasses
import gc
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final

import filelock
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from autocompress.tasks.model_cache import cache_folder

_BLOCK_NS = 2_000_000  # ten thousand times the timer's resolution
_WARM_UP_NS = 30_000_000
_PATIENCE_S = 120.0
_MIN_ROUNDS: Final = 7
_MAX_ROUNDS: Final = 500

Pair = tuple[ort.InferenceSession, Mapping[str, NDArray[np.generic]]]
"""A session, and what it is run on."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Timed:
    """Times of several graphs, taken in turns.

    Attributes:
        blocks_ms: Milliseconds of one inference, a row per round, a column per graph; (R, N).
        n_runs: Inferences in a block of each graph.
    """

    blocks_ms: NDArray[np.float64]
    n_runs: tuple[int, ...]


def time_in_turns(pairs: Sequence[Pair], budget_s: float) -> Timed:
    """Time graphs block by block in turns, for so long, but at least seven rounds.

    A block is as many inferences as take 2 ms. Processes that time at the same time take turns.

    Args:
        pairs: What to time.
        budget_s: Seconds to spend on timed inferences; slow graphs may take longer.
    """
    with _nobody_else_timing(), _no_garbage_collection():
        n_runs = tuple(max(1, math.ceil(_BLOCK_NS / _warm_up(*pair))) for pair in pairs)
        rounds: list[list[float]] = []
        deadline = time.perf_counter_ns() + int(budget_s * 1e9)
        while len(rounds) < _MIN_ROUNDS or (
            time.perf_counter_ns() < deadline and len(rounds) < _MAX_ROUNDS
        ):
            rounds.append(_time_round(pairs, n_runs, first=len(rounds)))
    return Timed(blocks_ms=np.array(rounds) / 1e6, n_runs=n_runs)


def _time_round(pairs: Sequence[Pair], n_runs: Sequence[int], first: int) -> list[float]:
    """A block of each graph; another one begins each time, so that none always comes after it."""
    times = [0.0] * len(pairs)
    for at in range(first, first + len(pairs)):
        which = at % len(pairs)
        times[which] = _time_block(*pairs[which], n_runs[which])
    return times


def median_interval(
    values: NDArray[np.float64], confidence: float = 0.95
) -> tuple[float, float, float]:
    """Median of a sample, and an interval that holds the true one with at least that confidence.

    From order statistics, whatever the distribution: how many of N values lie below the true
    median is binomial (Conover, Practical Nonparametric Statistics, 3.2). With fewer values than
    such an interval needs (six, for 95 %) it is the whole range.

    Args:
        values: (N,), N >= 1.
        confidence: In (0, 1).

    Returns:
        (median, low, high).
    """
    from scipy.stats import binom  # half a second that no search and no worker has to wait for

    ordered = np.sort(values)
    n = len(ordered)
    left_out = max(0, int(binom.ppf((1.0 - confidence) / 2.0, n, 0.5)) - 1)  # on each side
    return float(np.median(ordered)), float(ordered[left_out]), float(ordered[n - 1 - left_out])


def _warm_up(session: ort.InferenceSession, feed: Mapping[str, NDArray[np.generic]]) -> float:
    """Run until caches, allocators and clocks have settled; nanoseconds of a fast inference."""
    fastest, spent = math.inf, 0.0
    while spent < _WARM_UP_NS:
        taken = _time_block(session, feed, 1)
        fastest, spent = min(fastest, taken), spent + taken
    return fastest


def _time_block(
    session: ort.InferenceSession, feed: Mapping[str, NDArray[np.generic]], n_runs: int
) -> float:
    """Nanoseconds of one inference, over a block of them."""
    start = time.perf_counter_ns()
    for _ in range(n_runs):
        session.run(None, feed)
    return (time.perf_counter_ns() - start) / n_runs


@contextmanager
def _nobody_else_timing() -> Iterator[None]:
    """Wait until no other process of this user on this machine is timing anything.

    One that takes very long is stuck and not waited for; nor is a folder where nothing can be
    locked.
    """
    lock = filelock.FileLock(cache_folder() / "timing.lock", timeout=_PATIENCE_S)
    with suppress(OSError, NotImplementedError, filelock.Timeout):
        cache_folder().mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
