"""Figures and plans as words: one way to write a size, a ratio, a drop and a recipe.

Nothing here is escaped; whoever puts the words into HTML escapes them.
"""

import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping

from autocompress.objective import OBJECTIVES, Limits, Objective
from autocompress.plan import BINARY_BITS, FULL_BITS, TERNARY_BITS, CompressionPlan, LayerPlan
from autocompress.quantities import format_share
from autocompress.run_record import RunRecord, TrialRecord


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
_BIT_NAMES = {FULL_BITS: "float", TERNARY_BITS: "ternary", BINARY_BITS: "binary"}
_LAYER_LINES = {
    "weight shared": "shared_with",
    "rank kept": "rank_ratio",
    "factors": "factorization",
    "zeros": "sparsity",
    "pattern of zeros": "sparsity_pattern",
    "weights": "weight_bits",
    "quantizer": "quantizer",
    "scale per": "granularity",
    "inputs": "activation_bits",
    "price of a bit": "rate_price",
}
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


def format_level(kind: str, value: float | str) -> str:
    """One level of a knob: bits as they are, ratios in percent, methods by their names.

    >>> format_level("weight_bits", 4), format_level("weight_bits", 1.58)
    ('4 bit', 'ternary')
    >>> format_level("pruning_ratio", 0.25), format_level("quantizer", "kmeans")
    ('25 %', 'kmeans')
    >>> format_level("rate_price", 0.05)
    '0.05'
    """
    if isinstance(value, str):
        return value or "own"
    if kind.endswith("_bits"):
        return _BIT_NAMES.get(value, f"{value:.0f} bit")
    if kind == "drop_block":
        return "dropped" if value else "kept"
    if kind == "rate_price":
        return f"{value:g}" if value else "none"
    return f"{100 * value:.3g} %"


def plan_lines(plan: CompressionPlan) -> list[str]:
    """A plan in a line per technique, equal levels counted together, rare ones named.

    >>> plan_lines(CompressionPlan(layers={"fc": LayerPlan(weight_bits=4)}))
    ['weights: 4 bit × 1 (fc)']
    """
    layers = plan.effective.layers
    groups: dict[str, tuple[str, Iterable[tuple[str, float | str]]]] = {
        "channels removed": ("pruning_ratio", plan.pruning_ratios.items()),
        "blocks": ("drop_block", [(name, 1) for name in plan.dropped_blocks]),
        **{title: (kind, _said(layers, kind)) for title, kind in _LAYER_LINES.items()},
    }
    lines = [
        f"{title}: {_count_levels(kind, chosen)}"
        for title, (kind, chosen) in groups.items()
        if chosen
    ]
    return lines or ["untouched"]


def _said(layers: Mapping[str, LayerPlan], kind: str) -> list[tuple[str, float | str]]:
    """Layers whose plan differs from the default in one field, with its value."""
    default = getattr(LayerPlan(), kind)
    values = [(name, getattr(layer, kind)) for name, layer in layers.items()]
    return [(name, value) for name, value in values if value != default]


def _count_levels(kind: str, chosen: Iterable[tuple[str, float | str]]) -> str:
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
