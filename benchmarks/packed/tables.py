"""The table of all points that are trained, for `results/`."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from published import result_path

_PER_POINT = (
    *("net", "point", "bits", "price", "entropy", "n_epochs", "teacher", "threads"),
    *("size_bytes", "val_accuracy", "test_accuracy", "held_out_accuracy"),
)
_CODERS = ("n_codes", "payload_bytes", "est_entropy_bytes", "huffman_bytes")


def read_points(work: Path) -> list[dict[str, Any]]:
    """What `train` wrote; in a file without a teacher it was the original model."""
    points = [json.loads(path.read_text()) for path in sorted(work.glob("resnet*.json"))]
    if not points:
        raise SystemExit(f"{work} holds no result of `train`.")
    return [{"teacher": point["net"], **point} for point in points]


def write_tables(work: Path) -> None:
    """One row per point, smallest file last, the original model of each net first.

    Points that were published before and are not in the folder stay.
    """
    points = read_points(work)
    path = result_path("packed-size", "csv")
    new = [*(_base_row(point) for point in points), *map(_row, points)]
    rows = {_key(row): row for row in (*(read_table(path) if path.exists() else ()), *new)}
    ordered = sorted(
        rows.values(),
        key=lambda row: (row["net"], int(row.get("n_epochs") or 0), -int(row["size_bytes"])),
    )
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(new[-1]))
        writer.writeheader()
        writer.writerows(ordered)
    print(path)


def read_table(path: Path) -> list[dict[str, str]]:
    """The published rows."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(row.get(name, "")) for name in ("net", "point", "n_epochs", "teacher"))


def write_coders(rows: list[dict[str, Any]]) -> None:
    """One row per number of bits."""
    columns = ("net", "bits", "size_bytes", *_CODERS, "write_seconds", "read_seconds")
    path = result_path("packed-coders", "csv")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(
            {**row, **{key: round(row[key], 3) for key in columns[2:]}} for row in rows
        )
    print(path.read_text())


def _base_row(point: dict[str, Any]) -> dict[str, Any]:
    return {"net": point["net"], "point": "untouched", **_rounded(point["base"])}


def _row(point: dict[str, Any]) -> dict[str, Any]:
    float_inputs = {f"float_input_{key}": v for key, v in point["float_inputs"].items()}
    return {
        **{key: point[key] for key in _PER_POINT},
        "times_smaller": round(point["base"]["size_bytes"] / point["size_bytes"], 2),
        **_rounded(float_inputs),
        "train_seconds": round(point["seconds"]),
        "write_seconds": round(point["write_seconds"], 3),
        "read_seconds": round(point["read_seconds"], 3),
        **{key: round(point[key]) for key in _CODERS},
    }


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {key: round(value, 4) for key, value in figures.items()}
