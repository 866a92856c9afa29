"""Every kind of stored weight on every net: exported, run, packed, read back, run again."""

import copy

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from autocompress.onnx_graph.session import make_session
from autocompress.packing.ledger import read_ledger
from autocompress.packing.packed import read_packed, write_packed
from autocompress.runtime.onnx_export import export_onnx
from autocompress.runtime.onnxruntime import executed_ops, predict

TOLERANCE = 2e-3  # scales, codebooks and biases are rounded to float16


def run(model, inputs, batch_size=7):
    session = make_session(model, threads=1)
    return predict(session, tuple(x.numpy() for x in inputs), batch_size)


def expected(module, inputs):
    with torch.no_grad():
        return module(*inputs).numpy()


def initializers(model):
    return {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}


def export_and_compare(module, inputs, weights):
    want = expected(module, inputs)
    exported = export_onnx(module, inputs, weights)
    assert exported.unmatched == ()
    for batch_size in (1, 3):
        np.testing.assert_allclose(
            run(exported.model, inputs, batch_size), want, atol=TOLERANCE * np.abs(want).max()
        )
    values = initializers(exported.model)
    for name, weight in exported.quantized.items():
        np.testing.assert_array_equal(values[name], weight.dequantize())
    return exported


def test_export_onnx_of_float_models_equals_pytorch(zoo_net):
    exported = export_onnx(zoo_net.model, zoo_net.inputs, {})
    want = expected(zoo_net.model, zoo_net.inputs)
    for batch_size in (1, 3):
        got = run(exported.model, zoo_net.inputs, batch_size)
        np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())


def test_export_onnx_stores_every_weight_of_nets_of_all_kinds(zoo_net, kind, store, tmp_path):
    module = copy.deepcopy(zoo_net.model)
    weights = store(module, kind)
    exported = export_and_compare(module, zoo_net.inputs, weights)
    path = tmp_path / "model.acz"
    write_packed(path, exported.model, exported.quantized, {})
    unpacked = read_packed(path).graph
    want = run(exported.model, zoo_net.inputs)
    np.testing.assert_array_equal(run(unpacked, zoo_net.inputs), want)


def test_export_onnx_stores_weights_of_all_layouts(zoo_name, kind, build, store):
    module, x = build(zoo_name)
    export_and_compare(module, (x,), store(module, kind))


@pytest.mark.parametrize("recurrent", [nn.LSTM, nn.GRU, nn.RNN])
def test_export_onnx_stores_recurrent_weights_of_both_directions(recurrent, kind, store, tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = recurrent(5, 6, num_layers=2, bidirectional=True, batch_first=True)

        def forward(self, x):
            return self.rnn(x)[0]

    torch.manual_seed(0)
    module = Net().eval()
    weights = store(module, kind)
    assert len(weights) == 8
    exported = export_and_compare(module, (torch.randn(3, 4, 5),), weights)
    assert set(exported.quantized) == set(weights)
    plain = export_onnx(module, (torch.randn(3, 4, 5),), {})
    # the rearrangement is computed when the graph is loaded
    assert executed_ops(exported.model) == executed_ops(plain.model)
    biases = [v for v in initializers(exported.model).values() if v.ndim == 2 and len(v) == 2]
    for bias in biases:
        np.testing.assert_array_equal(bias.astype(np.float16), bias)


class Tied(nn.Module):
    """An embedding whose table is the last layer as well; tokens keep their dimension."""

    def __init__(self):
        super().__init__()
        self.embed, self.hidden = nn.Embedding(97, 16), nn.Linear(16, 16)
        self.head = nn.Linear(16, 97, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        return self.head(torch.relu(self.hidden(self.embed(tokens))))


def packed_bytes(exported, folder):
    write_packed(folder / "model.acz", exported.model, exported.quantized, {})
    return read_ledger(folder / "model.acz").n_bytes


def test_a_tied_embedding_is_stored_once(kind, store, tmp_path):
    torch.manual_seed(0)
    module, tokens = Tied().eval(), torch.randint(0, 97, (3, 6))
    exported = export_and_compare(module, (tokens,), store(module, kind))
    assert exported.layer_nodes["embed"] == ("embed",)
    assert exported.layer_nodes["head"] == ("head",)
    ledger = packed_bytes(exported, tmp_path)
    untied = copy.deepcopy(module)
    untied.head = nn.Linear(16, 97, bias=False)
    twice = packed_bytes(export_onnx(untied, (tokens,), store(untied, kind)), tmp_path)
    assert ledger["scales"] + ledger["payload"] < 0.6 * (twice["scales"] + twice["payload"])


def test_a_tied_float_embedding_is_stored_once(tmp_path):
    torch.manual_seed(0)
    module, tokens = Tied().eval(), torch.randint(0, 97, (3, 6))
    ledger = packed_bytes(export_onnx(module, (tokens,), {}), tmp_path)
    assert ledger["floats"] < 4 * (97 * 16 + 16 * 16 + 16) + 8


class SharedUnderNorms(nn.Module):
    """One weight in two layers, each with a batch-norm of its own."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.second = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.second.weight = self.first.weight
        self.norm0, self.norm1 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def forward(self, x):
        return self.norm1(self.second(torch.relu(self.norm0(self.first(x)))))


@pytest.fixture
def shared_net():
    torch.manual_seed(0)
    module = SharedUnderNorms().eval()
    for norm in (module.norm0, module.norm1):
        nn.init.normal_(norm.weight)  # of both signs
        nn.init.normal_(norm.bias)
        norm.running_var.uniform_(0.5, 2.0)
    return module


def test_a_shared_weight_is_folded_into_each_norm_and_its_codes_stored_once(
    shared_net, kind, store, tmp_path
):
    x = torch.randn(3, 8, 6, 6)
    exported = export_and_compare(shared_net, (x,), store(shared_net, kind))
    is_folded = kind != "grid"  # 72 weights in blocks of 5: scales outweigh a batch-norm
    ops = [node.op_type for node in exported.model.graph.node]
    assert ops.count("BatchNormalization") == (0 if is_folded else 2)
    assert len(exported.quantized) == (2 if is_folded else 1)
    ledger = packed_bytes(exported, tmp_path)
    assert ledger["payload"] < 8 * 8 * 9 * 4 / 8 + 30  # 4-bit codes, once


def test_a_shared_weight_keeps_the_layer_without_a_norm(shared_net, store):
    shared_net.norm1 = nn.Identity()
    x = torch.randn(3, 8, 6, 6)
    exported = export_and_compare(shared_net, (x,), store(shared_net, "codebook"))
    assert [n.op_type for n in exported.model.graph.node] == ["Conv", "Relu", "Conv"]
    first, second = (n for n in exported.model.graph.node if n.op_type == "Conv")
    assert first.input[1] != second.input[1]
