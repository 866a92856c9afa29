"""Figures of plans on this machine, kept so that no plan is looked at twice."""

import dataclasses
import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from autocompress.plan import CompressionPlan
from autocompress.space.option_table import Figures
from autocompress.tasks.model_cache import cache_folder

ProbePlan = Callable[[CompressionPlan], Figures]

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KnownFigures:
    """Figures of a plan that was looked at.

    Attributes:
        figures: What was measured.
        seconds: Wall time that took.
    """

    figures: Figures
    seconds: float


class OptionCache:
    """Figures by plan, for one way of measuring them.

    A file of JSON lines that is only appended to: a measurement that is killed goes on where it
    was. Of several entries for a plan the first counts. Damaged and torn lines are skipped; a file
    that cannot be read or written is a cache that lasts as long as this object.

    Args:
        key: What the figures depend on besides the plan, see `sensitivity.options_key`.
        path: The file; None for `options.jsonl` in the folder that the environment variable
            AUTOCOMPRESS_CACHE names, or in the user's cache folder. It is created when needed.
    """

    def __init__(self, key: str, path: Path | None = None) -> None:
        self.path = cache_folder() / "options.jsonl" if path is None else path
        self._key = key
        self._known: dict[str, KnownFigures] = {}
        try:
            with self.path.open("rb") as lines:
                for line in lines:
                    self._read(line)
        except OSError:  # there is none yet, or none to be had
            return

    def look(self, plan: CompressionPlan, probe: ProbePlan) -> KnownFigures:
        """What is known of a plan, measured now if nothing is. Failures are not kept.

        Raises:
            TrialError: If the plan cannot be measured.
        """
        digest = plan.effective.digest
        start = time.perf_counter()
        return self.get(digest) or self.put(digest, probe(plan), time.perf_counter() - start)

    def get(self, digest: str) -> KnownFigures | None:
        """What is known of the plan with this digest."""
        return self._known.get(digest)

    def put(self, digest: str, figures: Figures, seconds: float) -> KnownFigures:
        """Keep the figures of a plan and return them; the log says if they will not last."""
        known = self._known.setdefault(digest, KnownFigures(figures=figures, seconds=seconds))
        entry = {"key": self._key, "plan": digest, "seconds": seconds, **figures.to_json()}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                # one write; the first break ends a torn line
                file.write(f"\n{json.dumps(entry)}\n".encode())
        except OSError as error:
            _logger.warning("The cache %s cannot be written: %s", self.path, error)
        return known

    def _read(self, line: bytes) -> None:
        if self._key.encode() not in line:
            return
        try:
            entry = json.loads(line)
            if entry.pop("key") == self._key:
                digest, seconds = entry.pop("plan"), float(entry.pop("seconds"))
                known = KnownFigures(figures=_checked(entry), seconds=seconds)
                self._known.setdefault(str(digest), known)
        except (ValueError, TypeError, KeyError, AttributeError):
            return  # damaged: measured again


def _checked(entry: Mapping[str, Any]) -> Figures:
    """Figures of an entry.

    Raises:
        ValueError: If a figure is none that could have been measured.
    """
    figures = Figures.from_json(entry)
    numbers = [figures.divergence, figures.size_bytes, figures.latency_ratio]
    numbers += figures.layer_bytes.values()
    if not all(number is None or 0 <= number < math.inf for number in numbers):
        raise ValueError(numbers)
    return figures
