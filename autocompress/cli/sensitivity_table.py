"""The option table in words, tables and JSON."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autocompress.cli.sensitivity import Sensitivity
from autocompress.evaluate.additivity import PredictionError, WholePlan, prediction_errors
from autocompress.space.option_table import Figures, Option
from autocompress.space.search_space import Knob


def sensitivity_json(found: Sensitivity) -> dict[str, Any]:
    """Everything that was measured, as plain containers.

    Returns:
        `table` (see `OptionTable.to_json`), `live_levels` (knob -> indices of the levels worth
        proposing) and `additivity`: each whole plan with its prediction, and how far off these are.
    """
    predictor = found.predictor
    live = zip(predictor.space.knobs, predictor.live_levels(), strict=True)
    return {
        "table": predictor.table.to_json(),
        "live_levels": {knob.name: list(levels) for knob, levels in live},
        "additivity": {
            "plans": [
                {
                    **dataclasses.asdict(whole),
                    "figures": whole.figures and whole.figures.to_json(),
                }
                for whole in found.wholes
            ],
            "errors": {
                name: dataclasses.asdict(error)
                for name, error in prediction_errors(found.wholes).items()
            },
        },
    }


def print_sensitivity(found: Sensitivity) -> None:
    """Print a row per level, the controls beside their predictions, and how far off these are."""
    console = Console(highlight=False)
    table = found.predictor.table
    assert table.baseline.size_bytes is not None
    console.print(
        f"Untouched: {table.baseline.size_bytes:,} bytes packed. Of each level alone: divergence "
        "from the model before any training, in nats; bytes of the file; "
        "latency over the model's. What another level beats is dropped.\n"
    )
    for kind in dict.fromkeys(knob.kind for knob in found.predictor.space.knobs):
        console.print(_levels_table(found, kind))
    for option in table.options:
        if option.reason is not None:
            failed = f"Failed: {option.knob} = {_value(found, option)}: {option.reason}"
            console.print(failed, markup=False, soft_wrap=True)
    if found.wholes:
        console.print(_wholes_table(found))
    for line in _error_lines(found):
        console.print(line, soft_wrap=True)
    n_live = sum(len(levels) - 1 for levels in found.predictor.live_levels())
    console.print(
        f"{n_live} of {len(table.options)} levels are worth searching; "
        f"measuring them took {table.seconds:.0f} s"
    )


def _levels_table(found: Sensitivity, kind: str) -> Table:
    """A row per level of all knobs of a kind, each knob named once."""
    predictor, has_latency = found.predictor, found.predictor.has_latency
    latency = ("latency",) if has_latency else ()
    table = _table(kind, "knob", "level", "divergence", "bytes", "change", *latency, "")
    options = {(option.knob, option.level): option for option in predictor.table.options}
    for knob, live in zip(predictor.space.knobs, predictor.live_levels(), strict=True):
        if knob.kind != kind:
            continue
        label = escape(knob.label)
        before = context = predictor.table.contexts.get(knob.name)
        if context is not None:
            cells = _figures(context, predictor.table.baseline, has_latency)
            table.add_row(label, _level(knob, 0), *cells, "in context")
            label = ""
        for level in range(1, len(knob.levels)):
            option = options[knob.name, level]
            cells = _figures(option.figures, before or predictor.table.baseline, has_latency)
            table.add_row(label, _level(knob, level), *cells, _note(option, is_live=level in live))
            label = ""
    return table


def _note(option: Option, *, is_live: bool) -> str:
    if option.figures is None:
        return "failed"
    return "" if is_live else "dropped"


def _figures(figures: Figures | None, before: Figures, has_latency: bool) -> Iterator[str]:
    """Divergence, bytes, their change against what the level was measured in, and latency."""
    if figures is None:
        yield from [""] * (3 + has_latency)
        return
    assert figures.size_bytes is not None
    assert before.size_bytes is not None
    yield f"{figures.divergence:.2g}"
    yield f"{figures.size_bytes:,}"
    yield f"{100 * (figures.size_bytes / before.size_bytes - 1):+.1f} %"
    if has_latency:
        yield f"{figures.latency_ratio:.3f} x"


def _wholes_table(found: Sensitivity) -> Table:
    has_latency = found.predictor.has_latency
    table = _table(
        "Whole plans: predicted from their levels / measured",
        *("plan", "divergence", "bytes"),
        *(("latency",) if has_latency else ()),
    )
    for whole in found.wholes:
        table.add_row(escape(whole.label), *_whole_cells(whole, has_latency))
    return table


def _whole_cells(whole: WholePlan, has_latency: bool) -> Iterator[str]:
    figures = whole.figures
    if figures is None:
        yield escape(f"failed ({whole.reason})")
        return
    yield f"{whole.est_divergence:.2g} / {figures.divergence:.2g}"
    yield f"{whole.est_size_bytes:,.0f} / {figures.size_bytes:,}"
    if has_latency:
        yield f"{whole.est_latency_ratio:.3f} x / {figures.latency_ratio:.3f} x"


def _error_lines(found: Sensitivity) -> Iterator[str]:
    errors = prediction_errors(found.wholes)
    for name, what in (("size", "bytes"), ("latency", "latency")):
        if name in errors:
            error = errors[name]
            yield (
                f"Predicted {what}: off by {100 * error.median:.1f} % in the median, "
                f"{100 * error.worst:.1f} % at worst, over {_plans(error)}"
            )
    if "log_divergence" in errors:
        error = errors["log_divergence"]
        yield (
            f"Predicted divergence: off by a factor of {math.exp(error.median):.2f} in the median, "
            f"{math.exp(error.worst):.2f} at worst, over {_plans(error)}"
        )


def _plans(error: PredictionError) -> str:
    return "1 plan" if error.n_plans == 1 else f"{error.n_plans} plans"


def _value(found: Sensitivity, option: Option) -> str:
    knobs = {knob.name: knob for knob in found.predictor.space.knobs}
    return _level(knobs[option.knob], option.level)


def _level(knob: Knob, level: int) -> str:
    value = knob.levels[level]
    return escape(value or "-") if isinstance(value, str) else f"{value:g}"


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=escape(title),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        pad_edge=False,
        padding=(0, 1),
    )
    for column in columns:
        is_text = column in ("knob", "plan", "")
        table.add_column(column, justify="left" if is_text else "right", overflow="fold")
    return table
