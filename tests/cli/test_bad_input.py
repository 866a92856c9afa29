"""Every bad input: one clear line on stderr, a documented exit code, nothing left behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autocompress.cli.main import main
from autocompress.errors import InputError

GOOD = """
import torch
from torch import nn
from autocompress import Task

def task(**changes):
    torch.manual_seed(0)
    x = torch.randn(64, 4)
    fields = dict(model=nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)),
                  train=(x, (x[:, 0] > 0).long()), val=(x, (x[:, 0] > 0).long()))
    return Task(**{**fields, **changes})

def raises():
    raise ValueError("no weights here")

def returns_none():
    pass

def not_a_module():
    return task(model=42)

def empty():
    return task(train=(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)))

def labels_out_of_range():
    return task(val=(torch.randn(8, 4), torch.full((8,), 7)))

def float_labels():
    return task(val=(torch.randn(8, 4), torch.zeros(8)))

def wrong_shape():
    return task(train=(torch.randn(8, 5), torch.zeros(8, dtype=torch.long)))

def unequal():
    return task(val=(torch.randn(8, 4), torch.zeros(9, dtype=torch.long)))

def needs_data(data):
    return task()

"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "t.py").write_text(GOOD)
    (tmp_path / "broken.py").write_text("x = 1\nimport nonexistent_package\n")
    (tmp_path / "typo.yaml").write_text("rules:\n  - match: {name: '9*'}\n    weight_bits: [8]\n")
    (tmp_path / "bits.yaml").write_text("rules:\n  - weight_bits: [9]\n")
    (tmp_path / "knobs.yaml").write_text("rules:\n  - wieght_bits: [8]\n")
    (tmp_path / "in_the_way").write_text("a file")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main([*arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code


CASES = {
    "missing file": (("search", "nowhere.py"), "nowhere.py"),
    "missing function": (("search", "t.py:taks"), "Did you mean 'task'"),
    "not importable": (("search", "broken.py"), "line 2"),
    "factory raises": (("search", "t.py:raises"), "no weights here"),
    "factory returns nothing": (("search", "t.py:returns_none"), "NoneType"),
    "model is not a Module": (("search", "t.py:not_a_module"), "torch.nn.Module, but got int"),
    "empty data": (("search", "t.py:empty"), "at least one example"),
    "labels out of range": (("search", "t.py:labels_out_of_range"), "[0, 1]"),
    "labels of a wrong type": (("search", "t.py:float_labels"), "int64"),
    "inputs of a wrong shape": (("search", "t.py:wrong_shape"), "(2, 5)"),
    "unequal lengths": (("search", "t.py:unequal"), "[8] inputs and 9 targets"),
    "missing --data": (("search", "t.py:needs_data"), "--data"),
    "unknown task argument": (("search", "t.py:raises", "--task-arg", "x=1"), "'x'"),
    "bad task argument": (("search", "t.py", "--task-arg", "x"), "key=value"),
    "unknown task name": (("search", "digit"), "digits"),
    "budget 0": (("search", "t.py", "--budget", "0"), "at least 1, but got 0"),
    "negative epochs": (("search", "t.py", "--proxy", "epochs=-1"), "> 0, but got -1.0"),
    "unknown proxy": (("search", "t.py", "--proxy", "quik"), "'quick'"),
    "unknown setting": (("search", "t.py", "--proxy", "learning=1"), "'learning_rate'"),
    "setting of no use": (("search", "t.py", "--proxy", "none,epochs=1"), "trains nothing"),
    "old option for epochs": (("search", "t.py", "--proxy-epochs", "1"), "--proxy-epochs"),
    "size without a unit": (("search", "t.py", "--max-size", "ten"), "a size in B, kB"),
    "no size": (("search", "t.py", "--max-size", "0"), "more than 0 bytes, but got 0"),
    "drop above 1": (("search", "t.py", "--max-drop", "2"), "a share in [0, 1]"),
    "no latency": (("search", "t.py", "--max-latency", "0ms"), "more than 0 ms, but got 0"),
    "stalled at once": (("search", "t.py", "--until-stalled", "0"), "at least 1, but got 0"),
    "no time": (("search", "t.py", "--timeout", "0s"), "more than 0 s, but got 0"),
    "time without meaning": (("search", "t.py", "--timeout", "soon"), "a time in s, m or h"),
    "unknown part": (("search", "t.py", "--without", "surogate"), "Did you mean 'surrogate'?"),
    "export with no drop": (("export", "--max-drop", "much"), "or points as 1% or 1pt"),
    "unknown objective": (("search", "t.py", "--objectives", "accuracy,sise"), "'size'"),
    "no cost": (("search", "t.py", "--objectives", "accuracy"), "a cost"),
    "unknown sampler": (("search", "t.py", "--sampler", "tep"), "'tpe'"),
    "unknown space": (("search", "t.py", "--space", "defualt"), "'default'"),
    "missing space file": (("search", "t.py", "--space", "no.yaml"), "no.yaml"),
    "rule that matches nothing": (("search", "t.py", "--space", "typo.yaml"), "matches no layer"),
    "bits out of range": (("search", "t.py", "--space", "bits.yaml"), "but got 9"),
    "misspelt key": (("search", "t.py", "--space", "knobs.yaml"), "wieght_bits"),
    "unknown device": (("search", "t.py", "--device", "cuda:77"), "cuda:77"),
    "unwritable folder": (("search", "t.py", "--results", "in_the_way/x"), "in_the_way"),
    "unknown option": (("search", "--bugdet", "3"), "--bugdet"),
    "unknown command": (("serach",), "serach"),
    "no run": (("front",), "no run"),
    "unknown run": (("front", "nope"), "nope"),
    "export without a point": (("export",), "--knee"),
    "export two points": (("export", "--knee", "--trial", "1"), "Exactly one"),
    "quantize a folder": (("quantize", ".", "--data", "x.npz"), "is no ONNX model"),
    "unpack nothing": (("unpack", "nowhere.acz"), "nowhere.acz"),
    "unpack something else": (("unpack", "t.py"), "t.py"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_and_exit_code_2(
    case: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    arguments, named = CASES[case]
    code = run(*arguments)
    captured = capsys.readouterr()

    assert code == 2
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert named in captured.err
    error = [line for line in captured.err.splitlines() if line.startswith("Error: ")]
    assert len(error) == 1
    after = {
        p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and "__pycache__" not in str(p)
    }
    assert after == before


def test_debug_shows_the_traceback(folder: Path) -> None:
    with pytest.raises(InputError, match="at least 1"):
        main(["--debug", "search", "t.py", "--budget", "0"])


def test_help_of_every_command_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    text = capsys.readouterr().out
    for name in ("analyze", "export", "front", "report", "search", "unpack"):
        assert name in text
        assert run(name, "--help") == 0
        assert "Usage" in capsys.readouterr().out
    assert "75" in text


def test_closed_pipe_ends_quietly(
    environment: dict[str, str],
) -> None:

    done = subprocess.run(
        f"{sys.executable} -m autocompress --help | head -1",
        shell=True,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stderr == ""


def test_unwritable_folder_is_refused_before_any_work(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    (folder / "locked").mkdir(mode=0o500)
    assert run("search", "t.py", "--results", "locked") == 2
    assert "writable" in capsys.readouterr().err


def test_analyze_says_what_gets_no_knob(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("analyze", "t.py") == 0
    text = capsys.readouterr().out
    assert "weight_bits" in text
    assert "the model's output" in text


def test_analyze_json_holds_layers_groups_knobs_and_reasons(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("analyze", "t.py", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert [layer["name"] for layer in facts["layers"]] == ["0", "2"]
    assert facts["groups"][0]["n_channels"] == 8
    assert {knob["name"] for knob in facts["knobs"]} >= {"weight_bits:0", "activation_bits:all"}
    assert any("output" in refused["reason"] for refused in facts["refused"])
