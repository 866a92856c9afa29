"""What the page's script draws from: one JSON block, in which every trial stands once.

Figures name trials by number, tables and cards are drawn from what stands here, plans are level
indices. The block alone is exchanged when a page is refreshed.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from autocompress.report.axes import REFINED, VALIDATED
from autocompress.report.findings import accuracy_change, cost_of, measured
from autocompress.report.hover import hover_figures, wrapped_plan
from autocompress.report.trial_columns import columns_for, trial_name
from autocompress.report.wording import format_level, format_points, run_argument
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.technique import TECHNIQUES

FORMAT: Final = 1
# Beyond this many cells only trials people look at first have the bytes of their layers.
_MOST_LAYER_BYTES: Final = 40_000


def page_data(run: RunRecord) -> dict[str, Any]:
    """A run as the page's script reads it; plain containers, nothing escaped but `hover`.

    Returns:
        `format`; `run`, its name for the shell; `columns` of tables of measured trials, with the
        costs whose tables have them; `costs`, by name; `knobs` (kind, label, targets, levels in
        words), `kinds`;
        `trials` in order (see `_trial`); `refined` and `validated`, by trial number, cells and
        what filters compare;
        `layerBytes`, as measured, by trial number, or None.
    """
    on_front = {t.number for t in run.front()}
    columns = columns_for(run, run.complete)
    names = [knob.name for knob in run.knobs]
    cells = {t.number: [c.text(run, t) for c in columns] for t in run.complete}
    return {
        "format": FORMAT,
        "run": run_argument(run),
        "columns": [{"title": c.title, "topics": list(c.topics)} for c in columns],
        "costs": [cost.name for cost in run.shown_costs],
        "kinds": {kind: row.title for kind, row in TECHNIQUES.items()},
        "knobs": [
            {
                "kind": knob.kind,
                "label": knob.label,
                "targets": list(knob.targets),
                "levels": [format_level(knob.kind, level) for level in knob.levels],
            }
            for knob in run.knobs
        ],
        "baseline": None if run.baseline is None else run.baseline.number,
        "trials": [
            _trial(run, t, names, cells.get(t.number), t.number in on_front) for t in run.trials
        ],
        REFINED: _again(run, run.refined, columns),
        VALIDATED: _again(run, run.validated, columns),
        "layerBytes": _layer_bytes(run, on_front),
    }


def json_block(data: object) -> str:
    """JSON for a script element: no text in it can end the element."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("\u2028", "\\u2028")


def _trial(
    run: RunRecord,
    trial: TrialRecord,
    knob_names: Sequence[str],
    cells: list[str] | None,
    is_on_front: bool,
) -> dict[str, Any]:
    """One trial: number, name, role, state, level per knob (None: not said), plan in words.

    A measured one also has its cells, what a pointer over it shows, and what filters compare.
    """
    entry: dict[str, Any] = {
        "n": trial.number,
        "name": trial_name(trial),
        "role": trial.role,
        "state": trial.state,
        "levels": [trial.levels.get(name) for name in knob_names],
        "plan": "\n".join(wrapped_plan(trial)),
    }
    if trial.reason:
        entry["reason"] = trial.reason
    if cells is None:
        return entry
    figures = measured(trial)
    entry |= {
        "front": is_on_front,
        "feasible": run.is_feasible(trial),
        "comparable": figures.fidelity == run.fidelity,
        "cells": cells,
        "hover": hover_figures(run, trial),
        **_filtered(run, trial),
    }
    if figures.skipped:
        entry["skipped"] = list(figures.skipped)
    return entry


def _filtered(run: RunRecord, trial: TrialRecord) -> dict[str, Any]:
    """What filters compare: the accuracy lost against the baseline (a share), and every cost.

    Each has its words; None stands for what was not measured.
    """
    change = accuracy_change(run, trial)
    costs = {cost: cost_of(trial, cost) for cost in run.shown_costs}
    return {
        "drop": None if change is None else [-change, format_points(change, 2)],
        **{
            cost.name: None if value is None else [value, cost.quantity.write(value)]
            for cost, value in costs.items()
        },
    }


def _again(
    run: RunRecord, trials: Iterable[TrialRecord], columns: Sequence[Any]
) -> Mapping[str, Any]:
    """Trials that were trained again, by their number: name, cells and what filters compare."""
    return {
        str(t.number): {
            "name": t.label,
            "cells": [column.text(run, t) for column in columns],
            **_filtered(run, t),
        }
        for t in trials
        if t.measurement is not None
    }


def _layer_bytes(run: RunRecord, on_front: set[int]) -> dict[str, Any] | None:
    """Bytes of each layer in the packed file, by trial number; None where nobody measured them."""
    trials = [t for t in run.complete if measured(t).layer_bytes]
    held = (name for t in trials for name, n in measured(t).layer_bytes.items() if n > 0)
    layers = list(dict.fromkeys(held))
    if not layers:
        return None
    if len(trials) * len(layers) > _MOST_LAYER_BYTES:
        trials = [t for t in trials if t.role != "search" or t.number in on_front]
    rows = {str(t.number): [measured(t).layer_bytes.get(n, 0) for n in layers] for t in trials}
    return {"layers": layers, "of": rows}
