import dataclasses
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from autocompress.errors import InputError
from autocompress.packing.container import DIGEST_BYTES, digest, read_container, to_container
from autocompress.packing.packed import read_packed, write_packed
from autocompress.packing.section import read_section, split_payload
from autocompress.packing.tensor_reader import read_tensors
from tests.needs import need_data

HEADER_BYTES = 29


def values_by_use(model: onnx.ModelProto) -> list[tuple[int, tuple[int, ...], bytes]]:
    """Initializers without their names, in order of first use, as comparable facts."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    used = [name for node in model.graph.node for name in node.input if name in tensors]
    return [
        (tensor.data_type, tuple(tensor.dims), comparable(tensor))
        for tensor in (tensors[name] for name in dict.fromkeys([*used, *tensors]))
    ]


def comparable(tensor: onnx.TensorProto) -> bytes:
    if tensor.data_type == TensorProto.STRING:
        return repr(list(tensor.string_data)).encode()
    return numpy_helper.to_array(tensor).tobytes()


def write(example: Any, path: Path) -> int:
    return write_packed(path, example.model, example.quantized, example.metadata)


def fix_checksum(blob: bytes) -> bytes:
    start, rest = blob[:5], blob[5 + DIGEST_BYTES :]
    return start + digest(start, rest) + rest


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_read_packed_inverts_write_packed(
    seed: int, make_example: Callable[[int], Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    example, path = make_example(seed), tmp_path_factory.mktemp("packed") / "model.acz"
    n_bytes = write(example, path)
    packed = read_packed(path)
    assert n_bytes == os.stat(path).st_size
    assert packed.metadata == example.metadata
    assert values_by_use(packed.graph) == values_by_use(example.model)


@pytest.mark.parametrize("seed", range(4))
def test_read_packed_gives_a_model_with_equal_outputs(
    seed: int, make_example: Callable[[int], Any], tmp_path: Path
) -> None:
    example = make_example(seed)
    write(example, tmp_path / "model.acz")
    expected, got = (
        example.run(example.model),
        example.run(read_packed(tmp_path / "model.acz").graph),
    )
    assert [a.tobytes() for a in got] == [a.tobytes() for a in expected]


def test_write_packed_gives_equal_bytes_for_equal_input(
    make_example: Callable[[int], Any], tmp_path: Path
) -> None:
    for name in ("a.acz", "b.acz"):
        write(make_example(3), tmp_path / name)
    assert (tmp_path / "a.acz").read_bytes() == (tmp_path / "b.acz").read_bytes()


def test_write_packed_replaces_the_file_and_leaves_nothing_beside_it(
    example: Any, tmp_path: Path
) -> None:
    path = tmp_path / "model.acz"
    path.write_bytes(b"old")
    write(example, path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.acz"]
    assert read_packed(path).metadata == example.metadata


def test_write_packed_leaves_the_old_file_when_it_fails(example: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.acz"
    path.write_bytes(b"old")
    with pytest.raises(InputError):
        write_packed(path, example.model, example.quantized, {"bad": float("nan")})
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["model.acz"]


def test_write_packed_stores_equal_tensors_once(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    sizes = []
    for second in (weight, weight + 1):
        tensors = [numpy_helper.from_array(weight, "a"), numpy_helper.from_array(second, "b")]
        sizes.append(write_packed(tmp_path / "m.acz", product(tensors), {}, {}))
    assert sizes[1] - sizes[0] == pytest.approx(weight.nbytes, abs=20)


def product(tensors: list[onnx.TensorProto]) -> onnx.ModelProto:
    names = [tensor.name for tensor in tensors]
    nodes = [helper.make_node("MatMul", ["x", names[0]], ["h0"])]
    nodes += [
        helper.make_node("MatMul", [f"h{i}", n], [f"h{i + 1}"]) for i, n in enumerate(names[1:])
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "product",
        [value("x", TensorProto.FLOAT, ["n", 64])],
        [value(nodes[-1].output[0], TensorProto.FLOAT, ["n", 64])],
        initializer=tensors,
    )
    return helper.make_model(graph)


def test_write_packed_refuses_codes_that_are_not_the_weights(example: Any, tmp_path: Path) -> None:
    name, tensor = next(iter(example.quantized.items()))
    codes = tensor.codes.copy()
    codes.flat[0] += 1
    wrong = {**example.quantized, name: dataclasses.replace(tensor, codes=codes)}
    with pytest.raises(InputError, match=f"of '{name}', shape .* must equal its float32 init"):
        write_packed(tmp_path / "model.acz", example.model, wrong, {})


def test_write_packed_refuses_codes_without_an_initializer(example: Any, tmp_path: Path) -> None:
    wrong = {"nobody": next(iter(example.quantized.values()))}
    with pytest.raises(InputError, match="'nobody' is none"):
        write_packed(tmp_path / "model.acz", example.model, wrong, {})


@pytest.mark.parametrize("change", [{"axis": 4}, {"axis": 1}, {"bits": 0}, {"bits": 9}])
def test_write_packed_refuses_impossible_scales_or_bits(
    change: dict[str, int], example: Any, tmp_path: Path
) -> None:
    name = "a rather long name/conv1.weight"
    tensor = dataclasses.replace(example.quantized[name], scale=np.ones(99, np.float32))
    if "bits" in change:
        tensor = example.quantized[name]
    wrong = {name: dataclasses.replace(tensor, **change)}
    with pytest.raises(InputError, match=name):
        write_packed(tmp_path / "model.acz", example.model, wrong, {})


def test_write_packed_refuses_external_data(example: Any, tmp_path: Path) -> None:
    tensor = next(i for i in example.model.graph.initializer if i.name == "conv2.weight")
    tensor.data_location = TensorProto.EXTERNAL
    with pytest.raises(InputError, match=r"'conv2.weight' lies in another file"):
        write(example, tmp_path / "model.acz")


def test_write_packed_refuses_an_invalid_graph(example: Any, tmp_path: Path) -> None:
    example.model.graph.node[0].input[0] = "nobody"
    with pytest.raises(InputError, match="must be valid ONNX"):
        write(example, tmp_path / "model.acz")


def test_write_packed_refuses_a_folder_that_is_a_file(example: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="must be writable"):
        write(example, tmp_path / "file" / "model.acz")


@pytest.mark.parametrize("kind", ["missing", "folder", "text"])
def test_read_packed_names_the_file_it_cannot_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.acz"
    if kind == "folder":
        path.mkdir()
    if kind == "text":
        path.write_text(json.dumps({"not": "a model"}))
    with pytest.raises(InputError, match=r"model\.acz' must be an undamaged packed model, but"):
        read_packed(path)


def test_read_packed_refuses_to_unpack_more_than_allowed(tmp_path: Path) -> None:
    path, zeros = tmp_path / "model.acz", np.zeros((1000, 1000), dtype=np.int32)
    model = product([numpy_helper.from_array(np.eye(64, dtype=np.float32), "eye")])
    model.graph.initializer.append(numpy_helper.from_array(zeros, "zeros"))
    assert write_packed(path, model, {}, {}) < 9000
    assert len(read_packed(path).graph.graph.initializer) == 2
    with pytest.raises(InputError, match="at most 1000000 bytes, but claim 4016384"):
        read_packed(path, max_decoded_bytes=1_000_000)


def mutations(blob: bytes, rng: random.Random) -> bytes:
    """One random change: a flipped bit, a cut, bytes put in or after, a changed byte."""
    at = rng.randrange(len(blob))
    kind = rng.randrange(5)
    if kind == 0:
        return blob[:at] + bytes([blob[at] ^ 1 << rng.randrange(8)]) + blob[at + 1 :]
    if kind == 1:
        return blob[:at]
    if kind == 2:
        return blob[:at] + rng.randbytes(rng.randint(1, 4)) + blob[at:]
    if kind == 3:
        return blob + rng.randbytes(rng.randint(1, 9))
    return blob[:at] + rng.randbytes(1) + blob[at + 1 :]


@pytest.mark.parametrize("is_checksum_fixed", [False, True])
def test_read_packed_refuses_every_mutation(
    is_checksum_fixed: bool, example: Any, tmp_path: Path
) -> None:
    path, rng = tmp_path / "model.acz", random.Random(0)
    write(example, path)
    blob, original = path.read_bytes(), read_packed(path)
    n_refused = 0
    for _ in range(400):
        mutant = mutations(blob, rng)
        mutant = (
            fix_checksum(mutant) if is_checksum_fixed and len(mutant) > HEADER_BYTES else mutant
        )
        path.write_bytes(mutant)
        try:
            assert read_packed(path) == original
        except InputError:
            n_refused += 1
    assert n_refused > 380


@pytest.mark.parametrize("n_header_bytes", range(13, 29))
def test_read_packed_refuses_every_header_byte(
    n_header_bytes: int, example: Any, tmp_path: Path
) -> None:
    path = tmp_path / "model.acz"
    write(example, path)
    blob, original = bytearray(path.read_bytes()), read_packed(path)
    before = blob[n_header_bytes]
    for value in {0, 1, 2, 127, 128, 255, before ^ 1, before ^ 128} - {before}:
        blob[n_header_bytes] = value
        path.write_bytes(fix_checksum(bytes(blob)))
        try:
            assert read_packed(path) == original
        except InputError:
            continue


def test_read_packed_raises_nothing_else_when_all_digests_are_forged(
    example: Any, tmp_path: Path
) -> None:
    path, rng = tmp_path / "model.acz", random.Random(1)
    write(example, path)
    container = read_container(path.read_bytes(), 1 << 20)
    section = read_section(container.section)
    contents = read_tensors(section.rows, split_payload(container.payload, section))
    n_refused = 0
    for i in range(400):
        forged, payload = container.section, container.payload
        if i % 2:
            forged = mutations(forged, rng)
        else:
            payload = mutations(payload, rng)
        path.write_bytes(to_container(forged, payload, digest(forged, *contents)))
        try:
            read_packed(path)
        except InputError:
            n_refused += 1
    assert n_refused > 100


@pytest.mark.realdata
def test_read_packed_inverts_write_packed_when_the_model_has_an_lstm(tmp_path: Path) -> None:
    name = "onnx/silero_vad_16k_op15.onnx"
    source = need_data(name) / name
    model, path = onnx.load(source), tmp_path / "model.acz"
    write_packed(path, model, {}, {})
    feeds = {
        "input": np.random.default_rng(0).normal(size=(1, 576)).astype(np.float32) / 10,
        "state": np.zeros((2, 1, 128), dtype=np.float32),
        "sr": np.array(16000, dtype=np.int64),
    }
    feeds = {value.name: feeds[value.name] for value in model.graph.input}
    expected, got = (
        onnxruntime.InferenceSession(m.SerializeToString()).run(None, feeds)
        for m in (model, read_packed(path).graph)
    )
    assert [a.tobytes() for a in got] == [a.tobytes() for a in expected]
