import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from autocompress.errors import TrialError
from autocompress.onnx_graph.session import make_session
from autocompress.runtime.onnx_export import export_onnx
from autocompress.runtime.onnxruntime import predict


def run(model, x, batch_size=7):
    return predict(make_session(model, threads=1), (x.numpy(),), batch_size)


def expected(module, x):
    with torch.no_grad():
        return module(x).numpy()


def ops(model):
    return [node.op_type for node in model.graph.node]


def test_export_onnx_equals_pytorch(zoo_name, build):
    module, x = build(zoo_name)
    exported = export_onnx(module, (x[:2],), {})
    onnx.checker.check_model(exported.model, full_check=True)
    want = expected(module, x)
    for batch_size in (1, 7):
        np.testing.assert_allclose(
            run(exported.model, x, batch_size), want, rtol=0, atol=1e-5 * np.abs(want).max()
        )
    assert exported.quantized == {}


def test_export_onnx_keeps_codes_and_writes_exact_weights(zoo_name, build, quantize):
    module, x = build(zoo_name)
    weights = quantize(module)
    want = expected(module, x)
    exported = export_onnx(module, (x[:2],), weights)
    values = {i.name: numpy_helper.to_array(i) for i in exported.model.graph.initializer}
    assert exported.unmatched == ()
    assert set(exported.layer_nodes) == set(weights)
    for layer, tensor in weights.items():
        found = exported.quantized[f"{layer}.weight"]
        np.testing.assert_array_equal(values[f"{layer}.weight"], found.dequantize())
        codes = tensor.codes if found.axis == tensor.axis else tensor.codes.T
        np.testing.assert_array_equal(np.abs(found.codes.astype(int)), np.abs(codes.astype(int)))
        assert (found.scale > 0).all()
        normal = found.scale[found.scale >= 2.0**-14]
        np.testing.assert_array_equal(normal.astype(np.float16), normal)
    np.testing.assert_allclose(run(exported.model, x), want, atol=2e-3 * np.abs(want).max())


def test_export_onnx_does_not_change_the_module(build, quantize):
    module, x = build("residual")
    weights = quantize(module)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    export_onnx(module, (x[:1],), weights)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_export_onnx_rounds_biases_of_quantized_layers_only_to_float16(build, quantize):
    module, x = build("plain")
    weights = {"5": quantize(module)["5"]}
    exported = export_onnx(module, (x[:2],), weights)
    values = {i.name: numpy_helper.to_array(i) for i in exported.model.graph.initializer}
    np.testing.assert_array_equal(values["5.bias"].astype(np.float16), values["5.bias"])
    assert (values["0.bias"].astype(np.float16) != values["0.bias"]).any()


def test_export_onnx_names_inputs_and_outputs_and_frees_the_batch(build):
    class Two(nn.Module):
        def forward(self, a, b):
            return a + b, a * b

    exported = export_onnx(Two(), (torch.ones(1, 3), torch.ones(1, 3)), {})
    graph = exported.model.graph
    assert [v.name for v in graph.input] == ["input_0", "input_1"]
    assert [v.name for v in graph.output] == ["output_0", "output_1"]
    for value in (*graph.input, *graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    module, x = build("plain")
    graph = export_onnx(module, (x,), {}).model.graph
    assert [v.name for v in (*graph.input, *graph.output)] == ["input", "output"]


def test_export_onnx_names_both_nodes_of_a_shared_layer(build, quantize):
    module, x = build("shared")
    exported = export_onnx(module, (x,), quantize(module))
    assert exported.layer_nodes["conv"] == ("conv", "conv#1")
    assert {"conv", "conv#1"} <= {node.name for node in exported.model.graph.node}
    assert [i.name for i in exported.model.graph.initializer].count("conv.weight") == 1


def test_export_onnx_reports_a_weight_that_is_not_in_the_graph(build, quantize):
    module, x = build("plain")
    weights = quantize(module)
    with torch.no_grad():
        module[5].weight.add_(1.0)  # no longer what the codes say
    exported = export_onnx(module, (x,), weights)
    assert exported.unmatched == ("5",)
    assert set(exported.quantized) == {"0.weight"}


def test_export_onnx_falls_back_to_the_other_exporter_when_tracing_fails(quantize):
    torch.manual_seed(0)
    module = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    weights = quantize(module)
    x = torch.randn(3, 4, 8)
    exported = export_onnx(module, (x[:2],), weights)
    want = expected(module, x)
    np.testing.assert_allclose(run(exported.model, x), want, atol=2e-3 * np.abs(want).max())
    assert "linear1.weight" in exported.quantized


def test_export_onnx_raises_one_line_when_an_operator_has_no_onnx_form():
    class Solve(nn.Module):
        def forward(self, x):
            return torch.linalg.eig(x)[0].abs()

    with pytest.raises(TrialError, match="cannot be written as ONNX") as caught:
        export_onnx(Solve(), (torch.eye(3).repeat(2, 1, 1),), {})
    assert caught.value.reason == "export"
    assert "\n" not in str(caught.value)


class _Differences(nn.Module):
    """What transformers look for in positions: where one sequence ends and the next begins."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        first = torch.diff(x, dim=1, prepend=x[:, :1])
        return self.head(first) + torch.diff(x, n=2, dim=-1).sum(1, keepdim=True)


class _CountsTruths(nn.Module):
    """Positions from a mask, as decoders take them."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        counts = (x > 0).cumsum(1) + x.cumsum(dim=1, dtype=torch.float64)
        return self.head(counts.float())


class _Folds(nn.Module):
    """Col2Im came with opset 18. One parameter for all inputs, as wrappers of others' models."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, *images):
        columns = nn.functional.unfold(self.conv(images[0]), 2, stride=2)
        return nn.functional.fold(columns, (8, 8), 2, stride=2)


@pytest.mark.parametrize(
    ("module", "shape"),
    [(_Differences(), (7, 6)), (_CountsTruths(), (7, 6)), (_Folds(), (7, 3, 8, 8))],
    ids=["diff", "cumsum", "fold"],
)
def test_export_onnx_knows_what_the_fast_exporter_does_not(module, shape):
    x = torch.randn(shape)
    exported = export_onnx(module.eval(), (x[:2],), {})
    np.testing.assert_allclose(run(exported.model, x), expected(module, x), atol=1e-5)


class _RestOfInputs(nn.Module):
    """Nothing the fast exporter can write, and inputs behind a star."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x, *others):
        return self.head(x * torch.polar(x, others[0]).abs()) + others[1].mean()


def test_export_onnx_frees_the_batch_of_inputs_behind_a_star():
    module, inputs = _RestOfInputs().eval(), tuple(torch.rand(5, 6) for _ in range(3))
    exported = export_onnx(module, tuple(x[:2] for x in inputs), {})
    session = make_session(exported.model, threads=1)
    got = predict(session, tuple(x.numpy() for x in inputs), 5)
    with torch.no_grad():
        np.testing.assert_allclose(got, module(*inputs).numpy(), atol=1e-5)


def test_export_onnx_says_nothing(build, capfd):
    module, x = build("attention")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_onnx(module, (x,), {})
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_export_onnx_leaves_no_identity_constant_or_note(zoo_name, build):
    module, x = build(zoo_name)
    model = export_onnx(module, (x,), {}).model
    assert not {"Identity", "Constant"} & set(ops(model))
    read = {name for node in model.graph.node for name in node.input}
    assert {i.name for i in model.graph.initializer} <= read
    assert not model.metadata_props
    assert not any(node.doc_string for node in model.graph.node)
