"""Time several models in turns, so that whatever slows the machine down slows all of them."""

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, Protocol

import filelock
import numpy as np
from numpy.typing import NDArray

from autocompress.tasks.model_cache import cache_folder

_BLOCK_NS = 4_000_000  # many inferences of a small model: the first few find caches empty
_WARM_UP_NS = 30_000_000
_PATIENCE_S = 120.0
_MIN_ROUNDS: Final = 7
_MAX_ROUNDS: Final = 500


class Timeable(Protocol):
    """Something that can be timed, such as `process.RunningModel`."""

    def time_block(self, n_runs: int) -> float:
        """Nanoseconds of one inference, in a block of so many."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Timed:
    """Times of several models, taken in turns.

    Attributes:
        blocks_ms: Milliseconds of one inference, a row per round, a column per model; (R, N).
        n_runs: Inferences in a block of each model.
    """

    blocks_ms: NDArray[np.float64]
    n_runs: tuple[int, ...]


def time_in_turns(
    models: Sequence[Timeable], budget_s: float, *, least_rounds: int = _MIN_ROUNDS
) -> Timed:
    """Time models block by block in turns, for so long, but at least some rounds.

    A block is as many inferences as take 4 ms. Processes that time at the same time take turns.

    Args:
        models: What to time.
        budget_s: Seconds to spend on timed inferences; slow models may take longer.
        least_rounds: Blocks of each model at least.
    """
    with _nobody_else_timing():
        n_runs = tuple(max(1, math.ceil(_BLOCK_NS / _warm_up(model))) for model in models)
        rounds: list[list[float]] = []
        deadline = time.perf_counter_ns() + int(budget_s * 1e9)
        while len(rounds) < least_rounds or (
            time.perf_counter_ns() < deadline and len(rounds) < _MAX_ROUNDS
        ):
            rounds.append(_time_round(models, n_runs, first=len(rounds)))
    return Timed(blocks_ms=np.array(rounds) / 1e6, n_runs=n_runs)


def _time_round(models: Sequence[Timeable], n_runs: Sequence[int], first: int) -> list[float]:
    """A block of each model; another one begins each time, so that none always comes after it."""
    times = [0.0] * len(models)
    for at in range(first, first + len(models)):
        which = at % len(models)
        times[which] = models[which].time_block(n_runs[which])
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
    ordered = np.sort(values)
    n = len(ordered)
    left_out, n_below = 0, 1  # on each side; how many of 2^n outcomes have no more values below
    while (n_below + math.comb(n, left_out + 1)) / 2**n < (1.0 - confidence) / 2.0:
        left_out += 1
        n_below += math.comb(n, left_out)
    return float(np.median(ordered)), float(ordered[left_out]), float(ordered[n - 1 - left_out])


def _warm_up(model: Timeable) -> float:
    """Run until caches, allocators and clocks have settled; nanoseconds of a fast inference."""
    fastest, start = math.inf, time.perf_counter_ns()
    while time.perf_counter_ns() - start < _WARM_UP_NS:
        fastest = min(fastest, model.time_block(1))
    return max(fastest, 1.0)


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
