import copy

import onnx
import pytest
import torch
from torch import nn

from autocompress.onnx_graph.graph import rename_values
from autocompress.onnx_graph.structure import structure_digest
from autocompress.runtime.integer import to_integer
from autocompress.runtime.onnx_export import export_onnx


def net(width=4, stride=1, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, width, 3, stride=stride), nn.ReLU(), nn.Conv2d(width, 2, 1))


def digest(module):
    return structure_digest(export_onnx(module.eval(), (torch.zeros(2, 3, 8, 8),), {}).model)


def test_structure_digest_ignores_weight_values():
    assert digest(net(seed=0)) == digest(net(seed=1))


@pytest.mark.parametrize("changed", [net(width=5), net(stride=2), net()[:2]])
def test_structure_digest_sees_shapes_attributes_and_operators(changed):
    assert digest(changed) != digest(net())


def test_structure_digest_ignores_names():
    model = export_onnx(net().eval(), (torch.zeros(2, 3, 8, 8),), {}).model
    renamed = copy.deepcopy(model)
    values = {name for node in model.graph.node for name in (*node.input, *node.output)}
    rename_values(renamed.graph, {name: f"other_{name}" for name in values})
    for node in renamed.graph.node:
        node.name = "something else"
    assert renamed.graph != model.graph
    assert structure_digest(renamed) == structure_digest(model)


def test_structure_digest_sees_integer_constants():
    class Reshaped(nn.Module):
        def __init__(self, *shape):
            super().__init__()
            self.shape = shape

        def forward(self, x):
            return x.reshape(-1, *self.shape)

    assert digest(Reshaped(6, 32)) != digest(Reshaped(32, 6))


def test_structure_digest_of_integer_graphs_ignores_codes_and_grids(build, quantize, observe):
    found = set()
    for seed in (1, 2):
        module, x = build("residual")
        x = torch.randn(7, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * seed
        for parameter in module.parameters():
            parameter.data.mul_(seed)
        weights = quantize(module)
        exported = export_onnx(module, (x,), weights)
        integer = to_integer(exported, observe(module, x, list(weights)), [(x.numpy(),)])
        found.add((structure_digest(integer.model), structure_digest(exported.model)))
    assert len(found) == 1
    assert len(set(*found)) == 2


def test_structure_digest_reads_subgraphs():
    def model(op):
        branch = onnx.helper.make_graph(
            [onnx.helper.make_node(op, ["x"], ["y"])],
            "branch",
            [],
            [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])],
        )
        node = onnx.helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)
        inputs = [
            onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1]),
            onnx.helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, []),
        ]
        outputs = [onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [1])]
        return onnx.helper.make_model(onnx.helper.make_graph([node], "g", inputs, outputs))

    assert structure_digest(model("Relu")) == structure_digest(model("Relu"))
    assert structure_digest(model("Relu")) != structure_digest(model("Abs"))
