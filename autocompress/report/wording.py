"""Figures and plans as words: one way to write a size, a ratio, a drop and a recipe.

Nothing here is escaped; whoever puts the words into HTML escapes them.
"""

import shlex
from collections import defaultdict
from collections.abc import Iterable

from autocompress.objective import OBJECTIVES, Limits, Objective
from autocompress.plan import CompressionPlan
from autocompress.quantities import format_share
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.technique import TECHNIQUES, KnobKind, Technique


def run_argument(run: RunRecord) -> str:
    """What names a run on the command line, quoted: its name, or its folder if that lies elsewhere.

    A name is looked up in `results`, which is where runs are unless somebody said otherwise.
    """
    is_usual = run.folder.parent.name == "results"
    return shlex.quote(run.name if is_usual else str(run.folder))


def unmeasured_counts(run: RunRecord) -> list[str]:
    """A phrase for each reason to have no measurement, such as `2 failed`."""
    states = [trial.state for trial in run.trials]
    counts = {
        "failed": states.count("failed"),
        "stopped early": states.count("stopped"),
        "unfinished": states.count("running"),
    }
    return [f"{n} {words}" for words, n in counts.items() if n]


def half_measured(run: RunRecord) -> tuple[int, str]:
    """How many trials finished without every objective measured, and which some of them lack.

    Returns:
        Their number, and the objectives in words: `latency`, `size or latency`.
    """
    finished = [trial for trial in run.trials if trial.state == "complete"]
    names = [
        objective.name
        for objective in run.objectives
        if any(getattr(trial.measurement, objective.field, None) is None for trial in finished)
    ]
    return len(finished) - len(run.complete), " or ".join(names)


MINUS = "\N{MINUS SIGN}"
_MAX_NAMED = 2
_MAX_NAME_CHARS = 26


def format_points(difference: float, digits: int = 1) -> str:
    """A difference of shares in percentage points, with its sign.

    >>> format_points(-0.0041), format_points(0.0), format_points(0.002, 2)
    ('−0.4 pt', '±0.0 pt', '+0.20 pt')
    """
    text = f"{abs(100 * difference):.{digits}f}"
    if float(text) == 0.0:
        return f"±{text} pt"
    return f"{MINUS if difference < 0 else '+'}{text} pt"


def format_times(ratio: float) -> str:
    """A ratio with as many digits as are worth reading.

    >>> format_times(1.824), format_times(9.84), format_times(143.2)
    ('1.82×', '9.8×', '143×')
    """
    digits = 2 if ratio < 2.995 else 1 if ratio < 99.95 else 0
    return f"{ratio:.{digits}f}×"


def format_gain(ratio: float, cost: Objective) -> str:
    """How much better a cost became, in words; `ratio` is the baseline's cost over this one.

    >>> from autocompress.objective import LATENCY, SIZE
    >>> format_gain(9.84, SIZE), format_gain(0.8, LATENCY), format_gain(1.0, SIZE)
    ('9.8× smaller', '1.25× slower', 'the same size')
    """
    if format_times(ratio) == "1.00×":
        return cost.even
    if ratio > 1:
        return f"{format_times(ratio)} {cost.better}"
    return f"{format_times(1 / ratio)} {cost.worse}"


def shorten(name: str, n_chars: int) -> str:
    """A name of at most `n_chars` characters: both ends stay, for layers differ at both.

    >>> shorten("features.denseblock4.denselayer16.conv2", 20)
    'features.d…r16.conv2'
    """
    if len(name) <= n_chars:
        return name
    n_tail = (n_chars - 1) // 2
    return f"{name[: n_chars - 1 - n_tail]}…{name[len(name) - n_tail :]}"


def format_level(kind: KnobKind, value: float | str) -> str:
    """One level of a knob: bits as they are, ratios in percent, methods by their names.

    >>> format_level("weight_bits", 4), format_level("weight_bits", 1.58)
    ('4 bit', 'ternary')
    >>> format_level("pruning_ratio", 0.25), format_level("quantizer", "kmeans")
    ('25 %', 'kmeans')
    >>> format_level("rate_price", 0.05)
    '0.05'
    """
    return TECHNIQUES[kind].write(value)


def plan_lines(plan: CompressionPlan) -> list[str]:
    """A plan in a line per technique, equal levels counted together, rare ones named.

    >>> from autocompress.plan import LayerPlan
    >>> plan_lines(CompressionPlan(layers={"fc": LayerPlan(weight_bits=4)}))
    ['weights: 4 bit × 1 (fc)']
    """
    lines = [
        f"{row.title_in_plan or row.title}: {_count_levels(row.kind, chosen)}"
        for row in TECHNIQUES.values()
        if (chosen := _said(plan.effective, row))
    ]
    return lines or ["unchanged"]


def _said(plan: CompressionPlan, technique: Technique) -> list[tuple[str, float | str]]:
    """Targets that a plan treats by a technique, with their levels."""
    if technique.acts_on == "group":
        return list(plan.pruning_ratios.items())
    if technique.acts_on == "block":
        return [(name, 1) for name in plan.dropped_blocks]
    values = [(name, getattr(layer, technique.kind)) for name, layer in plan.layers.items()]
    return [(name, value) for name, value in values if value != technique.untouched]


def _count_levels(kind: KnobKind, chosen: Iterable[tuple[str, float | str]]) -> str:
    """Text such as `4 bit × 12, 8 bit × 2 (conv1, fc)`, the commonest level first."""
    by_level: dict[float | str, list[str]] = defaultdict(list)
    for name, value in chosen:
        by_level[value].append(name)
    parts = []
    for value, names in sorted(by_level.items(), key=lambda item: (-len(item[1]), str(item[0]))):
        part = f"{format_level(kind, value)} × {len(names)}"
        if len(names) <= _MAX_NAMED:
            part += f" ({', '.join(shorten(name, _MAX_NAME_CHARS) for name in names)})"
        parts.append(part)
    return ", ".join(parts)


def limits_text(limits: Limits) -> str:
    """The limits that are set, in one phrase.

    >>> limits_text(Limits(max_drop=0.01, max_size_bytes=100_000))
    'at most 1 pt of accuracy lost, at most 100.0 kB'
    """
    return ", ".join(
        f"at most {row.quantity.write_rounded(bound)}"
        if row.is_cost
        else f"at most {100 * bound:g} pt of {row.name} lost"
        for row, bound in limits.bounds.items()
    )


def violation_words(run: RunRecord, trial: TrialRecord) -> list[str]:
    """What a trial breaks, a phrase per limit; empty if it keeps them all or was not measured."""
    rows = {row.limit: row for row in OBJECTIVES.values()}
    return [_excess(rows[name], excess) for name, excess in run.violations(trial).items()]


def _excess(row: Objective, excess: float) -> str:
    much = row.quantity.write_rounded(excess, ".3g") if row.is_cost else f"{100 * excess:.3g} pt"
    return f"{much} {row.excess}"


def nothing_feasible(run: RunRecord) -> str:
    """One line if no compressed point keeps the limits, with the nearest miss; else empty."""
    trial = run.nearest_miss()
    if trial is None or trial.measurement is None:
        return ""
    found = ((cost, getattr(trial.measurement, cost.field)) for cost in run.shown_costs)
    costs = [cost.quantity.write(value) for cost, value in found if value is not None]
    figures = [format_share(trial.measurement.accuracy), *costs]
    return (
        f"No compressed point keeps the limits ({limits_text(run.limits)}). The nearest miss is "
        f"{trial.label} ({', '.join(figures)}): {', '.join(violation_words(run, trial))}."
    )
