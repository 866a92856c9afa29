"""Timings of this machine, kept so that equal structures get equal figures."""

import dataclasses
import json
import logging
import math
from pathlib import Path

from autocompress.tasks.model_cache import cache_folder

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Time of one inference in milliseconds.

    Attributes:
        median_ms: Median over blocks of inferences.
        spread_ms: Interquartile range over those blocks.
        baseline_median_ms: The baseline's median, its blocks taken between the candidate's.
        ratio: Candidate over baseline: the median over pairs of neighbouring blocks. What drifts
            for longer than a block cancels out, so this compares across measurements where
            milliseconds do not.
        ratio_low: Lower end of the 95 % confidence interval of that median.
        ratio_high: Upper end.
        n_runs: Inferences of the candidate that were timed.
        peak_memory_bytes: Most memory that loading and running the candidate took, beyond the
            runtime's own; None where the system does not tell.
    """

    median_ms: float
    spread_ms: float
    baseline_median_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    n_runs: int
    peak_memory_bytes: int | None

    @property
    def low_ms(self) -> float:
        """Lower end of the interval, on the scale of the baseline's median."""
        return self.ratio_low * self.baseline_median_ms

    @property
    def high_ms(self) -> float:
        """Upper end."""
        return self.ratio_high * self.baseline_median_ms


class LatencyCache:
    """Timings on this machine by graph structure, so that equal structures get equal figures.

    A file of JSON lines that is only appended to. Of several entries for a key the first counts, so
    processes that measure the same at the same time agree afterwards. Damaged lines are skipped; a
    file that cannot be read or written is a cache that holds nothing.

    Args:
        path: The file; None for `latency.jsonl` in the folder that the environment variable
            AUTOCOMPRESS_CACHE names, or in the user's cache folder. It is created when needed.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = cache_folder() / "latency.jsonl" if path is None else path

    def get(self, key: str) -> Latency | None:
        """The first whole entry for `key`, or None."""
        try:
            lines = self.path.read_bytes().splitlines()
        except OSError:
            return None
        found = (_parse(line, key) for line in lines if key.encode() in line)
        return next((latency for latency in found if latency is not None), None)

    def put(self, key: str, latency: Latency) -> Latency:
        """Add an entry, and return the one that counts from now on."""
        text = json.dumps({"key": key, **dataclasses.asdict(latency)})
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                file.write(f"\n{text}\n".encode())  # one write; the first break ends a torn line
        except OSError as error:
            logger.warning("The latency cache %s cannot be written: %s", self.path, error)
        return self.get(key) or latency


def _parse(line: bytes, key: str) -> Latency | None:
    try:
        entry = json.loads(line)
        if entry.pop("key") != key:
            return None
        latency = Latency(**entry)
        figures = (
            *(latency.median_ms, latency.spread_ms, latency.baseline_median_ms),
            *(latency.ratio, latency.ratio_low, latency.ratio_high),
        )
        is_sound = all(math.isfinite(x) and x >= 0.0 for x in figures) and latency.median_ms > 0.0
        return latency if is_sound and latency.n_runs > 0 else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
