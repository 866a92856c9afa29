"""Measure the sensitivity table: every level of every knob, each plan once."""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from autocompress.errors import TrialError
from autocompress.plan import CompressionPlan
from autocompress.space.search_space import Knob, SearchSpace
from autocompress.space.sensitivity_table import (
    Figures,
    MeasuredLevel,
    SensitivityTable,
    context_of,
    estimated_figures,
    measured_levels,
)
from autocompress.tasks.model_cache import cache_folder

ProbePlan = Callable[[CompressionPlan], Figures]

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KnownFigures:
    """Figures of a plan that was probed.

    Attributes:
        figures: What was measured.
        seconds: Wall time that took.
    """

    figures: Figures
    seconds: float


class SensitivityCache:
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

    def probed(self, plan: CompressionPlan, probe: ProbePlan) -> KnownFigures:
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
                known = KnownFigures(figures=Figures.from_json(entry), seconds=seconds)
                self._known.setdefault(str(digest), known)
        except (ValueError, TypeError, KeyError, AttributeError):
            return  # damaged: measured again


OnProgress = Callable[[int, int, str], None]

_ROOMS: Final = ("analysis", "compress", "evaluate", "packing", "runtime", "tasks", "train")
_LIBRARIES: Final = (
    *("autocompress", "constriction", "nni", "numpy", "onnx", "onnxruntime"),
    *("torch", "torch-pruning"),
)


def measure_levels(
    space: SearchSpace,
    probe: ProbePlan,
    cache: SensitivityCache,
    *,
    on_progress: OnProgress = lambda n_known, n_plans, label: None,
) -> SensitivityTable:
    """Probe every level of every knob by itself, or in its context (see `context_of`).

    Of many layers' bits only some levels are probed (see `measured_levels`). What the cache knows
    is not measured again, and each plan once, however many knobs lead to it.

    Args:
        space: The knobs.
        probe: Measures a plan; may raise TrialError.
        cache: Keeps figures; made for what `probe` measures and how.
        on_progress: Called at the start and after each plan that had to be measured, with how many
            plans are known, how many there are, and which it was.

    Returns:
        The table. An option that failed has a reason and no figures; so have all options of a knob
        whose context failed.

    Raises:
        TrialError: If the original model cannot be measured.
    """
    plans = TablePlans(space)
    results: dict[str, KnownFigures | _Failure] = {}
    for digest in plans.by_digest:
        known = cache.get(digest)
        if known is not None:
            results[digest] = known
    before = set(results)
    on_progress(len(results), len(plans.by_digest), "")
    for digest, (label, plan) in plans.by_digest.items():
        if digest in results:
            continue
        result = _probe(plan, probe, cache)
        if digest == plans.baseline and isinstance(result, _Failure):
            raise result.error
        results[digest] = result
        on_progress(len(results), len(plans.by_digest), label)
    baseline = results[plans.baseline]
    assert isinstance(baseline, KnownFigures)
    contexts = {name: results[digest] for name, digest in plans.contexts.items()}
    found = {
        (name, level): _option(name, level, results[digest], contexts.get(name))
        for (name, level), digest in plans.options.items()
    }
    return SensitivityTable(
        baseline=baseline.figures,
        contexts={n: c.figures for n, c in contexts.items() if isinstance(c, KnownFigures)},
        options=tuple(
            found.get((knob.name, level)) or _estimated(knob, level, found, baseline.figures)
            for knob in space.knobs
            for level in range(1, len(knob.levels))
        ),
        seconds=sum(result.seconds for result in results.values()),
        seconds_here=sum(r.seconds for digest, r in results.items() if digest not in before),
    )


class TablePlans:
    """The plans that a sensitivity table is measured on, each once.

    Plans are known by the digest of what they do, so that words without effect do not count.

    Args:
        space: The knobs.

    Attributes:
        by_digest: Digest -> what progress calls the plan, and the plan.
        baseline: Digest of the untouched plan.
        contexts: Name of a knob -> digest of what its levels are measured in, see `context_of`.
        options: (name of a knob, level) -> digest, of the levels that are measured.
    """

    def __init__(self, space: SearchSpace) -> None:
        untouched = {knob.name: 0 for knob in space.knobs}
        self._space = space
        self.by_digest: dict[str, tuple[str, CompressionPlan]] = {}
        self.baseline = self._add("untouched", untouched)
        self.contexts: dict[str, str] = {}
        self.options: dict[tuple[str, int], str] = {}
        for knob in space.knobs:
            context = context_of(space, knob)
            if context != untouched:
                self.contexts[knob.name] = self._add(f"what {knob.name} works on", context)
            self._add_options(knob, context)

    def _add_options(self, knob: Knob, context: Mapping[str, int]) -> None:
        for level in measured_levels(self._space, knob):
            label = f"{knob.name} = {knob.levels[level]}"
            digest = self._add(label, {**context, knob.name: level})
            self.options[knob.name, level] = digest

    def _add(self, label: str, levels: Mapping[str, int]) -> str:
        plan = self._space.decode(levels)
        digest = plan.effective.digest
        self.by_digest.setdefault(digest, (label, plan))
        return digest


def options_key(
    *,
    model: str,
    data: Mapping[str, str],
    policy: Mapping[str, Any],
    recipe: Mapping[str, Any],
    has_size: bool,
    has_latency: bool,
    threads: int,
    runtime: Mapping[str, Any],
    machine: Mapping[str, str],
) -> str:
    """What the figures of a plan depend on besides the plan, as one sha256 in hex.

    The versions of the libraries and of this package's sources count, too.

    Args:
        model: Fingerprint of the base model.
        data: Name -> fingerprint of whatever data is probed.
        policy: How channels and weights are chosen.
        recipe: Of the fine-tune what counts before it: `rounding`, `rewind`, `distill`.
        has_size: Whether plans are packed.
        has_latency: Whether they are timed.
        threads: Threads of training and scoring.
        runtime: Who times them, in which version, and on what.
        machine: Where outputs are computed and plans are timed: processor, device and the like.
    """
    parts = {
        "model": model,
        "data": dict(data),
        "policy": dict(policy),
        "recipe": dict(recipe),
        "has_size": has_size,
        "has_latency": has_latency,
        "threads": threads,
        "runtime": dict(runtime) if has_latency else None,
        "machine": dict(machine),
        "versions": _versions(),
        "sources": _source_digest(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # an extra
            found[name] = importlib.metadata.version(name)
    return found


def _source_digest() -> str:
    """sha256 in hex over the sources that decide a plan's figures."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(p for room in _ROOMS for p in (package / room).rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """A plan that could not be measured."""

    error: TrialError
    seconds: float

    @property
    def reason(self) -> str:
        return f"{self.error.reason}: {self.error.message}"


def _probe(
    plan: CompressionPlan, probe: ProbePlan, cache: SensitivityCache
) -> KnownFigures | _Failure:
    start = time.perf_counter()
    try:
        return cache.probed(plan, probe)
    except TrialError as error:
        return _Failure(error=error, seconds=time.perf_counter() - start)


def _option(
    knob: str, level: int, result: KnownFigures | _Failure, context: KnownFigures | _Failure | None
) -> MeasuredLevel:
    if isinstance(result, _Failure):
        return MeasuredLevel(knob=knob, level=level, figures=None, reason=result.reason)
    if isinstance(context, _Failure):
        reason = f"what it works on failed: {context.reason}"
        return MeasuredLevel(knob=knob, level=level, figures=None, reason=reason)
    return MeasuredLevel(knob=knob, level=level, figures=result.figures)


def _estimated(
    knob: Knob, level: int, found: Mapping[tuple[str, int], MeasuredLevel], baseline: Figures
) -> MeasuredLevel:
    own = {i: option for (name, i), option in found.items() if name == knob.name}
    measured = {i: option.figures for i, option in own.items() if option.figures is not None}
    if not measured:
        reason = next(option.reason for option in own.values())
        return MeasuredLevel(knob=knob.name, level=level, figures=None, reason=reason)
    figures = estimated_figures(knob, level, measured, baseline)
    return MeasuredLevel(knob=knob.name, level=level, figures=figures, is_estimated=True)
