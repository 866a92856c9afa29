import copy
import io

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from autocompress.tasks.base import Task
from autocompress.tasks.explicit_attention import (
    ExplicitAttention,
    is_supported,
    make_attention_explicit,
)
from autocompress.tasks.prepare import prepare_task

N, L, S, E = 3, 5, 4, 8


def _close(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def _attention(**options):
    attention = nn.MultiheadAttention(E, 2, batch_first=True, **options).eval()
    if attention.in_proj_bias is not None:
        nn.init.normal_(attention.in_proj_bias)
        nn.init.normal_(attention.out_proj.bias)
    return attention


def _masks():
    causal = torch.ones(L, S, dtype=torch.bool).triu(1)
    padding = torch.zeros(N, S, dtype=torch.bool)
    padding[0, 2:] = True
    per_head = torch.rand(N * 2, L, S)
    return {
        "none": {},
        "bool": {"attn_mask": causal},
        "float": {"attn_mask": torch.randn(L, S)},
        "causal": {"attn_mask": causal, "is_causal": True},
        "per_head": {"attn_mask": per_head},
        "padding": {"key_padding_mask": padding},
        "float_padding": {"key_padding_mask": padding.float() * -3},
        "both": {
            "attn_mask": causal[:, :S].logical_and(causal.sum(0) < 2),
            "key_padding_mask": padding,
        },
    }


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("mask", sorted(_masks()))
def test_explicit_attention_computes_the_same_for_every_mask(mask, need_weights):
    attention = _attention()
    q, kv = torch.randn(N, L, E), torch.randn(N, S, E)
    options = {**_masks()[mask], "need_weights": need_weights}
    expected, expected_weights = attention(q, kv, kv, **options)
    got, weights = ExplicitAttention(attention)(q, kv, kv, **options)
    _close(got, expected)
    assert (weights is None) == (expected_weights is None)
    if weights is not None:
        _close(weights, expected_weights)


def test_explicit_attention_returns_the_weights_of_every_head():
    attention, x = _attention(), torch.randn(N, L, E)
    expected = attention(x, x, x, average_attn_weights=False)
    got = ExplicitAttention(attention)(x, x, x, average_attn_weights=False)
    _close(got[1], expected[1])


@pytest.mark.parametrize("options", [{"bias": False}, {"kdim": 6, "vdim": 7}])
def test_explicit_attention_takes_over_options(options):
    attention = _attention(**options)
    q, k = torch.randn(N, L, E), torch.randn(N, S, options.get("kdim", E))
    v = torch.randn(N, S, options.get("vdim", E))
    _close(ExplicitAttention(attention)(q, k, v)[0], attention(q, k, v)[0])


def test_explicit_attention_takes_sequences_first_and_single_examples():
    attention = nn.MultiheadAttention(E, 2).eval()
    explicit = ExplicitAttention(attention)
    for shape in ((L, N, E), (L, E)):
        x = torch.randn(shape)
        _close(explicit(x, x, x)[0], attention(x, x, x)[0])
        _close(explicit(x, x, x)[1], attention(x, x, x)[1])


def test_explicit_attention_needs_the_mask_it_is_told_about():
    x = torch.randn(N, L, E)
    with pytest.raises(RuntimeError, match="Need attn_mask"):
        ExplicitAttention(_attention())(x, x, x, is_causal=True)


class _Classifier(nn.Module):
    def __init__(self, is_norm_first=False):
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            E, 2, 16, batch_first=True, dropout=0.0, norm_first=is_norm_first
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=not is_norm_first)
        self.head = nn.Linear(E, 2)

    def forward(self, x, padding=None):
        return self.head(self.encoder(x, src_key_padding_mask=padding)[:, 0])


@pytest.mark.parametrize("is_norm_first", [True, False])
@pytest.mark.parametrize("is_padded", [True, False])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")  # of torch's own fast path
def test_encoder_computes_the_same_with_explicit_attention(is_norm_first, is_padded):
    model, x = _Classifier(is_norm_first).eval(), torch.randn(N, L, E)
    padding = torch.arange(L)[None] >= torch.tensor([[5], [3], [2]]) if is_padded else None
    explicit = make_attention_explicit(model)
    with torch.no_grad():
        _close(explicit(x, padding), model(x, padding))


def test_decoder_computes_the_same_with_explicit_attention():
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(E, 2, 16, dropout=0.0), 1)
    memory, x = torch.randn(S, N, E), torch.randn(L, N, E)
    mask = nn.Transformer.generate_square_subsequent_mask(L)
    expected = decoder(x, memory, tgt_mask=mask, tgt_is_causal=True)
    got = make_attention_explicit(decoder)(x, memory, tgt_mask=mask, tgt_is_causal=True)
    _close(got, expected)


def test_make_attention_explicit_returns_the_model_itself_when_there_is_none():
    model = nn.Sequential(nn.Linear(2, 2))
    assert make_attention_explicit(model) is model


def test_make_attention_explicit_leaves_the_model_and_copies_weights(model_hash):
    model = _Classifier().requires_grad_(False)
    before = model_hash(model)
    explicit = make_attention_explicit(model)
    assert model_hash(model) == before
    attention = explicit.encoder.layers[1].self_attn
    assert isinstance(attention, ExplicitAttention)
    source = model.encoder.layers[1].self_attn.in_proj_weight
    assert torch.equal(attention.k_proj.weight, source[E : 2 * E])
    assert not attention.k_proj.weight.requires_grad
    assert sum(p.numel() for p in explicit.parameters()) == sum(
        p.numel() for p in model.parameters()
    )


def test_make_attention_explicit_keeps_a_shared_module_shared():
    model = nn.ModuleDict({"a": nn.MultiheadAttention(E, 2)})
    model["b"] = model["a"]
    explicit = make_attention_explicit(model)
    assert explicit["a"] is explicit["b"]
    assert isinstance(make_attention_explicit(model["a"]), ExplicitAttention)


class _Own(nn.MultiheadAttention):
    pass


@pytest.mark.parametrize(
    "attention",
    [
        nn.MultiheadAttention(E, 2, add_bias_kv=True),
        nn.MultiheadAttention(E, 2, add_zero_attn=True),
        _Own(E, 2),
    ],
)
def test_attention_that_is_something_else_is_left_alone(attention):
    assert not is_supported(attention)
    model = nn.Sequential(attention)
    assert make_attention_explicit(model) is model


def test_explicit_attention_trains_and_can_be_copied():
    explicit = copy.deepcopy(make_attention_explicit(_Classifier())).train()
    explicit(torch.randn(N, L, E)).sum().backward()
    assert all(parameter.grad is not None for parameter in explicit.parameters())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the exporter that works is the old one
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # torch's encoder looks at shapes
def test_explicit_attention_is_exported_with_a_free_batch():
    model, x = make_attention_explicit(_Classifier()).eval(), torch.randn(N, L, E)
    file = io.BytesIO()
    torch.onnx.export(
        model, (x,), file, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}}
    )
    session = onnxruntime.InferenceSession(file.getvalue())
    for n_examples in (1, N):
        got = session.run(None, {"x": x[:n_examples].numpy()})[0]
        np.testing.assert_allclose(got, model(x[:n_examples]).detach().numpy(), atol=1e-5)


def test_prepare_task_makes_attention_explicit():
    data = (torch.randn(20, L, E), torch.arange(20) % 2)
    model = _Classifier()
    prepared = prepare_task(Task(model=model, train=data))
    assert isinstance(prepared.task.model.encoder.layers[0].self_attn, ExplicitAttention)
    assert isinstance(model.encoder.layers[0].self_attn, nn.MultiheadAttention)
