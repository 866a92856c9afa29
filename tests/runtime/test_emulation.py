"""A file on another processor than this one."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from autocompress.errors import InputError
from autocompress.export.verify import _check_elsewhere
from autocompress.runtime import emulation
from autocompress.runtime.emulation import emulator_of
from autocompress.runtime.foreign import quantize_weights
from autocompress.runtime.integer import to_integer
from autocompress.runtime.integer_grids import grids_of


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="Unknown cpu 'avx3'") as unknown:
        emulator_of("avx3")
    assert "Did you mean 'avx2'" in unknown.value.hint
    monkeypatch.setattr(emulation.platform, "system", lambda: "Linux")
    monkeypatch.setattr(emulation.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(emulation.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="which is not installed") as missing:
        emulator_of("avx2")
    assert "apt install qemu-user" in missing.value.hint
    monkeypatch.setattr(emulation.platform, "machine", lambda: "aarch64")
    with pytest.raises(InputError, match="on x86, but this is Linux on aarch64"):
        emulator_of("avx2")


def saturating(bits: int) -> onnx.ModelProto:
    """An integer layer whose first class is 9.6 to the second's 8, and half of that in int16."""
    weight = np.zeros((32, 8), np.float32)
    weight[:16, 0], weight[:16:2, 1] = 0.6, 1.0
    rows = [helper.make_tensor_value_info(*row) for row in
            (("x", TensorProto.FLOAT, ["n", 32]), ("y", TensorProto.FLOAT, ["n", 8]))]  # fmt: skip
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "graph",
        rows[:1],
        rows[1:],
        [numpy_helper.from_array(weight, "w")],
    )
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    exported, calibration = quantize_weights(model, bits), [(np.eye(32, dtype=np.float32),)]
    grids = grids_of(exported, list(exported.layer_nodes), calibration)
    return to_integer(exported, grids, calibration).model


@pytest.mark.parametrize(("bits", "verdict"), [(7, "kept"), (8, "broken")])
def test_eight_bit_weights_saturate_where_there_is_no_vnni(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int, verdict: str
) -> None:
    if not any(map(shutil.which, ("qemu-x86_64", "qemu-x86_64-static"))):
        pytest.skip("needs qemu-user, which emulates other processors")
    cpuinfo = Path("/proc/cpuinfo").read_text()
    if bits == 8 and "vnni" not in cpuinfo:
        pytest.skip("this processor has no VNNI: it answers as the emulated one does")
    onnx.save(saturating(bits), tmp_path / "model.onnx")
    ones = (np.ones((4, 32), np.float32),)
    monkeypatch.setattr("autocompress.export.verify.random_inputs", lambda *_, **__: ones)
    check = _check_elsewhere(tmp_path, emulator_of("avx2"), "avx2", None)
    assert (check.verdict, check.what) == (verdict, "model.onnx on avx2")
    assert ("100.00%" in check.note or "bit for bit" in check.note) == (verdict == "kept")
