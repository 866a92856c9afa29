"""`autocompress bench`: what is faster, what is only noise, and what cannot be timed."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto, helper
from torch import nn

from autocompress.cli.main import cli
from autocompress.errors import AutocompressError, InputError
from autocompress.export import bench as bench_module
from autocompress.export.bench import bench
from autocompress.packing.packed import write_packed
from autocompress.runtime.interleaved import Timed
from autocompress.runtime.onnx_export import export_onnx

FLOAT = TensorProto.FLOAT


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


def identity(path: Path, inputs: Mapping[str, Sequence[int | None]], kind: int = FLOAT) -> Path:
    """A graph whose outputs are its inputs."""
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in inputs],
        "graph",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(f"{n}_out", kind, shape) for n, shape in inputs.items()],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


def test_bench_says_what_a_fixed_graph_takes(tmp_path: Path) -> None:
    four = identity(tmp_path / "four.onnx", {"input": [4, 64]})
    assert bench([four], batch_size=4, seconds=0.05).rows[0].n_runs > 0
    assert bench([four], shapes={"input": (4, 64)}, seconds=0.05).rows[0].n_runs > 0
    with pytest.raises(InputError, match=r"a batch of 1 cannot .* takes input \[4, 64\]") as caught:
        bench([four])
    assert "`batch_size=4` or" in caught.value.hint
    assert "`shape=input=4,64`" in caught.value.hint
    with pytest.raises(InputError, match="a batch of 2 cannot be asked for") as caught:
        bench([four], batch_size=2)
    assert "`batch_size=4`," in caught.value.hint


def test_bench_takes_states_and_sequences_as_they_are(tmp_path: Path) -> None:
    inputs = {"x": [1, 5, 16], "h": [2, 1, 32]}
    for batch in (1, 2):
        row = bench([identity(tmp_path / "a.onnx", inputs)], batch_size=batch, seconds=0.05).rows[0]
        assert row.n_runs > 0
    with pytest.raises(InputError, match=r"takes x \[1, 5, 16\], h \[2, 1, 32\]"):
        bench([tmp_path / "a.onnx"], batch_size=3)
    free = identity(tmp_path / "b.onnx", {"h": [2, 1, 32], "x": [None, 16]})
    assert bench([free], batch_size=3, seconds=0.05).rows[0].n_runs > 0


def test_bench_asks_for_free_sizes_in_the_form_of_the_input(tmp_path: Path) -> None:
    free = identity(tmp_path / "free.onnx", {"x": [None, None, 16]})
    with pytest.raises(InputError, match=r"shape \[\?, \?, 16\], which is not fixed") as caught:
        bench([free], batch_size=4)
    assert "`shape=x=4,32,16" in caught.value.hint
    with pytest.raises(
        InputError, match=r"`batch_size=64` contradicts the shape \[1, 5, 16\]"
    ) as caught:
        bench([free], batch_size=64, shapes={"x": (1, 5, 16)})
    assert "`shape=x=64,5,16" in caught.value.hint


def test_bench_gives_each_file_the_shapes_of_its_own_inputs(tmp_path: Path) -> None:
    files = [identity(tmp_path / f"{name}.onnx", {name: [None, None, 2]}) for name in "xy"]
    shapes = {"x": (1, 5, 2), "y": (1, 5, 2)}
    assert all(row.n_runs > 0 for row in bench(files, shapes=shapes, seconds=0.05).rows)
    with pytest.raises(InputError, match="Unknown input 'z'") as caught:
        bench(files, shapes={**shapes, "z": (1,)})
    assert "x, y" in caught.value.hint


def test_bench_fails_the_file_alone_that_cannot_take_what_is_asked_for(tmp_path: Path) -> None:
    free = identity(tmp_path / "free.onnx", {"x": [None, 8]})
    fixed = identity(tmp_path / "fixed.onnx", {"x": [1, 8]})
    words = identity(tmp_path / "words.onnx", {"x": [None, 8]}, TensorProto.STRING)
    good, *bad = bench([free, fixed, words], batch_size=4, seconds=0.05).rows
    assert (good.verdict, *(row.verdict for row in bad)) == ("reference", "failed", "failed")
    assert bad[0].error.startswith("a batch of 4 cannot be asked for: it takes x [1, 8]. Give ")
    assert bad[1].error.startswith("the input 'x' is of type tensor(string)")
    with pytest.raises(InputError, match=r"fixed\.onnx: a batch of 4"):
        bench([fixed, free], batch_size=4)


@pytest.mark.parametrize("size", [10**15, 10**21])
def test_bench_says_which_shape_does_not_fit_in_memory(tmp_path: Path, size: int) -> None:
    free = identity(tmp_path / "free.onnx", {"x": [None, 8]})
    with pytest.raises(InputError, match=rf"'x' of shape \[{size}, 8\] does not fit in memory"):
        bench([free], batch_size=size)


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
