"""`autocompress bench`: what is faster, what is only noise, and what cannot be timed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from autocompress.cli.main import cli
from autocompress.errors import AutocompressError, InputError
from autocompress.export import bench as bench_module
from autocompress.export.bench import bench
from autocompress.packing.packed import write_packed
from autocompress.runtime.interleaved import Timed
from autocompress.runtime.onnx_export import export_onnx


def write(path: Path, width: int) -> Path:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 3)).eval()
    exported = export_onnx(module, (torch.zeros(2, 64),), {})
    if path.suffix == ".acz":
        write_packed(path, exported.model, {}, {})
    else:
        onnx.save(exported.model, path)
    return path


@pytest.fixture
def large(tmp_path: Path) -> Path:
    return write(tmp_path / "large.onnx", 4096)


def test_bench_tells_faster_from_the_same(large: Path, tmp_path: Path) -> None:
    packed, small = write(tmp_path / "packed.acz", 4096), write(tmp_path / "small.onnx", 16)
    found = bench([large, packed, small], seconds=0.2)
    reference, same, faster = found.rows
    assert (reference.verdict, reference.speedup) == ("reference", 1.0)
    assert faster.verdict == "faster"
    assert faster.speedup_high >= faster.speedup >= faster.speedup_low > 1.0
    assert 0.5 < same.speedup < 2.0  # the same graph, however noisy the machine
    assert found.noise >= 0.02
    assert [row.size_bytes for row in found.rows] == [
        path.stat().st_size for path in (large, packed, small)
    ]


@pytest.mark.parametrize(
    ("own", "second", "verdict"),
    [
        (0.5, 1.0, "faster"),
        (2.0, 1.0, "slower"),
        (0.99, 1.0, "no measurable difference"),
        (0.9, 1.2, "no measurable difference"),  # the reference differs from itself by more
    ],
)
def test_bench_believes_a_difference_only_beyond_the_noise(
    large: Path, monkeypatch: pytest.MonkeyPatch, own: float, second: float, verdict: str
) -> None:
    def timed(pairs: object, budget_s: float) -> Timed:
        blocks = np.array([[1.0, own, second]] * 20)
        return Timed(blocks_ms=blocks, n_runs=(1, 1, 1))

    monkeypatch.setattr(bench_module, "time_in_turns", timed)
    assert bench([large, large]).rows[1].verdict == verdict


def test_bench_names_the_file_and_what_to_do(large: Path, tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.onnx"
    nonsense.write_bytes(b"no graph")
    damaged = write(tmp_path / "damaged.acz", 8)
    damaged.write_bytes(damaged.read_bytes()[:-7] + b"damaged")
    for files, words in (
        ([tmp_path / "nowhere.onnx"], "nowhere.onnx must exist"),
        ([nonsense], "nonsense.onnx: ONNX Runtime on .* refuses"),
        ([damaged], "damaged.acz"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            bench(files)
        assert "\n" not in caught.value.message
    good, bad = bench([large, nonsense], seconds=0.05).rows
    assert (good.verdict, bad.verdict) == ("reference", "failed")
    assert "refuses the graph" in bad.error
    result = CliRunner().invoke(cli, ["bench", str(large), str(nonsense), "--seconds", "0.05"])
    assert isinstance(result.exception, AutocompressError)
    assert "1 of 2 did not run" in result.exception.message
    with pytest.raises(InputError, match="Unknown input 'nowhere'"):
        bench([large], shapes={"nowhere": (1, 64)})
    name = onnx.load(large).graph.input[0].name
    with pytest.raises(InputError, match="does not run on inputs of"):
        bench([large], shapes={name: (1, 65)})


def test_bench_says_which_batches_a_fixed_graph_takes(large: Path) -> None:
    model = onnx.load(large)
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    sizes[0].Clear()
    sizes[0].dim_value = 4
    onnx.save(model, large)
    assert bench([large], batch_size=4, seconds=0.05).rows[0].n_runs > 0
    with pytest.raises(InputError, match="a batch of 1 cannot be asked for") as caught:
        bench([large])
    assert "--batch 4" in caught.value.hint
    sizes[1].Clear()
    sizes[1].dim_param = "length"
    onnx.save(model, large)
    with pytest.raises(InputError, match="is not fixed") as caught:
        bench([large], batch_size=4)
    assert "--shape" in caught.value.hint


def test_bench_command_prints_a_table_and_json(large: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "autocompress", "bench", str(large), "--seconds", "0.05"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "reference" in done.stdout
    assert "Noise: " in done.stderr
    options = ["--json", "--seconds", "0.05"]
    result = CliRunner().invoke(cli, ["bench", str(large), str(large), *options])
    first, _ = json.loads(result.output)["files"]
    assert first["verdict"] == "reference"
    for options, words in (
        (["--batch", "0"], "must be positive"),
        (["--shape", "input=1,x"], "must look like"),
    ):
        result = CliRunner().invoke(cli, ["bench", str(large), *options])
        assert isinstance(result.exception, InputError)
        assert words in result.exception.message
