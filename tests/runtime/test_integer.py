import dataclasses
import os

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from autocompress.compress.codes import ActivationRange, CodebookTensor, GridTensor
from autocompress.errors import TrialError
from autocompress.onnx_graph.session import make_session
from autocompress.packing.ledger import read_ledger
from autocompress.packing.packed import write_packed
from autocompress.runtime.integer import to_integer
from autocompress.runtime.onnx_export import export_onnx
from autocompress.runtime.onnxruntime import executed_integer_nodes, executed_ops, predict
from tests.needs import need_data

N_LAYER_KERNELS = {  # integer convolutions and matrix products that really run, per net
    "plain": {"QLinearConv": 1, "QGemm": 1},
    "residual": {"QLinearConv": 2, "QLinearAdd": 1, "QLinearGlobalAveragePool": 1, "QGemm": 1},
    "pre_activation": {"QLinearConv": 2, "QGemm": 1},
    "shared": {"QLinearConv": 2, "QGemm": 1},
    "shared_under_two_norms": {"QLinearConv": 2},
    "depthwise_and_grouped": {"QLinearConv": 3},
    "conv1d": {"QLinearConv": 2},
    "transposed": {},
    "mlp": {"QGemm": 3},
    "linear_3d": {"MatMulIntegerToFloat": 2},
    "attention": {"MatMulIntegerToFloat": 2, "QGemm": 1},
    "split": {"QLinearConv": 2, "QGemm": 1},
}


def run(model, x, batch_size=7):
    return predict(make_session(model, threads=1), (x.numpy(),), batch_size)


def tensors(model):
    return {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}


@pytest.fixture
def integer_net(build, quantize, observe):
    def make(name, layers=None):
        module, x = build(name)
        weights = quantize(module)
        exported = export_onnx(module, (x[:2],), weights)
        grids = observe(module, x, list(weights) if layers is None else layers)
        return exported, grids, x, to_integer(exported, grids, [(x.numpy(),)])

    return make


def test_to_integer_runs_integer_kernels(zoo_name, integer_net):
    model = integer_net(zoo_name)[-1].model
    onnx.checker.check_model(model, full_check=True)
    ops = executed_ops(model)
    wanted = N_LAYER_KERNELS[zoo_name]
    assert {op: ops.get(op, 0) for op in wanted} == wanted
    assert executed_integer_nodes(model) == sum(wanted.values())
    assert not {"Conv", "FusedConv", "Gemm"} & set(ops)


def test_to_integer_stays_near_float_for_every_batch_size(zoo_name, integer_net):
    exported, _, x, integer = integer_net(zoo_name)
    want = run(exported.model, x)
    for batch_size in (1, 7):
        got = run(integer.model, x, batch_size)
        assert np.abs(got - want).max() <= 0.03 * np.abs(want).max()


def test_to_integer_keeps_our_codes_and_scales(zoo_name, integer_net):
    exported, _, _, integer = integer_net(zoo_name)
    values = tensors(integer.model)
    for name, tensor in exported.quantized.items():
        if zoo_name == "transposed":
            assert name in integer.quantized
            continue
        assert name not in integer.quantized
        assert values[name].dtype == np.int8
        np.testing.assert_array_equal(values[name], tensor.codes)
        np.testing.assert_array_equal(values[f"{name}_scale"], tensor.scale)


class Gained(nn.Linear):
    """Its parameters are called as the parts of a quantized value would be."""

    def __init__(self, n_in, n_out):
        super().__init__(n_in, n_out)
        self.weight_scale = nn.Parameter(torch.linspace(0.5, 2.0, n_out))
        self.weight_dq_scale = nn.Parameter(torch.linspace(-1.0, 1.0, n_out))

    def forward(self, x):
        return super().forward(x) * self.weight_scale + self.weight_dq_scale


def test_to_integer_takes_no_name_that_is_there_already(quantize, observe):
    torch.manual_seed(0)
    module, x = nn.Sequential(Gained(8, 16), nn.ReLU(), Gained(16, 4)).eval(), torch.randn(7, 8)
    exported = export_onnx(module, (x,), quantize(module))
    integer = to_integer(exported, observe(module, x, ["0", "2"]), [(x.numpy(),)])
    onnx.checker.check_model(integer.model, full_check=True)
    assert executed_ops(integer.model)["QGemm"] == 2
    want = run(exported.model, x)
    assert np.abs(run(integer.model, x) - want).max() <= 0.03 * np.abs(want).max()


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_to_integer_keeps_codes_of_any_width(bits, build, quantize, observe):
    module, x = build("residual")
    weights = quantize(module, bits=bits)
    exported = export_onnx(module, (x,), weights)
    integer = to_integer(exported, observe(module, x, list(weights)), [(x.numpy(),)])
    for name, tensor in exported.quantized.items():
        np.testing.assert_array_equal(tensors(integer.model)[name], tensor.codes)
        assert np.abs(tensor.codes).max() <= 2 ** (bits - 1) - 1


def test_to_integer_uses_the_given_grids(integer_net):
    _, grids, _, integer = integer_net("plain")
    values = tensors(integer.model)
    quantizers = [n for n in integer.model.graph.node if n.op_type == "QuantizeLinear"]
    pairs = [(float(values[n.input[1]]), int(values[n.input[2]])) for n in quantizers]
    assert pairs == [(np.float32(grids[n].scale), grids[n].zero_point) for n in ("0", "5")]


def test_to_integer_leaves_other_layers_float(integer_net):
    exported, _, _, integer = integer_net("depthwise_and_grouped", ["0", "6"])
    ops = executed_ops(integer.model)
    assert ops["QLinearConv"] == 2
    assert ops["Conv"] == 1
    assert set(integer.quantized) == {"3.weight"}
    np.testing.assert_array_equal(
        tensors(integer.model)["3.weight"], exported.quantized["3.weight"].dequantize()
    )


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh(), nn.LeakyReLU(), nn.GELU()])
def test_to_integer_runs_a_linear_layer_in_integers_before_any_activation(
    activation, quantize, observe
):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 16), activation, nn.Linear(16, 4)).eval()
    x = torch.randn(7, 8)
    exported = export_onnx(module, (x,), quantize(module))
    integer = to_integer(exported, observe(module, x, ["0"]), [(x.numpy(),)])
    ops = executed_ops(integer.model)
    assert ops["QGemm"] == 1
    assert executed_integer_nodes(integer.model) == 1


def test_to_integer_returns_the_same_graph_when_no_layer_is_chosen(integer_net):
    exported, _, _, integer = integer_net("residual", [])
    assert integer is exported


def test_to_integer_does_not_change_its_argument(integer_net, build, quantize, observe):
    module, x = build("residual")
    weights = quantize(module)
    exported = export_onnx(module, (x,), weights)
    before = exported.model.SerializeToString(deterministic=True)
    to_integer(exported, observe(module, x, list(weights)), [(x.numpy(),)])
    assert exported.model.SerializeToString(deterministic=True) == before


def powers_of_two(weight, axis):
    """Nearest of ±1, ±1/2, ±1/4, ±1/8 and 0 times the largest of each channel."""
    others = tuple(d for d in range(weight.ndim) if d != axis)
    scale = np.abs(weight).max(axis=others, keepdims=True)
    codebook = np.array([-1, -0.5, -0.25, -0.125, 0, 0.125, 0.25, 0.5, 1], np.float32)
    codes = np.abs(weight[..., None] / scale[..., None] - codebook).argmin(-1).astype(np.uint8)
    return CodebookTensor(
        codes=codes, codebook=codebook, scale=scale.reshape(-1), axis=axis, bits=4
    )


def asymmetric(weight, axis):
    """A grid of 7 bits for each channel, from its smallest to its largest weight."""
    others = tuple(d for d in range(weight.ndim) if d != axis)
    low = np.minimum(weight.min(axis=others, keepdims=True), 0)
    step = (np.maximum(weight.max(axis=others, keepdims=True), 0) - low) / np.float32(127)
    zero = np.rint(-low / step)
    codes = np.clip(np.rint(weight / step) + zero, 0, 127).astype(np.uint8)
    return GridTensor(
        codes=codes,
        scale=step.reshape(-1, 1).astype(np.float32),
        zero_point=zero.reshape(-1, 1).astype(np.uint8),
        block_size=weight[0].size,
        axis=axis,
        bits=7,
    )


@pytest.mark.parametrize("make", [powers_of_two, asymmetric])
@pytest.mark.parametrize("name", ["plain", "residual", "mlp", "linear_3d"])
def test_to_integer_runs_other_weights_that_are_codes_times_scales(make, name, build, observe):
    module, x = build(name)
    weights = {}
    for layer, part in module.named_modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            weights[layer] = make(part.weight.detach().numpy(), 0)
            part.weight.data.copy_(torch.from_numpy(weights[layer].dequantize()))
    exported = export_onnx(module, (x[:2],), weights)
    integer = to_integer(exported, observe(module, x, list(weights)), [(x.numpy(),)])
    assert integer.not_integer == ()
    assert integer.quantized == {}
    assert executed_integer_nodes(integer.model) == sum(N_LAYER_KERNELS[name].values())
    want, got = run(exported.model, x), run(integer.model, x)
    assert np.abs(got - want).max() <= 0.03 * np.abs(want).max()


def test_to_integer_names_the_layers_that_had_to_stay_float(build, store, observe):
    module, x = build("plain")
    hashed = store(module, "hashed")
    codes = store(module, "quantized")
    module[0].weight.data.copy_(torch.from_numpy(hashed["0"].dequantize()))
    weights = {"0": hashed["0"], "5": codes["5"]}
    exported = export_onnx(module, (x,), weights)
    integer = to_integer(exported, observe(module, x, ["0", "5"]), [(x.numpy(),)])
    assert integer.not_integer == ("0",)
    assert set(integer.quantized) == {"0.weight"}
    assert executed_ops(integer.model)["QGemm"] == 1
    alone = to_integer(exported, observe(module, x, ["0"]), [(x.numpy(),)])
    assert alone.not_integer == ("0",)
    assert alone.model is exported.model


@pytest.mark.parametrize("make", [nn.Linear(4, 3), nn.Conv1d(4, 3, 1)])
def test_to_integer_keeps_the_bias_of_an_empty_channel(make, quantize, observe):
    module = nn.Sequential(make, nn.Identity()).eval()
    with torch.no_grad():
        make.bias[:] = torch.tensor([0.1, -5.0, 0.2])
    weights = quantize(module)
    codes, scale = weights["0"].codes.copy(), weights["0"].scale.copy()
    codes[1], scale[1] = 0, 1e-8  # as quantizers leave a channel of zeros
    weights = {"0": dataclasses.replace(weights["0"], codes=codes, scale=scale)}
    make.weight.data.copy_(torch.from_numpy(weights["0"].dequantize()))
    x = torch.randn(7, 4) if isinstance(make, nn.Linear) else torch.randn(7, 4, 5)
    exported = export_onnx(module, (x,), weights)
    integer = to_integer(exported, observe(module, x, ["0"]), [(x.numpy(),)])
    assert executed_integer_nodes(integer.model) == 1
    np.testing.assert_allclose(run(integer.model, x), run(exported.model, x), atol=0.1)


def test_to_integer_leaves_a_layer_float_whose_bias_has_no_room(quantize, observe):
    torch.manual_seed(0)
    module, x = nn.Sequential(nn.Linear(4, 3), nn.Identity()).eval(), torch.randn(7, 4)
    with torch.no_grad():
        module[0].weight[1] *= 1e-7
        module[0].bias[1] = 5.0
    exported = export_onnx(module, (x,), quantize(module))
    integer = to_integer(exported, observe(module, x, ["0"]), [(x.numpy(),)])
    assert integer.not_integer == ("0",)


def test_to_integer_leaves_a_layer_float_whose_bias_is_computed(quantize, observe):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    x = torch.randn(7, 8)
    exported = export_onnx(module, (x,), quantize(module))
    computed = onnx.ModelProto.FromString(exported.model.SerializeToString())
    bias = computed.graph.node[-1].input[2]
    computed.graph.node.insert(0, helper.make_node("Neg", [bias], ["negated"]))
    computed.graph.node[-1].input[2] = "negated"
    exported = dataclasses.replace(exported, model=computed)
    integer = to_integer(exported, observe(module, x, ["0", "2"]), [(x.numpy(),)])
    onnx.checker.check_model(integer.model, full_check=True)
    assert integer.not_integer == ("2",)
    assert executed_integer_nodes(integer.model) == 1
    want, got = run(exported.model, x), run(integer.model, x)
    assert np.abs(got - want).max() <= 0.03 * np.abs(want).max()


def test_to_integer_names_transposed_convolutions(integer_net):
    assert integer_net("transposed")[-1].not_integer == ("0", "3")
    assert integer_net("plain")[-1].not_integer == ()


def test_to_integer_leaves_a_layer_float_that_reads_a_constant(quantize, observe):
    class LearnedQueries(nn.Module):
        """As in DETR and Perceiver."""

        def __init__(self):
            super().__init__()
            self.queries = nn.Parameter(torch.randn(400, 16))
            self.query, self.key, self.head = nn.Linear(16, 16), nn.Linear(6, 16), nn.Linear(6, 5)

        def forward(self, x):
            scores = self.query(self.queries) @ self.key(x).transpose(1, 2)
            return self.head((torch.softmax(scores, -1) @ x).mean(1))

    torch.manual_seed(0)
    module, x = LearnedQueries().eval(), torch.randn(7, 3, 6)
    exported = export_onnx(module, (x,), quantize(module))
    grids = observe(module, x, ["query", "key", "head"])
    integer = to_integer(exported, grids, [(x.numpy(),)])
    onnx.checker.check_model(integer.model, full_check=True)
    assert integer.not_integer == ("query",)
    assert set(integer.quantized) == {"query.weight"}
    assert executed_integer_nodes(integer.model) == 2
    want, got = run(exported.model, x), run(integer.model, x)
    assert np.abs(got - want).max() <= 0.03 * np.abs(want).max()


def test_to_integer_keeps_a_tied_embedding_float_and_its_codes_once(store, observe, tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(50, 16), nn.Linear(16, 50, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, tokens):
            return self.head(torch.tanh(self.embed(tokens)))

    torch.manual_seed(0)
    module, tokens = Tied().eval(), torch.randint(0, 50, (7, 5))
    exported = export_onnx(module, (tokens,), store(module, "quantized"))
    integer = to_integer(exported, observe(module, tokens, ["head"]), [(tokens.numpy(),)])
    assert integer.not_integer == ()
    assert executed_ops(integer.model)["MatMulIntegerToFloat"] == 1
    assert set(integer.quantized) == {"embed.weight"}
    want, got = run(exported.model, tokens), run(integer.model, tokens)
    assert np.abs(got - want).max() <= 0.03 * np.abs(want).max()
    path = tmp_path / "model.acz"
    write_packed(path, integer.model, integer.quantized, {})
    assert read_ledger(path).n_bytes["payload"] < 50 * 16 * 4 / 8 + 30


def test_to_integer_gives_layers_with_one_weight_their_own_input_grids(quantize):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(torch.tanh(self.first(x)))

    torch.manual_seed(0)
    module, x = Two().eval(), torch.randn(7, 6)
    weights = {"first": quantize(module)["first"]}
    module.first.weight.data.copy_(torch.from_numpy(weights["first"].dequantize()))
    exported = export_onnx(module, (x,), weights)
    assert exported.layer_nodes == {"first": ("first",), "second": ("second",)}
    grids = {
        "first": ActivationRange(scale=8 / 255, zero_point=128),
        "second": ActivationRange(scale=2 / 255, zero_point=127),
    }
    integer = to_integer(exported, grids, [(x.numpy(),)])
    quantizers = [n for n in integer.model.graph.node if n.op_type == "QuantizeLinear"]
    scales = {float(tensors(integer.model)[n.input[1]]) for n in quantizers}
    assert scales >= {float(np.float32(8 / 255)), float(np.float32(2 / 255))}
    assert executed_ops(integer.model)["QGemm"] == 2


def test_to_integer_pads_with_the_code_of_zero(quantize):
    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(2, 4, 3)
            self.second = nn.Conv2d(4, 4, 3)

        def forward(self, x):
            return self.second(nn.functional.pad(self.first(x), (2, 2, 2, 2)))

    torch.manual_seed(0)
    module = Padded().eval()
    x = torch.randn(4, 2, 8, 8)
    exported = export_onnx(module, (x,), quantize(module))
    grids = {
        "first": ActivationRange(scale=8 / 255, zero_point=128),
        "second": ActivationRange(scale=6 / 255, zero_point=100),
    }
    integer = to_integer(exported, grids, [(x.numpy(),)])
    want, got = run(exported.model, x), run(integer.model, x)
    assert np.abs(got - want).max() <= 0.03 * np.abs(want).max()
    assert executed_integer_nodes(integer.model) == 2


def test_to_integer_spans_all_grids_of_a_shared_value(quantize):
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.left = nn.Conv2d(2, 4, 1)
            self.right = nn.Conv2d(2, 4, 1)

        def forward(self, x):
            return torch.cat([self.left(x), self.right(x)], 1)

    module = Branches().eval()
    exported = export_onnx(module, (torch.randn(2, 2, 4, 4),), quantize(module))
    grids = {
        "left": ActivationRange(scale=1 / 255, zero_point=255),
        "right": ActivationRange(scale=2 / 255, zero_point=0),
    }
    integer = to_integer(exported, grids, [(np.zeros((2, 2, 4, 4), np.float32),)])
    first = next(n for n in integer.model.graph.node if n.op_type == "QuantizeLinear")
    values = tensors(integer.model)
    assert float(values[first.input[1]]) == pytest.approx(3 / 255)
    assert int(values[first.input[2]]) == 85


def test_to_integer_raises_when_an_activation_is_not_finite(integer_net):
    exported, grids, x, _ = integer_net("residual")
    with pytest.raises(TrialError, match="not finite") as caught:
        to_integer(exported, grids, [(np.full_like(x.numpy(), np.inf),)])
    assert caught.value.reason == "nonfinite_activation"


def test_to_integer_says_nothing_and_leaves_no_files(integer_net, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    integer_net("residual")
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
    assert os.listdir(tmp_path) == []


def test_to_integer_keeps_float_layers_float_in_a_session_with_defaults(integer_net, tmp_path):
    model = integer_net("mlp", ["0", "6"])[-1].model
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    ops = [n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert ops.count("QGemm") == 2
    assert ops.count("Gemm") == 1


@pytest.mark.realdata
def test_to_integer_stays_near_float_on_real_images(build, quantize, observe):
    name = "cifar-10-batches-bin/test_batch.bin"
    raw = np.fromfile(need_data(name) / name, np.uint8)
    images = raw.reshape(-1, 3073)[:256, 1:].reshape(-1, 3, 32, 32).astype(np.float32) / 127.5 - 1
    module, _ = build("residual")
    weights = quantize(module)
    x = torch.from_numpy(images)
    exported = export_onnx(module, (x[:2],), weights)
    integer = to_integer(exported, observe(module, x[:128], list(weights)), [(images[:128],)])
    want, got = run(exported.model, x[128:], 64), run(integer.model, x[128:], 64)
    assert np.abs(got - want).max() <= 0.03 * np.abs(want).max()
