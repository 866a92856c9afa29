"""Files of somebody else can hang, fill the memory and crash a process, which is not ours."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from autocompress.errors import AutocompressError, InputError
from autocompress.export.quantize_process import quantize_apart

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def save(folder: Path, nodes: list[onnx.NodeProto], **constants: np.ndarray) -> tuple[Path, Path]:
    """A graph from x to y, with one weight worth quantizing, and examples for it."""
    rows = [helper.make_tensor_value_info(name, FLOAT, ["batch", 16]) for name in ("x", "y")]
    constants["w"] = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), *nodes],
        "graph",
        rows[:1],
        rows[1:],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "net.onnx")
    np.savez(folder / "data.npz", x=np.zeros((4, 16), np.float32))
    return folder / "net.onnx", folder / "data.npz"


def endless(folder: Path) -> tuple[Path, Path]:
    """A loop of 2^62 turns."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["still"]),
            helper.make_node("Sin", ["value"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", INT64, []),
            helper.make_tensor_value_info("go", BOOL, []),
            helper.make_tensor_value_info("value", FLOAT, ["batch", 16]),
        ],
        [
            helper.make_tensor_value_info("still", BOOL, []),
            helper.make_tensor_value_info("next", FLOAT, ["batch", 16]),
        ],
    )
    loop = helper.make_node("Loop", ["turns", "yes", "h"], ["y"], body=body)
    return save(folder, [loop], turns=np.array(2**62), yes=np.array(True))


def test_an_endless_model_is_given_up(tmp_path: Path) -> None:
    words = r"Quantizing .*net\.onnx hangs: nothing in 8 s"
    with pytest.raises(AutocompressError, match=words) as hung:
        quantize_apart(*endless(tmp_path), tmp_path / "out", patience_s=8.0)
    assert "`timeout`" in hung.value.hint
    assert not (tmp_path / "out").exists()


def test_a_model_that_fills_the_memory_is_ended(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Expand", ["h", "shape"], ["huge"]),
        helper.make_node("Sin", ["huge"], ["sines"]),
        helper.make_node("ReduceMax", ["sines"], ["y"], axes=[0], keepdims=0),
    ]
    files = save(tmp_path, nodes, shape=np.array([300_000_000, 1, 16]))
    with pytest.raises(AutocompressError, match=r"held \d\.\d\d GB of memory|does not run"):
        quantize_apart(*files, tmp_path / "out", memory_bytes=2_000_000_000)


def test_data_that_unpack_to_more_than_there_is_are_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autocompress.export.onnx_examples import read_examples

    np.savez_compressed(tmp_path / "data.npz", x=np.zeros(50_000_000, np.float32))
    assert (tmp_path / "data.npz").stat().st_size < 1_000_000
    free = psutil.virtual_memory()._replace(available=300_000_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(InputError, match=r"at most 0\.1 GB.* its arrays take 0\.2 GB"):
        read_examples(tmp_path / "data.npz", onnx.ModelProto(), {})


def test_it_dies_with_who_asked_for_it(tmp_path: Path) -> None:
    path, data = endless(tmp_path)
    code = (
        "import pathlib; from autocompress.export.quantize_process import quantize_apart; "
        f"quantize_apart(*map(pathlib.Path, {[str(path), str(data), str(tmp_path / 'out')]}))"
    )
    asking = subprocess.Popen([sys.executable, "-c", code])
    waited = psutil.Process(asking.pid)
    until = time.monotonic() + 60
    while not (children := waited.children(recursive=True)) or children[0].cpu_times().user < 6:
        assert time.monotonic() < until
        time.sleep(0.2)
    asking.kill()
    asking.wait()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
