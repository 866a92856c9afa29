"""Run folders and bundles of somebody else: whatever they hold, commands say one clear line."""

import contextlib
import json
import random
import re
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import onnx
import pytest

from autocompress.cli.main import cli, main
from autocompress.packing.packed import write_packed

EVIL: Final = "a\x1b[2J\x1b]0;t\x07\u202eb\r\nkept: accuracy of model.onnx [bold]x[/bold] [/] é"
MARKUP: Final = "[bold]x[/bold] [/]"
VALUES: Final = (
    *("null", "[]", "{}", "true", '"text"', "-1", "0", "0.5", "7", "1e400", "NaN", "1" + "0" * 400),
    *('"x"', "[[1]]", '{"a": 1}', "[" * 5000 + "]" * 5000, json.dumps(EVIL), '"../../etc/passwd"'),
)
READING: Final = (
    ("front", "u"),
    ("front", "u", "--all", "--json"),
    ("front", "u", "--all", "--csv"),
    ("show", "u", "--trial", "1"),
    ("show", "u", "--trial", "1", "--json"),
    ("studies",),
    ("studies", "--json"),
    ("doctor", "u"),
    ("report", "u", "-o", "r.html"),
    ("compare", "u"),
    ("export", "u", "--trial", "1", "-o", "out"),
    ("refine", "u"),
    ("resume", "u"),
)
STEERING: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028]")
DOCUMENTED: Final = {0, 1, 2, 3, 4, 5, 75}


@pytest.fixture
def folder(untimed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run, its database one file, that was not searched on this machine."""
    with contextlib.closing(sqlite3.connect(untimed / "study.db")) as database:
        database.execute("PRAGMA journal_mode = DELETE")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path / "another"))
    return untimed


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code and words of a command, held against what every command owes."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    out, err = capsys.readouterr()
    code = int(ended.value.code or 0)
    assert "should have been a clear message" not in err, (arguments, err)
    assert code in DOCUMENTED, (arguments, err)
    for text in (out, err):
        assert not STEERING.search(text), (arguments, text)
        assert not [
            line for line in text.splitlines() if line.startswith("kept: accuracy of model.onnx")
        ], arguments
    is_list = arguments[0] == "check"
    # Python says so on its own where something is cleaned up in the depth of a recursion
    assert code == 0 or is_list or err.count("\n") <= 4 or "Exception ignored" in err, (
        arguments,
        err,
    )
    return code, out, err


def nodes(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in a document something stands."""
    yield path
    children = document.items() if isinstance(document, dict) else ()
    children = enumerate(document) if isinstance(document, list) else children
    for key, child in children:
        yield from nodes(child, (*path, key))


def put(document: Any, path: tuple[Any, ...], text: str) -> str:
    """JSON of a document with some text in one place."""
    mark = "\ue000mark"
    if not path:
        return text
    parent = document = json.loads(json.dumps(document))
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = mark
    return json.dumps(document, ensure_ascii=False).replace(f'"{mark}"', text)


def spoil(path: Path, chance: random.Random) -> str:
    """Put something hostile somewhere in a study; what was done."""
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        if chance.random() < 0.25:
            table, column, values = chance.choice(
                (
                    ("trial_values", "value", (None, "x", -5, float("inf"), 2**62)),
                    ("trial_params", "param_value", (None, "x", 99, -1, 0.5)),
                    ("trial_params", "distribution_json", ("{", "{}", "null", '{"name": 1}')),
                    ("trial_params", "param_name", ("x", EVIL)),
                    ("trials", "state", ("NONSENSE", "WAITING", "PRUNED", "COMPLETE")),
                    ("trials", "number", (99, -3, "x")),
                    ("trials", "datetime_start", ("x", None, 5)),
                    ("study_directions", "direction", ("MINIMIZE", "x")),
                    ("studies", "study_name", ("other", EVIL)),
                )
            )
            value = chance.choice(values)
            rows = [row for (row,) in database.execute(f"SELECT rowid FROM {table}")]
            row = chance.choice(rows)
            with contextlib.suppress(sqlite3.IntegrityError):
                database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, row))
            return f"{table}.{column} = {value!r}"
        table = chance.choice(("study_user_attributes", "trial_user_attributes"))
        rows = database.execute(f"SELECT rowid, key, value_json FROM {table}").fetchall()
        row, key, text = chance.choice(rows)
        document = json.loads(text)
        where, value = chance.choice(list(nodes(document))), chance.choice(VALUES)
        database.execute(
            f"UPDATE {table} SET value_json = ? WHERE rowid = ?", (put(document, where, value), row)
        )
        return f"{table}.{key}{list(where)} = {value[:40]}"


@pytest.mark.parametrize("half", [0, 1])
def test_of_a_hundred_hostile_studies_each_gets_a_clear_answer(
    folder: Path, capsys: pytest.CaptureFixture[str], half: int
) -> None:
    path, chance = folder / "study.db", random.Random(half)
    whole = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    complaints = []
    for at in range(50):
        for name, content in whole.items():
            (folder / name).write_bytes(content)
        what = spoil(path, chance)
        in_turns = (READING[(at + 4 * k) % len(READING)] for k in range(3))
        for arguments in (("front", "u"), ("doctor", "u"), *in_turns):
            try:
                said(capsys, *arguments)
            except AssertionError as error:
                complaints.append(f"{what}: {str(error)[:300]}")
            shutil.rmtree("out", ignore_errors=True)
    assert complaints == []


def renamed(document: Any, names: Mapping[str, str]) -> Any:
    """A document with other names in it, keys too."""
    if isinstance(document, dict):
        return {renamed(key, names): renamed(value, names) for key, value in document.items()}
    if isinstance(document, list):
        return [renamed(item, names) for item in document]
    return names.get(document, document) if isinstance(document, str) else document


def rename_all(path: Path) -> None:
    """Give everything in a study a hostile name: layers, knobs, trials, the task, its words."""
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        found = dict(database.execute("SELECT key, value_json FROM study_user_attributes"))
        knobs, info = json.loads(found["knobs"]), json.loads(found["info"])
        names = {target: target + MARKUP for knob in knobs for target in knob["targets"]}
        names |= {knob["label"]: knob["label"] + MARKUP for knob in knobs}
        kinds = [f"{knob['kind']}:{knob['label']}" for knob in knobs]
        names |= {name: name + MARKUP for name in kinds}
        said = (info["task_name"], info["metric"], info["hardware"]["processor"])
        names |= {text: text + EVIL for text in said}
        for table in ("study_user_attributes", "trial_user_attributes"):
            rows = database.execute(f"SELECT rowid, key, value_json FROM {table}").fetchall()
            for row, key, text in rows:
                value = json.loads(text)
                value = value + EVIL if key == "label" else renamed(value, names)
                database.execute(
                    f"UPDATE {table} SET value_json = ? WHERE rowid = ?", (json.dumps(value), row)
                )
        database.execute("UPDATE trial_params SET param_name = param_name || ?", (MARKUP,))


NET: Final = """
import torch
from torch import nn
from autocompress import Task

def task():
    torch.manual_seed(0)
    model = nn.Sequential()
    for i, layer in enumerate((nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))):
        model.add_module(f"{i}" + NAME, layer)
    x = torch.randn(96, 8)
    y = (x[:, 0] > 0).long()
    return Task(model=model, train=(x, y), val=(x, y), name=EVIL)
"""


def hostile_onnx(path: Path) -> None:
    """A file whose nodes, tensors and texts have such names."""
    rows = [
        onnx.helper.make_tensor_value_info(name + EVIL, onnx.TensorProto.FLOAT, ["n", 32])
        for name in "xy"
    ]
    weight = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    node = onnx.helper.make_node("MatMul", ["x" + EVIL, "w" + EVIL], ["y" + EVIL], name=EVIL)
    graph = onnx.helper.make_graph(
        [node], EVIL, rows[:1], rows[1:], [onnx.numpy_helper.from_array(weight, "w" + EVIL)]
    )
    opset = onnx.helper.make_opsetid("", 17)
    model = onnx.helper.make_model(
        graph, opset_imports=[opset], ir_version=8, producer_name=EVIL, doc_string=EVIL
    )
    onnx.save(model, path)
    write_packed(path.with_suffix(".acz"), model, {}, {EVIL: EVIL})


def test_names_steer_no_terminal_whatever_the_command(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Every command, on a run, a bundle, a file and a task whose every name is hostile."""
    rename_all(folder / "study.db")
    (folder / "trials.jsonl").unlink()
    evil_name = EVIL.replace("/", "|")
    out = evil_name.partition("\r")[0]  # printed as it is, and named by whoever reads it
    shutil.copytree(folder, folder.with_name(evil_name))
    every = [*READING, ("report", "u", "-o", "r.html"), ("validate", "u"), ("show", "u", evil_name)]
    every += [("compare", "u", evil_name), *((*a[:1], evil_name, *a[2:]) for a in READING)]
    for name in ("net.onnx", f"{evil_name}.onnx"):
        hostile_onnx(tmp_path / name)
        packed = name.replace(".onnx", ".acz")
        np.savez(tmp_path / "data.npz", **{"x" + EVIL: np.zeros((4, 32), np.float32)})
        every += [("bench", name, packed, "--seconds", "0.05"), ("inspect", packed)]
        every += [("inspect", packed, "--json"), ("unpack", packed, "-o", f"{out}.onnx")]
        every += [("quantize", name, "--data", "data.npz", "-o", f"out{out}")]
        every += [("quantize", name, "--data", packed)]
    bundle = tmp_path / evil_name
    shutil.copytree(Path(__file__).parents[1] / "data" / "version_0_1" / "bundle", bundle)
    (bundle / evil_name).write_text("mine")
    every += [("verify", evil_name)]
    task, refused = f"task{evil_name}.py", "refused.py"
    for name, layers in ((task, MARKUP), (refused, EVIL.replace(".", "_"))):
        (tmp_path / name).write_text(f"EVIL, NAME = {EVIL!r}, {layers!r}\n{NET}")
    quick = ("--executor", "inline", "--threads", "1")
    every += [("analyze", task), ("check", task), ("analyze", refused), ("init", task)]
    every += [("search", task, "--budget", "2", *quick), ("search", evil_name), (evil_name,)]
    every += [("front", "u", evil_name), ("front", f"--{evil_name}"), ("watch", f"no{evil_name}")]
    codes = {}
    for arguments in every:
        codes[arguments] = said(capsys, *arguments)[0]
    assert set(cli.list_commands(click.Context(cli))) <= {arguments[0] for arguments in every}
    for command in ("front", "show", "studies", "doctor", "report", "inspect", "quantize", "bench"):
        assert 0 in {code for given, code in codes.items() if given[0] == command}, command

    manifest = json.loads((bundle / "manifest.json").read_text())
    for where in nodes(manifest):
        value = manifest
        for key in where:
            value = value[key]
        if isinstance(value, str):
            (bundle / "manifest.json").write_text(put(manifest, where, json.dumps(value + EVIL)))
            said(capsys, "verify", evil_name)
