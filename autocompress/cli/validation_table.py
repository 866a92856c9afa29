"""A validation in words and tables, plain ASCII for any terminal."""

from collections.abc import Iterator

from rich import box
from rich.table import Table
from rich.text import Text

from autocompress.errors import one_line
from autocompress.runs.validate.validation import (
    LEAST_CANDIDATES,
    Correlation,
    Retraining,
    Validation,
)

_MAX_NAME = 40


def trials_table(found: Validation) -> Table:
    """Proxy and full accuracy of each trial with its two places, best by full training first."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("what", overflow="fold", min_width=10)
    for title in ("proxy", "full", "change", "proxy #", "full #", "seconds"):
        table.add_column(title, justify="right", no_wrap=True)
    by_proxy, by_full = _places(found.proxy_ranks.tolist()), _places(found.full_ranks.tolist())
    rows = sorted(zip(by_full, by_proxy, found.done, strict=True), key=lambda row: (row[0], row[1]))
    for full_place, proxy_place, result in rows:
        assert result.full is not None
        table.add_row(
            str(result.trial.number),
            _name(result),
            f"{100 * result.proxy.accuracy:.2f} %",
            f"{100 * result.full.accuracy:.2f} %",
            f"{100 * (result.full.accuracy - result.proxy.accuracy):+.2f} pt",
            str(proxy_place),
            str(full_place),
            f"{result.proxy.seconds:.1f} / {result.full.seconds:.1f}",
        )
    for result in found.retrainings:
        if result.full is None:
            proxy = f"{100 * result.proxy.accuracy:.2f} %"
            table.add_row(str(result.trial.number), _name(result), proxy, "failed")
    return table


def agreement_table(found: Validation) -> Table:
    """Both rank correlations, overall and inside the best third, with their uncertainty."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for title in ("proxy against full", "n", "statistic", "value", "95 % interval", "p"):
        is_number = title in ("n", "value", "p")
        table.add_column(title, justify="right" if is_number else "left", no_wrap=True)
    for title, agreement in (("all", found.overall()), ("best third", found.best_third())):
        for name, value in (
            ("Kendall's tau-b", agreement.kendall),
            ("Spearman's rho", agreement.spearman),
        ):
            table.add_row(title, str(agreement.n), name, *_cells(value))
    return table


def sentences(found: Validation) -> Iterator[str]:
    """What was compared, what it cost and what the proxy gets wrong; each true on its own."""
    n, n_failed = len(found.done), len(found.retrainings) - len(found.done)
    ties = (
        "are ranked by divergence from the base model"
        if all(m and m.divergence is not None for r in found.done for m in (r.proxy, r.full))
        else "share a rank, for not every divergence was measured"
    )
    proxy = (
        f"{found.epochs / found.proxy_epochs:g} times the proxy's {found.proxy_epochs:g}"
        if found.proxy_epochs
        else "the proxy trains nothing"
    )
    yield (
        f"{n} of {found.n_candidates} candidates of {found.run}, trained again from the base "
        f"model for {found.epochs:g} epochs ({proxy}), seed {found.seed}. The best "
        f"third is that of full training. Equal accuracies {ties}."
    )
    if n_failed:
        first = next(r for r in found.retrainings if r.full is None)
        yield f"{n_failed} could not be trained in full and are left out: {first.reason}"
    if n < LEAST_CANDIDATES:
        yield f"Fewer than {LEAST_CANDIDATES} trials: no correlation can be told."
    if n:
        yield from _errors(found)
        yield _cost(found)


def _errors(found: Validation) -> Iterator[str]:
    worst, choice = found.worst_misranking(), found.choice()
    if worst is not None:
        over, under = worst.overrated, worst.underrated
        yield (
            f"Worst misranking: the proxy puts {_said(over)} before {_said(under)} "
            f"({over.proxy.accuracy:.2%} and {under.proxy.accuracy:.2%}), but after full training "
            f"it is {100 * worst.gap:.2f} pt behind ({over.accuracy:.2%} and {under.accuracy:.2%})."
        )
    else:
        yield "No two trials that differ in accuracy after full training are in the wrong order."
    if choice is not None:
        place = (
            "is the best" if choice.place == 1 else f"is number {choice.place} of {len(found.done)}"
        )
        yield (
            f"The proxy's first, {_said(choice.picked)}, {place} after full training, "
            f"{100 * choice.regret:.2f} pt below the most accurate."
        )


def _cost(found: Validation) -> str:
    ratio = found.cost_ratio()
    if ratio is None:
        return "Cost: not compared, for not all was trained on the machine that ran the search."
    share = f"1/{1 / ratio:.3g} of" if ratio < 1 else f"{ratio:.3g} times"
    latency = any(r.proxy.latency_ms is not None for r in found.done)
    note = "; only the proxy's holds the timing of latency" if latency else ""
    return (
        f"Cost: the proxy took {share} the time of full training. That is wall time of building, "
        f"tuning and measuring, and shifts if the machine was busier in one of them{note}."
    )


def _places(ranks: list[int]) -> list[int]:
    """Dense ranks, 0 the worst, as places: 1 the best, equal ones share the better place."""
    return [1 + sum(other > rank for other in ranks) for rank in ranks]


def _cells(correlation: Correlation | None) -> tuple[str, str, str]:
    if correlation is None:
        return "-", "-", "-"
    p_value = correlation.p_value
    return (
        f"{correlation.value:.2f}",
        f"{correlation.low:.2f} to {correlation.high:.2f}",
        "<0.001" if p_value < 0.001 else f"{p_value:.3f}",
    )


def _said(result: Retraining) -> str:
    """A trial's printable label, with its number where the label does not tell."""
    number, name = str(result.trial.number), _name(result).plain
    return name if number in name.split() else f"{name} (trial {number})"


def _name(result: Retraining) -> Text:
    """Text, not markup: a name such as [red] stays a name and steers no terminal."""
    label = one_line(result.trial.label)
    return Text(label if len(label) <= _MAX_NAME else f"{label[: _MAX_NAME - 3]}...")
