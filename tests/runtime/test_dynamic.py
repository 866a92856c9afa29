import numpy as np
import pytest
import torch
from torch import nn

from autocompress.compress.codes import QuantizedTensor
from autocompress.errors import InputError
from autocompress.export.load import load
from autocompress.onnx_graph.session import make_session
from autocompress.packing.packed import read_packed, write_packed
from autocompress.plan import CompressionPlan
from autocompress.runtime.dynamic import dynamic_layers, to_dynamic
from autocompress.runtime.onnx_export import export_onnx
from autocompress.runtime.onnxruntime import executed_integer_nodes, executed_ops, predict


def run(model, x):
    return predict(make_session(model, threads=1), (x.numpy(),), len(x))


class Reader(nn.Module):
    """An LSTM, of several layers or directions, and a head."""

    def __init__(self, **options):
        super().__init__()
        self.rnn = nn.LSTM(6, 8, batch_first=True, **options)
        self.head = nn.Linear(8 * (1 + options.get("bidirectional", False)), 3)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


def rows_to_integers(module, names):
    """Integer rows for parameters, in place; 7 bits, which no processor saturates on."""
    found = {}
    for name in names:
        parameter = module.get_parameter(name)
        weight = parameter.detach().numpy()
        scale = (np.abs(weight).max(axis=1) / 63).astype(np.float32)
        codes = np.rint(weight / scale[:, None]).astype(np.int8)
        stored = QuantizedTensor(codes=codes, scale=scale, axis=0, bits=7)
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(stored.dequantize()))
        found[name.removesuffix(".weight")] = stored
    return found


@pytest.mark.parametrize("name", ["attention", "linear_3d", "mlp"])
def test_to_dynamic_runs_products_in_integers(name, build, quantize):
    module, x = build(name)
    weights = quantize(module)
    exported = export_onnx(module, (x,), weights)
    layers = dynamic_layers(exported, weights)
    made = to_dynamic(exported, layers)
    assert made.not_integer == ()
    ops = executed_ops(made.model)
    products = ops.get("DynamicQuantizeMatMul", 0) + ops.get("MatMulIntegerToFloat", 0)
    assert products == len(layers)
    want, got = run(exported.model, x), run(made.model, x)
    assert np.abs(got - want).max() <= 0.03 * np.abs(want).max()
    assert exported.model.SerializeToString() != made.model.SerializeToString()


@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}])
def test_to_dynamic_runs_lstms_in_integers(options, tmp_path):
    torch.manual_seed(0)
    module, x = Reader(**options).eval(), torch.randn(4, 5, 6)
    names = [n for n, p in module.named_parameters() if p.ndim > 1]
    exported = export_onnx(module, (x,), rows_to_integers(module, names))
    made = to_dynamic(exported, ("rnn", "head"))
    assert made.not_integer == ()
    n_layers = options.get("num_layers", 1)
    assert executed_ops(made.model)["DynamicQuantizeLSTM"] == n_layers
    assert executed_integer_nodes(made.model) >= n_layers + 1
    want, got = run(exported.model, x), run(made.model, x)
    assert np.abs(got - want).max() <= 0.03 * np.abs(want).max()
    write_packed(tmp_path / "model.acz", made.model, made.quantized, {})
    packed = read_packed(tmp_path / "model.acz").graph
    np.testing.assert_array_equal(run(packed, x), got)


def test_to_dynamic_names_what_stays_float(build, quantize):
    module, x = build("plain")
    weights = quantize(module)
    exported = export_onnx(module, (x,), weights)
    assert dynamic_layers(exported, weights) == ("5",)
    made = to_dynamic(exported, ("0", "5"))
    assert made.not_integer == ("0",)
    alone = to_dynamic(exported, ("0",))
    assert alone.model is exported.model
    assert alone.not_integer == ("0",)
    assert to_dynamic(exported, ()) is exported


def test_to_dynamic_leaves_an_lstm_float_of_which_one_weight_is():
    torch.manual_seed(0)
    module, x = Reader().eval(), torch.randn(4, 5, 6)
    weights = rows_to_integers(module, ["rnn.weight_ih_l0", "head.weight"])
    made = to_dynamic(export_onnx(module, (x,), weights), ("rnn", "head"))
    assert made.not_integer == ("rnn",)
    assert "LSTM" in executed_ops(made.model)


def test_load_says_that_dynamic_files_have_no_pytorch_form(build, quantize, tmp_path):
    module, x = build("attention")
    weights = quantize(module)
    made = to_dynamic(export_onnx(module, (x,), weights), tuple(weights))
    write_packed(
        tmp_path / "model.acz", made.model, made.quantized, {"plan": CompressionPlan().to_json()}
    )
    with pytest.raises(InputError, match="choose their activation grids when they run"):
        load(tmp_path / "model.acz", module)
