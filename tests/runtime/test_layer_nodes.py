import pytest
from onnx import helper
from torch import nn

from autocompress.runtime.layer_nodes import name_after_layers, name_after_modules


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("/head/Gemm", "head"),
        ("/MatMul", ""),
        ("Constant_3", ""),
        ("/blocks.0/attn/q/MatMul", "blocks.0.attn.q"),
        ("/feat/feat.0/feat.0.0/Conv", "feat.0.0"),
        ("/net/layers/layers.1/fc/Gemm_2", "net.layers.1.fc"),
    ],
)
def test_name_after_modules_reads_the_legacy_exporters_names(name, module):
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], name=name)], "g", [], [])
    name_after_modules(graph)
    assert graph.node[0].name == module


@pytest.mark.parametrize(
    ("scopes", "module"),
    [
        ("['', 'seq', 'seq.0', 'linear']", "seq.0"),
        ("['', 'mean']", ""),
        ("['add']", ""),
    ],
)
def test_name_after_modules_reads_the_dynamo_exporters_scopes(scopes, module):
    node = helper.make_node("Relu", ["x"], ["y"], name="node_relu")
    node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
    graph = helper.make_graph([node], "g", [], [])
    name_after_modules(graph)
    assert graph.node[0].name == module


def test_name_after_layers_tells_layers_with_one_weight_apart():
    module = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    module["alias"] = module["a"]
    scopes = ["b", "alias", "elsewhere", "b", ""]
    nodes = [
        helper.make_node("Gemm", ["x", "w"], [f"y{i}"], name=scope)
        for i, scope in enumerate(scopes)
    ]
    nodes.append(helper.make_node("Relu", ["y0"], ["z"], name="b"))
    graph = helper.make_graph(nodes, "g", [], [])
    found = name_after_layers(graph, {"w": ("a", "b", "alias")}, module)
    assert found == {"b": ("b", "b#1"), "a": ("a", "a#1", "a#2")}
    assert [n.name for n in graph.node] == ["b", "a", "a#1", "b#1", "a#2", ""]


def test_name_after_layers_names_a_root_layer():
    graph = helper.make_graph([helper.make_node("Gemm", ["x", "w"], ["y"])], "g", [], [])
    assert name_after_layers(graph, {"w": ("",)}, nn.Linear(2, 2)) == {"": ("module",)}
