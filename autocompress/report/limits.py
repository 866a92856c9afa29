"""Limits in words: what was asked for, what a point breaks, and what comes nearest.

Nothing here is escaped; whoever puts the words into HTML escapes them.
"""

from autocompress.objective import Limits
from autocompress.report.wording import format_ms, format_share, format_size
from autocompress.run_record import RunRecord, TrialRecord


def limits_text(limits: Limits) -> str:
    """The limits that are set, in one phrase.

    >>> limits_text(Limits(max_drop=0.01, max_size_bytes=100_000))
    'at most 1 pt of accuracy lost, at most 100.0 kB'
    """
    parts = []
    if limits.max_drop is not None:
        parts.append(f"at most {100 * limits.max_drop:g} pt of accuracy lost")
    if limits.max_size_bytes is not None:
        parts.append(f"at most {format_size(limits.max_size_bytes)}")
    if limits.max_latency_ms is not None:
        parts.append(f"at most {limits.max_latency_ms:g} ms")
    return ", ".join(parts)


def violation_words(run: RunRecord, trial: TrialRecord) -> list[str]:
    """What a trial breaks, a phrase per limit; empty if it keeps them all or was not measured."""
    return [_excess(name, excess) for name, excess in run.violations(trial).items()]


def _excess(name: str, excess: float) -> str:
    if name == "max_drop":
        return f"{100 * excess:.3g} pt too inaccurate"
    if name == "max_size_bytes":
        return f"{format_size(excess)} too large"
    return f"{excess:.3g} ms too slow"


def nothing_feasible(run: RunRecord) -> str:
    """One line if no compressed point keeps the limits, with the nearest miss; else empty."""
    trial = run.nearest_miss()
    if trial is None or trial.measurement is None:
        return ""
    figures = [format_share(trial.measurement.accuracy), format_size(trial.measurement.size_bytes)]
    if trial.measurement.latency_ms is not None:
        figures.append(f"{format_ms(trial.measurement.latency_ms)} ms")
    return (
        f"No compressed point keeps the limits ({limits_text(run.limits)}). The nearest miss is "
        f"{trial.label} ({', '.join(figures)}): {', '.join(violation_words(run, trial))}."
    )
