import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.compress.codes import CodebookTensor, GridTensor
from autocompress.onnx_graph.session import make_session
from autocompress.runtime.batchnorm_fold import fold_stored
from autocompress.runtime.onnx_export import export_onnx
from autocompress.runtime.onnxruntime import predict


def conv_norm(gamma):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, len(gamma), 3, bias=False), nn.BatchNorm2d(len(gamma)))
    with torch.no_grad():
        module[1].weight.copy_(torch.tensor(gamma))
        module[1].bias.copy_(torch.arange(len(gamma)))
        module[1].running_var.uniform_(0.5, 2.0)
        module[1].running_mean.normal_()
    return module.eval()


def export_and_compare(module, weights, atol=2e-3):
    x = torch.randn(3, 2, 6, 6)
    exported = export_onnx(module, (x,), weights)
    with torch.no_grad():
        want = module(x).numpy()
    got = predict(make_session(exported.model, threads=1), (x.numpy(),), 3)
    np.testing.assert_allclose(got, want, atol=atol * np.abs(want).max())
    return exported


def test_fold_batchnorm_flips_codes_where_gamma_is_negative(quantize):
    module = conv_norm([1.5, -0.5, 2.0])
    weights = quantize(module)
    found = export_and_compare(module, weights).quantized["0.weight"]
    codes = weights["0"].codes
    np.testing.assert_array_equal(found.codes, codes * np.array([1, -1, 1])[:, None, None, None])
    sigma = np.sqrt(module[1].running_var.numpy() + 1e-5)
    np.testing.assert_allclose(
        found.scale, weights["0"].scale * np.array([1.5, 0.5, 2.0]) / sigma, rtol=2**-11
    )


def test_fold_batchnorm_empties_a_channel_when_gamma_is_zero(quantize):
    module = conv_norm([1.0, 0.0])
    found = export_and_compare(module, quantize(module)).quantized["0.weight"]
    assert not found.codes[1].any()
    assert found.codes[0].any()
    assert (found.scale > 0).all()


def test_fold_batchnorm_widens_bits_when_a_flipped_code_needs_it(quantize):
    module = conv_norm([-1.0, 1.0])
    tensor = quantize(module, bits=4)["0"]
    codes = tensor.codes.copy()
    codes[0, 0, 0, 0] = -8
    tensor = dataclasses.replace(tensor, codes=codes)
    module[0].weight.data.copy_(torch.from_numpy(tensor.dequantize()))
    found = export_and_compare(module, {"0": tensor}).quantized["0.weight"]
    assert found.codes[0, 0, 0, 0] == 8
    assert found.bits == 5


def test_fold_batchnorm_keeps_the_norm_when_a_flipped_code_has_no_int8(quantize):
    module = conv_norm([-1.0, 1.0])
    tensor = quantize(module)["0"]
    codes = tensor.codes.copy()
    codes[0, 0, 0, 0] = -128
    tensor = dataclasses.replace(tensor, codes=codes)
    module[0].weight.data.copy_(torch.from_numpy(tensor.dequantize()))
    exported = export_and_compare(module, {"0": tensor})
    assert [n.op_type for n in exported.model.graph.node] == ["Conv", "BatchNormalization"]
    np.testing.assert_array_equal(exported.quantized["0.weight"].codes, codes)


@pytest.mark.parametrize(
    ("name", "n_norms"),
    [
        ("plain", 0),
        ("residual", 0),
        ("depthwise_and_grouped", 0),
        ("conv1d", 0),
        ("transposed", 0),
        ("mlp", 0),
        ("pre_activation", 1),
        ("shared_under_two_norms", 2),
    ],
)
def test_fold_batchnorm_folds_what_it_can(name, n_norms, build):
    module, x = build(name)
    model = export_onnx(module, (x,), {}).model
    assert [n.op_type for n in model.graph.node].count("BatchNormalization") == n_norms


def test_fold_batchnorm_folds_a_shared_layer_once_when_it_shares_its_norm():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.both = conv_norm([0.7, -1.2])
            self.both[0].padding = (1, 1)

        def forward(self, x):
            return self.both(torch.relu(self.both(x)))

    exported = export_and_compare(Twice().eval(), {}, atol=1e-5)
    assert [n.op_type for n in exported.model.graph.node] == ["Conv", "Relu", "Conv"]


def test_fold_stored_scales_every_channel_of_every_kind(kind, store):
    weight = store(nn.Conv2d(3, 4, 3), kind)[""]
    factor = np.array([2.0, -0.5, 1.0, -4.0])
    folded = fold_stored(weight, 0, factor)
    want = weight.dequantize() * factor.astype(np.float32)[:, None, None, None]
    np.testing.assert_array_equal(folded.dequantize(), want)
    assert fold_stored(weight, 1, factor) is None
    if kind == "quantized":
        assert (folded.scale > 0).all()
    else:
        np.testing.assert_array_equal(np.sign(folded.scale.reshape(4, -1)[:, 0]), np.sign(factor))


def test_fold_stored_empties_a_channel_of_a_grid(store):
    weight = store(nn.Conv2d(3, 4, 3), "grid")[""]
    folded = fold_stored(weight, 0, np.array([1.0, 0.0, 1.0, 1.0]))
    assert isinstance(folded, GridTensor)
    assert not folded.dequantize()[1].any()
    np.testing.assert_array_equal(folded.dequantize()[2], weight.dequantize()[2])
    assert folded.scale.all()


@pytest.mark.parametrize("empty_kind", ["codebook", "hashed"])
def test_fold_stored_has_no_zeros_for_an_empty_channel_of_other_kinds(empty_kind, store):
    weight = store(nn.Conv2d(3, 4, 3), empty_kind)[""]
    assert fold_stored(weight, 0, np.array([1.0, 0.0, 1.0, 1.0])) is None


def test_fold_batchnorm_keeps_a_codebook_and_turns_scales(store):
    module = conv_norm([1.5, -0.5, 2.0])
    weights = {"0": store(module[0], "codebook")[""]}
    found = export_and_compare(module, weights).quantized["0.weight"]
    assert isinstance(found, CodebookTensor)
    np.testing.assert_array_equal(found.codes, weights["0"].codes)
    np.testing.assert_array_equal(np.sign(found.scale), [1, -1, 1])
