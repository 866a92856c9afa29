"""Small random networks with initializers of many kinds."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from autocompress.compress.codes import (
    CodebookTensor,
    GridTensor,
    HashedTensor,
    QuantizedTensor,
    StoredWeight,
)

KINDS = ("quantized", "grid", "codebook", "hashed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    model: onnx.ModelProto
    quantized: Mapping[str, StoredWeight]
    metadata: Mapping[str, object]

    def run(self, model: onnx.ModelProto) -> list[NDArray[np.float32]]:
        rng = np.random.default_rng(0)
        image = rng.normal(size=(2, 3, 6, 6)).astype(np.float32)
        session = onnxruntime.InferenceSession(model.SerializeToString())
        return session.run(None, {"image": image})


def quantize(rng: np.random.Generator, shape: tuple[int, ...], bits: int, axis: int):
    high = 2 ** (bits - 1) - 1
    codes = np.clip(np.rint(rng.normal(size=shape) * high / 2), -high - 1, high).astype(np.int8)
    scale = rng.uniform(0.01, 0.1, size=shape[axis]).astype(np.float32)
    if rng.random() < 0.5:
        scale = scale.astype(np.float16).astype(np.float32)
    return QuantizedTensor(codes=codes, scale=scale, axis=axis, bits=bits)


def random_scales(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """In each of the forms a file knows, negative ones included."""
    form = int(rng.integers(0, 5))
    if form == 0:
        return np.ones(shape, np.float32)
    scale = rng.uniform(0.01, 0.1, size=shape) * rng.choice([-1, 1], size=shape)
    if form in (1, 2):
        scale[:] = scale.flat[0] if scale.size else 0
    if form in (2, 3):
        scale = scale.astype(np.float16)
    return scale.astype(np.float32)


def random_weight(kind: str, seed: int, shape: tuple[int, ...] | None = None) -> StoredWeight:
    """A stored weight of up to three dimensions, of any bits, scales and size."""
    rng = np.random.default_rng(seed)
    if shape is None:
        shape = tuple(int(n) for n in rng.integers(1, 7, size=int(rng.integers(1, 4))))
    axis, bits = int(rng.integers(0, len(shape))), int(rng.integers(1, 9))
    n_channels, n_weights = shape[axis], int(np.prod(shape))
    codes = rng.integers(0, 2**bits, size=shape).astype(np.uint8)
    if kind == "quantized":
        low = -(2 ** (bits - 1))
        scale = np.abs(random_scales(rng, (n_channels,)))
        signed = (codes.astype(np.int16) + low).astype(np.int8)
        return QuantizedTensor(codes=signed, scale=scale, axis=axis, bits=bits)
    if kind == "grid":
        block_size = int(rng.integers(1, n_weights + 1))
        wide = (n_channels, -(-(n_weights // n_channels) // block_size))
        return GridTensor(
            codes=codes,
            scale=random_scales(rng, wide),
            zero_point=rng.integers(0, 2**bits, size=wide).astype(np.uint8),
            block_size=block_size,
            axis=axis,
            bits=bits,
        )
    scale = random_scales(rng, (n_channels,))
    n_entries = int(rng.integers(1, (n_weights if kind == "hashed" else 2**bits) + 1))
    values = np.sort(rng.normal(size=n_entries).astype(rng.choice([np.float16, np.float32])))
    values = values.astype(np.float32)
    if kind == "codebook":
        return CodebookTensor(
            codes=(codes.astype(np.int16) % n_entries).astype(np.uint8),
            codebook=values,
            scale=scale,
            axis=axis,
            bits=bits,
        )
    return HashedTensor(
        shape=shape,
        values=values,
        seed=int(rng.integers(0, 2**32)),
        scale=scale,
        axis=axis,
        bits=bits,
        is_transposed=len(shape) == 2 and bool(rng.random() < 0.5),
    )


def build_example(seed: int) -> Example:
    """Conv, Gemm with plain and transposed codes, If with captured names, odd initializers."""
    rng = np.random.default_rng(seed)
    width, bits = int(rng.integers(1, 9)), int(rng.integers(2, 9))
    quantized = {
        "a rather long name/conv1.weight": quantize(rng, (width, 3, 3, 3), bits, 0),
        "fc.weight": quantize(rng, (5, width), bits, int(rng.integers(0, 2))),
        "fc.weight.T": quantize(rng, (4, 5), bits, 0),
    }
    codes = quantized["a rather long name/conv1.weight"].codes
    quantized |= {kind: random_weight(kind, seed) for kind in KINDS}
    quantized["shared"] = QuantizedTensor(
        codes=np.clip(-codes, -127, 127), scale=np.ones(width, np.float32), axis=0, bits=8
    )
    weights = {name: tensor.dequantize() for name, tensor in quantized.items()}
    weights["fc.weight.T"] = np.ascontiguousarray(weights["fc.weight.T"].T)
    weights |= {
        "conv1.bias": rng.normal(size=width).astype(np.float16).astype(np.float32),
        "conv2.weight": rng.normal(size=(width, width, 1, 1)).astype(np.float32),
        "conv2.again": rng.normal(size=(width, width, 1, 1)).astype(np.float32),
        "table": rng.integers(-4, 4, size=(40, 4)).astype(np.int8),
        "rows": rng.integers(0, 40, size=2).astype(np.int64),
        "scalar": np.float32(rng.normal()),
        "empty": np.zeros((0, 3), dtype=np.float32),
        "doubles": rng.normal(size=3),
        "flags": np.array([True, False]),
        "wide": rng.integers(-(2**62), 2**62, size=20),
        "extremes": np.array([0, 2**64 - 1] * 10, dtype=np.uint64),
        "twice": np.full(30, 7, dtype=np.int32),
        "twice.again": np.full((5, 6), 7, dtype=np.int32),
        "sparse": np.where(rng.random(99) < 0.1, rng.normal(size=99), 0).astype(np.float32),
        "codes": np.clip(codes, -127, 127),
        "conv2.turned": np.zeros((width, width), np.float32),
        "special": np.array([np.nan, -0.0, np.inf, 1e-8, 1e30], dtype=np.float32),
    }
    weights["conv2.again"][:] = weights["conv2.weight"]
    weights["conv2.turned"][:] = weights["conv2.weight"][:, :, 0, 0].T
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    tensors.append(helper.make_tensor("words", TensorProto.STRING, [2], [b"ab", b"c"]))
    tensors.append(helper.make_tensor("short", TensorProto.BFLOAT16, [3], [0.5, 1.0, -2.0]))
    tensors.append(helper.make_tensor("listed", TensorProto.FLOAT, [3], [0.1, 0.2, 0.3]))
    return Example(
        model=_model(tensors), quantized=quantized, metadata={"seed": seed, "é": [1, None]}
    )


def _model(tensors: list[onnx.TensorProto]) -> onnx.ModelProto:
    node = helper.make_node
    then = helper.make_graph(
        [node("Add", ["gemm/out", "scalar"], ["then/out"], name="inner")],
        "then",
        [],
        [helper.make_tensor_value_info("then/out", TensorProto.FLOAT, ["n", 4])],
    )
    other = helper.make_graph(
        [node("Identity", ["gemm/out"], ["else/out"], doc_string="words, words")],
        "else",
        [],
        [helper.make_tensor_value_info("else/out", TensorProto.FLOAT, ["n", 4])],
    )
    nodes = [
        node(
            "Conv", ["image", "a rather long name/conv1.weight", "conv1.bias"], ["c1"], name="n/1"
        ),
        node("Relu", ["c1"], ["r1"], name="n/2", doc_string="a long story " * 20),
        node("Conv", ["r1", "conv2.weight"], ["c2"]),
        node("Conv", ["c2", "conv2.again"], ["c3"]),
        node("Add", ["c3", "r1"], ["sum"]),
        node("GlobalAveragePool", ["sum"], ["pool"]),
        node("Flatten", ["pool"], ["flat"]),
        node("Gemm", ["flat", "fc.weight"], ["g"], transB=1),
        node("MatMul", ["g", "fc.weight.T"], ["gemm/out"]),
        node("Gather", ["table", "rows"], ["picked"]),
        node("Cast", ["picked"], ["picked32"], to=TensorProto.FLOAT),
        node("Clip", ["picked32", "", "scalar"], ["clipped"]),
        node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
        node("If", ["yes"], ["chosen"], then_branch=then, else_branch=other),
        node("Add", ["chosen", "clipped"], ["logits"]),
        node("Add", ["image", "image"], ["t0"]),
    ]
    graph = helper.make_graph(
        nodes,
        "example",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 6, 6])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 4]),
            helper.make_tensor_value_info("t0", TensorProto.FLOAT, ["n", 3, 6, 6]),
            helper.make_tensor_value_info("listed", TensorProto.FLOAT, [3]),
        ],
        initializer=tensors,
        value_info=[helper.make_tensor_value_info("c1", TensorProto.FLOAT, ["n", "c", 4, 4])],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9, producer_name="a producer")
    helper.set_model_props(model, {"note": "a long note"})
    return model


@pytest.fixture(scope="session")
def make_example() -> Callable[[int], Example]:
    return build_example


@pytest.fixture(scope="session")
def make_weight() -> Callable[..., StoredWeight]:
    return random_weight


@pytest.fixture(scope="session", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def example() -> Example:
    return build_example(0)
