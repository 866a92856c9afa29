"""`autocompress inspect`: figures that add up, as a table and as data."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from autocompress.cli.inspect import command
from autocompress.cli.main import main
from autocompress.compress.codes import QuantizedTensor
from autocompress.errors import InputError
from autocompress.packing.packed import write_packed
from autocompress.plan import CompressionPlan, LayerPlan

PLAN = CompressionPlan(layers={"fc": LayerPlan(weight_bits=4)})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A packed product with codes, a float and a name that tries to colour the terminal."""
    codes = np.random.default_rng(0).integers(-7, 8, size=(8, 64)).astype(np.int8)
    weight = QuantizedTensor(codes=codes, scale=np.full(8, 0.25, np.float32), axis=0, bits=4)
    bias = np.linspace(0, 1, 8, dtype=np.float32)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x\x1b[31m", "w", "b"], ["h"], transB=1),
            helper.make_node("Relu", ["h"], ["y"]),
        ],
        "g",
        [value("x\x1b[31m", TensorProto.FLOAT, ["n", 64])],
        [value("y", TensorProto.FLOAT, ["n", 8])],
        initializer=[
            numpy_helper.from_array(weight.dequantize(), "w"),
            numpy_helper.from_array(bias, "b"),
        ],
    )
    path = tmp_path / "model.acz"
    metadata = {"plan": PLAN.to_json(), "note": "1"}
    write_packed(path, helper.make_model(graph), {"w": weight}, metadata)
    return path


def output_of(*arguments: str) -> str:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_inspect_json_adds_up_to_the_file(file: Path) -> None:
    facts = json.loads(output_of(str(file), "--json"))
    assert facts["version"] == 1
    assert facts["size_bytes"] == os.stat(file).st_size == sum(facts["bytes"].values())
    for kind in ("payload", "scales", "floats"):
        assert sum(row["bytes"][kind] for row in facts["tensors"]) == facts["bytes"][kind]
    assert facts["plan_digest"] == PLAN.digest
    assert facts["metadata_keys"] == ["note", "plan"]
    assert list(facts["inputs"].values()) == [["n", 64]]
    assert facts["outputs"] == {"y": ["n", 8]}


def test_inspect_json_describes_each_tensor(file: Path) -> None:
    facts = json.loads(output_of(str(file), "--json"))
    weight, bias = facts["tensors"]
    assert weight["users"] == bias["users"] == ["Gemm_0"]
    assert (weight["shape"], weight["bits"], weight["n_values"]) == ([8, 64], 4, 512)
    assert weight["stored_as"] == "codes, 1 scale"
    assert bias["bytes"] == {"payload": 0, "scales": 0, "floats": 32}
    assert (bias["bits_per_value"], bias["est_entropy_bytes"]) == (32.0, None)
    assert 0.9 * 256 < weight["est_entropy_bytes"] < 256 == 512 * 4 / 8
    assert facts["est_entropy_bytes"] == weight["est_entropy_bytes"]


def test_inspect_prints_a_row_per_tensor_and_the_bytes_by_kind(file: Path) -> None:
    text, facts = output_of(str(file)), json.loads(output_of(str(file), "--json"))
    assert f"format 1, {facts['size_bytes']:,} bytes" in text
    assert f"plan {PLAN.digest}; metadata: note, plan" in text
    assert "inputs: x\\x1b[31m nx64; outputs: y nx8" in text
    assert "est. floor" in text
    assert re.search(r"0 +Gemm_0 +8x64 +codes, 1 scale +4 +512", text)
    assert re.search(r"1 +Gemm_0 +8 +float +32 +8 +0 +- +0 +32 +32\.00", text)
    for kind, n_bytes in facts["bytes"].items():
        assert re.search(rf"{kind} +{n_bytes:,} +[0-9.]+ %", text)
    assert re.search(rf"file +{facts['size_bytes']:,} +100\.0 %", text)
    assert "\x1b" not in text


@pytest.mark.parametrize("damage", [lambda b: b[:-3], lambda b: b[:50] + b"!" + b[51:]])
def test_inspect_refuses_a_damaged_file(damage: Callable[[bytes], bytes], file: Path) -> None:
    file.write_bytes(damage(file.read_bytes()))
    result = CliRunner().invoke(command, [str(file), "--json"])
    assert isinstance(result.exception, InputError)
    assert "must be an undamaged packed model" in str(result.exception)
    assert result.output == ""


@pytest.mark.parametrize("content", [None, b"", b"text"])
def test_inspect_ends_with_one_line_and_exit_code_2(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.acz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SystemExit) as caught:
        main(["inspect", str(path)])
    captured = capsys.readouterr()
    assert caught.value.code == 2
    assert captured.out == ""
    assert captured.err.startswith("Error: ")
    assert "model.acz" in captured.err.splitlines()[0]
