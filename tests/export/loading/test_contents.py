import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from autocompress.errors import InputError
from autocompress.export.loading.contents import read_contents
from autocompress.export.loading.marks import mark_
from autocompress.export.loading.rebuild import marked_graph
from autocompress.runtime.onnx_export import export_onnx

X = (torch.randn(2, 3, 6, 6),)


def net(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.PReLU(4)).eval()


def test_read_contents_finds_the_value_of_every_element():
    packed = export_onnx(net(1), X, {}).model
    fresh, marks = marked_graph(net(2), X)
    contents = read_contents(fresh, packed, marks)
    by_path = {slot.path: slot for slot in marks.slots}

    def of(path: str) -> np.ndarray:
        slot = by_path[path]
        return contents.values[slot.start : slot.start + slot.size].reshape(slot.shape)

    source = net(1)
    factor = 1.0 / np.sqrt(1.0 + source[1].eps)  # untrained statistics
    assert np.allclose(of("0.weight"), source[0].weight.detach().numpy() * factor, rtol=1e-6)
    assert np.array_equal(of("2.weight"), source[2].weight.detach().numpy())
    assert contents.folded_norms == {"1"}
    assert np.allclose(contents.layers["0"].bias, 0.0)
    assert np.isnan(of("1.running_mean")).all()


def with_constant(model: onnx.ModelProto, old: np.ndarray, new: np.ndarray) -> onnx.ModelProto:
    """A copy in which the initializer that equals `old` is `new`."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for item in changed.graph.initializer:
        value = numpy_helper.to_array(item)
        if value.shape == old.shape and np.array_equal(value, old):
            item.CopyFrom(numpy_helper.from_array(new, item.name))
            return changed
    raise AssertionError


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])


def test_read_contents_refuses_another_constant():
    inputs = (torch.randn(2, 6),)
    packed = export_onnx(Scaled(), inputs, {}).model
    fresh, marks = marked_graph(Scaled(), inputs)
    assert read_contents(fresh, packed, marks).is_known.all()
    factors = np.arange(1, 7, dtype=np.float32)
    other = with_constant(packed, factors, factors[::-1].copy())
    with pytest.raises(InputError, match=r"a constant of shape \[6\] that 'the output' reads"):
        read_contents(fresh, other, marks)


def test_read_contents_refuses_two_values_for_one_element():
    layer = nn.Linear(3, 3, bias=False)
    marks = mark_(layer)
    weight = layer.weight.detach().numpy()

    def twice(first: np.ndarray, second: np.ndarray) -> onnx.ModelProto:
        names = ["input", "output"]
        values = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names]
        nodes = [
            helper.make_node("Gemm", ["input", "w"], ["h"], name="fc"),
            helper.make_node("Gemm", ["h", "v"], ["output"], name="fc#1"),
        ]
        tensors = [numpy_helper.from_array(first, "w"), numpy_helper.from_array(second, "v")]
        return helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:], tensors))

    one, other = np.eye(3, dtype=np.float32), np.ones((3, 3), np.float32)
    fresh = twice(weight, weight)
    assert np.array_equal(read_contents(fresh, twice(one, one), marks).values, one.reshape(-1))
    with pytest.raises(InputError, match="runs several times, with other values each"):
        read_contents(fresh, twice(one, other), marks)
