"""`autocompress inspect`: what every byte of a packed model is for."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autocompress.errors import one_line
from autocompress.terminal.printing import echo

if TYPE_CHECKING:  # rich and onnx take a while: `--help` must not wait for them
    from rich.table import Table

    from autocompress.packing.ledger import Ledger, LedgerRow

_PLAIN_WIDTH = 120
_MAX_NAMED = 2


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(file: Path, as_json: bool) -> None:
    """Show what every byte of the packed model FILE is for.

    A row per tensor: the operators that use it, how it is stored, the bytes of its coded values
    (payload), scales and floats, and beside them a floor that is an estimate: the zero-order
    entropy of its codes. Then the bytes of the whole file by kind, which add up to its size.
    """
    from autocompress.packing.ledger import read_ledger

    ledger = read_ledger(file)
    if as_json:
        echo(json.dumps(_as_json(ledger), indent=2, allow_nan=False))
    else:
        _print(file, ledger)


def _as_json(ledger: Ledger) -> dict[str, Any]:
    return {
        "version": ledger.version,
        "size_bytes": ledger.size_bytes,
        "bytes": dict(ledger.n_bytes),
        "est_entropy_bytes": ledger.est_entropy_bytes,
        "inputs": dict(ledger.inputs),
        "outputs": dict(ledger.outputs),
        "plan_digest": ledger.plan_digest,
        "metadata_keys": list(ledger.metadata_keys),
        "tensors": [
            {
                "users": list(row.users),
                "shape": list(row.shape),
                "stored_as": row.stored_as,
                "bits": row.bits,
                "n_values": row.n_values,
                "bytes": dataclasses.asdict(row.n_bytes),
                "bits_per_value": row.bits_per_value,
                "est_entropy_bytes": row.est_entropy_bytes,
            }
            for row in ledger.rows
        ],
    }


def _print(file: Path, ledger: Ledger) -> None:
    from autocompress.terminal.printing import make_console

    width = shutil.get_terminal_size((_PLAIN_WIDTH, 24)).columns if sys.stdout.isatty() else None
    console = make_console(width=width or _PLAIN_WIDTH, highlight=False, emoji=False)
    plan = f"plan {ledger.plan_digest}" if ledger.plan_digest else "no plan"
    keys = ", ".join(ledger.metadata_keys) or "none"
    for line in (
        f"{file}: format {ledger.version}, {ledger.size_bytes:,} bytes",
        f"inputs: {_values(ledger.inputs)}; outputs: {_values(ledger.outputs)}",
        f"{plan}; metadata: {keys}",
    ):
        console.print(one_line(line), soft_wrap=True)
    console.print(_tensor_table(ledger))
    console.print(_kind_table(ledger))


def _tensor_table(ledger: Ledger) -> Table:
    from rich.text import Text

    table = _table("used by", "shape", "stored as", first="tensor")
    for title in ("bits", "values", "payload", "est. floor", "scales", "floats", "bits/value"):
        table.add_column(title, justify="right", overflow="fold")
    for i, row in enumerate(ledger.rows):
        words = (_users(row), "x".join(map(str, row.shape)) or "scalar", row.stored_as)
        table.add_row(str(i), *(Text(one_line(word)) for word in words), *_figures(row))
    kinds = ledger.n_bytes
    n_values = sum(row.n_values for row in ledger.rows)
    table.add_section()
    table.add_row(
        "all", "", "", "", "", f"{n_values:,}",
        f"{kinds['payload']:,}", f"{ledger.est_entropy_bytes:,.0f}",
        f"{kinds['scales']:,}", f"{kinds['floats']:,}", "",
    )  # fmt: skip
    return table


def _figures(row: LedgerRow) -> list[str]:
    floor, ratio = row.est_entropy_bytes, row.bits_per_value
    return [
        "-" if row.bits is None else str(row.bits),
        f"{row.n_values:,}",
        f"{row.n_bytes.payload:,}",
        "-" if floor is None else f"{floor:,.0f}",
        f"{row.n_bytes.scales:,}",
        f"{row.n_bytes.floats:,}",
        "-" if ratio is None else f"{ratio:.2f}",
    ]


def _kind_table(ledger: Ledger) -> Table:
    table = _table(first="kind")
    for title in ("bytes", "share"):
        table.add_column(title, justify="right")
    for kind, n_bytes in ledger.n_bytes.items():
        table.add_row(kind, f"{n_bytes:,}", f"{100 * n_bytes / ledger.size_bytes:.1f} %")
    table.add_section()
    table.add_row("file", f"{ledger.size_bytes:,}", "100.0 %")
    return table


def _table(*columns: str, first: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column(first, justify="left" if first == "kind" else "right")
    for title in columns:
        table.add_column(title, overflow="fold")
    return table


def _users(row: LedgerRow) -> str:
    """The first users; `--json` names more."""
    named = [*row.users[:_MAX_NAMED], *["..."] * (len(row.users) > _MAX_NAMED)]
    return ", ".join(named) or "-"


def _values(values: Any) -> str:
    """Inputs or outputs with their shapes."""
    parts = [
        f"{name} {'x'.join('?' if dim is None else str(dim) for dim in shape)}".strip()
        for name, shape in values.items()
    ]
    return ", ".join(parts) or "none"
