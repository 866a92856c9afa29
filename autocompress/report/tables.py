"""A run as tables: data frames, the JSON of its front, and CSV that no spreadsheet executes."""

from pathlib import Path
from typing import Any, Final

import pandas as pd

from autocompress.atomic_file import write_atomically
from autocompress.objective import all_costs
from autocompress.report.findings import gain
from autocompress.run_record import RunRecord, TrialRecord

# Column -> pandas dtype. Counts are nullable integers: a missing one stays missing, not NaN.
_COLUMNS: Final = {
    "trial": "int64",
    "label": "str",
    "role": "str",
    "state": "str",
    "on_front": "bool",
    "feasible": "boolean",
    "fidelity": "Int64",
    "accuracy": "float64",
    "size_bytes": "Int64",
    "compression": "float64",
    "latency_ms": "float64",
    "latency_spread_ms": "float64",
    "latency_low_ms": "float64",
    "latency_high_ms": "float64",
    "baseline_latency_ms": "float64",
    "speedup": "float64",
    "peak_memory_bytes": "Int64",
    "loss": "float64",
    "divergence": "float64",
    "untuned_divergence": "float64",
    "macs": "Int64",
    "n_params": "Int64",
    "seconds": "float64",
    "train_images_per_s": "float64",
    "plan_digest": "str",
    "skipped": "str",
    "violations": "str",
    "reason": "str",
}
_MEASURED: Final = (
    *("fidelity", "accuracy", "size_bytes", "latency_ms", "latency_spread_ms", "latency_low_ms"),
    *("latency_high_ms", "baseline_latency_ms", "speedup", "peak_memory_bytes", "loss"),
    *("divergence", "untuned_divergence", "macs", "n_params", "seconds", "train_images_per_s"),
)
# What a spreadsheet takes for the start of a formula (OWASP, "CSV injection").
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


def trial_json(run: RunRecord, trial: TrialRecord) -> dict[str, Any]:
    """One trial as plain JSON values; what was not measured is None.

    `feasible` says whether it keeps all limits of the run, `violations` by how much it breaks some.
    """
    names = dict.fromkeys((*_MEASURED, *(cost.field for cost in all_costs())))
    figures = {
        name: None if trial.measurement is None else getattr(trial.measurement, name)
        for name in names
    }
    return {
        "trial": trial.number,
        "label": trial.label,
        "role": trial.role,
        "state": trial.state,
        **figures,
        **{cost.ratio: gain(run, trial, cost) for cost in all_costs() if cost.ratio},
        "plan_digest": trial.plan.digest,
        "skipped": [] if trial.measurement is None else list(trial.measurement.skipped),
        "feasible": None if trial.measurement is None else run.is_feasible(trial),
        "violations": run.violations(trial),
        "reason": trial.reason,
    }


def front_json(run: RunRecord) -> dict[str, Any]:
    """The front as JSON: `run` (name), `baseline` (or None), `controls`, `points`, `refined`."""
    return {
        "run": run.name,
        "baseline": None if run.baseline is None else trial_json(run, run.baseline),
        "controls": [trial_json(run, trial) for trial in run.controls],
        "points": [trial_json(run, trial) for trial in run.front()],
        "refined": [trial_json(run, trial) for trial in run.refined],
    }


def trials_table(run: RunRecord) -> pd.DataFrame:
    """All trials, also failed, stopped and running ones, in order of their numbers."""
    return table_of(run, run.trials)


def front_table(run: RunRecord) -> pd.DataFrame:
    """The members of the front, most accurate first; same columns as `trials_table`."""
    return table_of(run, run.front())


def table_of(run: RunRecord, trials: tuple[TrialRecord, ...]) -> pd.DataFrame:
    """Some trials of a run, in that order; same columns as `trials_table`."""
    on_front = {trial.number for trial in run.front()}
    rows = [
        {
            **row,
            "on_front": row["trial"] in on_front,
            "skipped": "; ".join(row["skipped"]),
            "violations": "; ".join(f"{name} {by:+.6g}" for name, by in row["violations"].items()),
        }
        for row in (trial_json(run, trial) for trial in trials)
    ]
    columns = {
        name: pd.Series([row[name] for row in rows], dtype=dtype)
        for name, dtype in (_COLUMNS | _more_columns()).items()
    }
    return pd.DataFrame(columns)


def _more_columns() -> dict[str, str]:
    """Columns of costs that have none of their own, and of their ratios to the baseline's."""
    figures = {c.field: "Int64" if c.quantity.is_whole else "float64" for c in all_costs()}
    ratios = {c.ratio: "float64" for c in all_costs() if c.ratio}
    return {name: dtype for name, dtype in (figures | ratios).items() if name not in _COLUMNS}


def hypervolume_history(run: RunRecord) -> pd.DataFrame:
    """`RunRecord.hypervolume` of all comparable trials so far, after each of them.

    A trial that breaks a limit of the run has no row: it adds nothing.

    Returns:
        Columns `trial`, `label`, `role`, `hypervolume`; no rows without a finished baseline.
    """
    trials = run.feasible if run.baseline is not None else ()
    volumes = run.running_hypervolume(trials) if trials else []
    rows = {
        "trial": pd.Series([t.number for t in trials], dtype="int64"),
        "label": pd.Series([t.label for t in trials], dtype="str"),
        "role": pd.Series([t.role for t in trials], dtype="str"),
        "hypervolume": pd.Series(volumes, dtype="float64"),
    }
    return pd.DataFrame(rows)


def controls_hypervolume(run: RunRecord) -> float | None:
    """Hypervolume of the tuned controls alone, on the scale of `hypervolume_history`.

    None without a finished baseline or without a finished control of the run's fidelity. Controls
    that break a limit add nothing.
    """
    controls = [t for t in run.comparable if t.role == "control"]
    if run.baseline is None or not controls:
        return None
    return run.hypervolume(tuple(t for t in controls if run.is_feasible(t)))


def csv_text(frame: pd.DataFrame) -> str:
    """CSV with a header, in which no text can be taken for a formula.

    A text cell that starts with = + - @ or a control character gets a leading apostrophe, which
    spreadsheets read as "this is text". A carriage return becomes a space, for readers disagree on
    whether it ends a row. Numbers are untouched.
    """
    safe = frame.copy()
    for name in safe.columns:
        if pd.api.types.is_string_dtype(safe[name]) or safe[name].dtype == object:
            safe[name] = safe[name].map(_defuse)
    return str(safe.to_csv(index=False, lineterminator="\n"))


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write `csv_text(frame)`, whole or not at all.

    Raises:
        InputError: If the file cannot be written.
    """
    write_atomically(path, csv_text(frame))


def _defuse(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    text = f"'{cell}" if cell.startswith(_FORMULA_STARTS) else cell
    return text.replace("\r", " ")
