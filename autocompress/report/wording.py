"""Figures and plans as words: one way to write a size, a ratio, a drop and a recipe.

Nothing here is escaped; whoever puts the words into HTML escapes them.
"""

import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping

from autocompress.objective import Limits
from autocompress.plan import BINARY_BITS, FULL_BITS, TERNARY_BITS, CompressionPlan, LayerPlan
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


def format_size(size_bytes: float) -> str:
    """Bytes with a decimal unit (1 kB = 1000 bytes) and three or four figures.

    >>> format_size(812), format_size(109_240), format_size(1_079_000)
    ('812 B', '109.2 kB', '1.08 MB')
    """
    if size_bytes < 1000:
        return f"{size_bytes:.0f} B"
    if size_bytes < 999_950:
        return f"{size_bytes / 1e3:.1f} kB"
    if size_bytes < 999_995_000:
        return f"{size_bytes / 1e6:.2f} MB"
    return f"{size_bytes / 1e9:.2f} GB"


def format_ms(milliseconds: float) -> str:
    """Milliseconds without their unit, with three figures below one and four above.

    >>> format_ms(0.00042), format_ms(0.7541), format_ms(9.84), format_ms(750_000.0)
    ('0.000420', '0.754', '9.840', '750000')
    """
    if milliseconds == 0:
        return "0"
    n_figures = 3 if milliseconds < 1 else 4
    exponent = int(f"{milliseconds:.{n_figures - 1}e}".split("e")[1])
    return f"{milliseconds:.{max(0, n_figures - 1 - exponent)}f}"


def format_count(count: float) -> str:
    """A large count in short.

    >>> format_count(640), format_count(270_896), format_count(40_813_184)
    ('640', '270.9 k', '40.81 M')
    """
    if count < 1000:
        return f"{count:.0f}"
    if count < 999_950:
        return f"{count / 1e3:.1f} k"
    if count < 999_995_000:
        return f"{count / 1e6:.2f} M"
    return f"{count / 1e9:.2f} G"


def format_share(share: float, digits: int = 2) -> str:
    """A share in [0, 1] in percent.

    >>> format_share(0.9173)
    '91.73 %'
    """
    return f"{100 * share:.{digits}f} %"


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


def format_gain(ratio: float, cost: str) -> str:
    """How much better a cost became, in words; `ratio` is the baseline's cost over this one.

    >>> format_gain(9.84, "size"), format_gain(0.8, "latency"), format_gain(1.0, "size")
    ('9.8× smaller', '1.25× slower', 'the same size')
    """
    better, worse = ("smaller", "larger") if cost == "size" else ("faster", "slower")
    if format_times(ratio) == "1.00×":
        return "the same size" if cost == "size" else "the same speed"
    return f"{format_times(ratio)} {better}" if ratio > 1 else f"{format_times(1 / ratio)} {worse}"


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
