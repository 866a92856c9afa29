"""The tables that are published: searches against each other, proxies against full training."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from published import result_path

from autocompress.measurement import Measurement
from autocompress.runs.validate.validation import rank_agreement, total_ranks
from quality.fidelity import FULL_EPOCHS, N_PLANS, PROXY_EPOCHS, spread_levels
from quality.nets import Lab

_RIVAL = "tpe-default"
_AT = (10, 20, 30, 50)


def write_tables(data: Path | None, work: Path) -> None:
    """Write every table that there are measurements for, with hardware and versions in its name."""
    for net, kind in (("digits", "searches"), ("cifar", "searches"), ("cifar", "recorded")):
        folder = work / net / kind
        if any(folder.glob("*.json")):
            table = search_table(folder)
            _write(table, f"search-quality-{net}-{kind}")
            summary = summary_table(table)
            _write(summary, f"search-quality-{net}-{kind}-summary")
            print(summary.to_string(), flush=True)
    errors = work / "cifar" / "recorded_errors.json"
    if errors.exists():
        result_path("search-quality-cifar-recorded-errors", "json").write_text(errors.read_text())
    proposals = work / "proposals.json"
    if proposals.exists():
        _write(pd.read_json(proposals), "proposal-time")
    if len(list((work / "full").glob("plan*.json"))) == N_PLANS:
        table = fidelity_table(data, work)
        _write(table, "proxy-fidelity-cifar10-resnet20")
        print(table.to_string(), flush=True)


def _write(table: pd.DataFrame, name: str) -> None:
    table.to_csv(result_path(name, "csv"), index=False, lineterminator="\n")


def search_table(folder: Path) -> pd.DataFrame:
    """One row per search and repeat.

    `trials_to_tpe` and `time_to_tpe` say when a search first reached the hypervolume that Optuna's
    default TPE without our initial design ended with in the same repeat; the time as a share of
    TPE's whole time, the sensitivity table included.
    """
    searches, codes = {}, set()
    for path in sorted(folder.glob("*.json")):
        search = json.loads(path.read_text())
        searches[search["config"], search["repeat"]] = search["rows"]
        codes.add(search["code"])
    if len(codes) > 1:
        raise ValueError(f"The searches in {folder} must be of one version of the code: {codes}.")
    rows = []
    for (config, repeat), trials in searches.items():
        volumes = [trial["volume"] for trial in trials]
        row: dict[str, object] = {"search": config, "repeat": repeat}
        for at in _AT:
            row[f"volume_{at}"] = round(volumes[min(at, len(volumes)) - 1], 4)
        row["linear_volume_50"] = round(trials[-1]["linear_volume"], 5)
        row["seconds_50"] = round(trials[-1]["seconds"], 1)
        row["n_stopped"] = sum(trial["accuracy"] is None for trial in trials)
        rival = searches.get((_RIVAL, repeat))
        if rival is not None:
            whole = rival[-1]["seconds"]
            for name, share in (("tenth", 0.1), ("third", 1 / 3), ("whole", 1.0)):
                in_time = [t["volume"] for t in trials if t["seconds"] <= share * whole]
                row[f"volume_in_{name}_of_tpe_time"] = round(max(in_time, default=0.0), 4)
            reached = [t for t in trials if t["volume"] >= rival[-1]["volume"]]
            first = reached[0] if reached else None
            row["trials_to_tpe"] = first and first["trial"] + 1
            row["time_to_tpe"] = first and round(first["seconds"] / rival[-1]["seconds"], 3)
        rows.append(row)
    return pd.DataFrame(rows).sort_values(["search", "repeat"], ignore_index=True)


def summary_table(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and spread over repeats, and on how many repeats our search ended higher."""
    ours = table[table["search"] == "ours"].set_index("repeat")["volume_50"]
    rows = []
    for search, group in table.groupby("search"):
        final = group.set_index("repeat")["volume_50"]
        both = final.index.intersection(ours.index)
        rows.append(
            {
                "search": search,
                "repeats": len(group),
                **{f"volume_{at}": round(group[f"volume_{at}"].mean(), 3) for at in _AT},
                "std_50": round(final.std(), 3) if len(group) > 1 else None,
                "seconds_50": round(group["seconds_50"].mean()),
                "ours_higher": f"{int((ours[both] > final[both]).sum())} of {len(both)}",
                "ours_higher_linear": _higher(table, group),
                "linear_volume_50": round(group["linear_volume_50"].mean(), 4),
                "trials_to_tpe": _range(group["trials_to_tpe"]),
                "time_to_tpe": _range(group["time_to_tpe"]),
                **{
                    name: round(group[name].mean(), 3)
                    for name in group
                    if name.endswith("_of_tpe_time")
                },
            }
        )
    return pd.DataFrame(rows).sort_values("volume_50", ascending=False, ignore_index=True)


def _higher(table: pd.DataFrame, group: pd.DataFrame) -> str:
    """On how many repeats ours ended higher by bytes and accuracy as they are, no logarithms."""
    ours = table[table["search"] == "ours"].set_index("repeat")["linear_volume_50"]
    theirs = group.set_index("repeat")["linear_volume_50"]
    both = theirs.index.intersection(ours.index)
    return f"{int((ours[both] > theirs[both]).sum())} of {len(both)}"


def _range(values: pd.Series) -> str:
    """Lowest to highest; `never` where one repeat did not get there."""
    if values.isna().any():
        return f"never in {int(values.isna().sum())} of {len(values)}"
    return f"{values.min():g} to {values.max():g}"


def fidelity_table(data: Path, work: Path) -> pd.DataFrame:
    """Rank agreement of every proxy with full training, and what it costs of it."""
    full = [json.loads(path.read_text()) for path in sorted((work / "full").glob("plan*.json"))]
    assert len(full) == N_PLANS, f"{len(full)} of {N_PLANS} plans are trained in full"
    accuracy = np.array([record["accuracy"] for record in full])
    seconds = sum(record["cpu_s"] for record in full)
    ranks = total_ranks(accuracy.tolist(), [None] * len(full))
    best = np.argsort(-accuracy, kind="stable")[: -(-len(full) // 3)]
    rows = []
    for epochs in (0.0, *PROXY_EPOCHS):
        measured = _proxies(data, work, epochs)
        proxy = total_ranks([m.accuracy for m in measured], [m.divergence for m in measured])
        overall, third = rank_agreement(proxy, ranks), rank_agreement(proxy[best], ranks[best])
        rows.append(
            {
                "proxy_epochs": epochs,
                "full_epochs": FULL_EPOCHS,
                "plans": len(full),
                **_columns("all", overall),
                **_columns("best_third", third),
                "share_of_full_cost": round(sum(m.seconds for m in measured) / seconds, 4),
            }
        )
    return pd.DataFrame(rows)


def _columns(name: str, agreement) -> dict[str, object]:
    tau, rho = agreement.kendall, agreement.spearman
    return {
        f"kendall_{name}": tau and round(tau.value, 3),
        f"kendall_{name}_low": tau and round(tau.low, 3),
        f"kendall_{name}_high": tau and round(tau.high, 3),
        f"spearman_{name}": rho and round(rho.value, 3),
    }


def _proxies(data: Path, work: Path, epochs: float) -> list[Measurement]:
    lab = Lab("cifar", data, work, epochs or PROXY_EPOCHS[0])
    plans = spread_levels(lab.space, N_PLANS, seed=0)
    return [lab.evaluate(lab.space.decode(p), 0, fidelity=int(epochs > 0)) for p in plans]
