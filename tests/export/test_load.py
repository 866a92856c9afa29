"""`autocompress.load`: the loaded model against the file's graph in ONNX Runtime."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import autocompress
from autocompress.compress.compressed_layers import COMPRESSED
from autocompress.compress.input_quantizer import InputQuantizer
from autocompress.compress.low_rank.registry import why_not_factorize
from autocompress.compress.prune import PruningPolicy
from autocompress.compress.quantizers.registry import why_not_quantize
from autocompress.errors import InputError
from autocompress.export.load import load
from autocompress.onnx_graph.session import make_session
from autocompress.packing.packed import read_packed
from autocompress.plan import CompressionPlan, LayerPlan

_GRANULARITY = {"hashed": "tensor"}


def plan_for(
    net: Any,
    *,
    prune: float = 0.0,
    rank: float = 1.0,
    sparsity: float = 0.0,
    quantizer: str = "",
    bits: float = 4,
    activation_bits: int = 32,
    drop: bool = False,
) -> CompressionPlan:
    """Ask for techniques wherever a net can take them."""
    layers = {}
    for layer in net.profile.layers:
        module = net.model.get_submodule(layer.name)
        if type(module) not in COMPRESSED or layer.tied_to:
            continue
        shape, kind = layer.weight_shape, layer.kind
        asked: dict[str, Any] = {}
        if rank < 1.0 and "rank_ratio" not in layer.refusals:
            asked |= {} if why_not_factorize("svd", kind, shape) else {"rank_ratio": rank}
        if sparsity:
            asked["sparsity"] = sparsity
        granularity = _GRANULARITY.get(quantizer, "channel")
        if quantizer and not why_not_quantize(quantizer, granularity, bits, kind, shape):
            asked |= {
                "quantizer": quantizer,
                "granularity": granularity,
                "weight_bits": bits,
                "activation_bits": activation_bits,
            }
        layers[layer.name] = LayerPlan(**asked)
    return CompressionPlan(
        pruning_ratios={group.name: prune for group in net.profile.groups},
        dropped_blocks=net.profile.blocks[:1] if drop else (),
        layers=layers,
    )


def error_of(loaded: nn.Module, packed: Any, inputs: tuple[Tensor, ...]) -> float:
    """Largest difference to the unpacked file in ONNX Runtime, as a share of the largest output."""
    session = make_session(read_packed(packed.path).graph, threads=1)
    names = [value.name for value in session.get_inputs()]
    arrays = [tensor.numpy() for tensor in inputs]
    wanted = session.run(None, dict(zip(names, arrays, strict=True)))[0]
    with torch.no_grad():
        got = loaded(*inputs).numpy()
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


FLOAT_CASES = [
    ("plain", {"prune": 0.5, "sparsity": 0.5}),
    ("residual", {"prune": 0.5}),
    ("residual", {"prune": 0.25, "sparsity": 0.5, "quantizer": "uniform"}),
    ("residual", {"rank": 0.25, "quantizer": "kmeans"}),
    ("zero_padded_shortcut", {"prune": 0.5, "quantizer": "uniform", "bits": 2}),
    ("inverted_bottleneck", {"prune": 0.5, "quantizer": "uniform_asymmetric"}),
    ("inverted_bottleneck", {"rank": 0.25, "quantizer": "hashed"}),
    ("depthwise_separable", {"drop": True, "quantizer": "power_of_two"}),
    ("grouped", {"prune": 0.5, "quantizer": "kmeans"}),
    ("dense_concat", {"prune": 0.5, "quantizer": "hashed"}),
    ("unet", {"prune": 0.5, "quantizer": "uniform"}),
    ("mlp", {"prune": 0.5, "quantizer": "uniform_asymmetric"}),
    ("conv1d", {"rank": 0.25, "sparsity": 0.5}),
    ("attention", {"quantizer": "kmeans"}),
    ("explicit_encoder", {"prune": 0.5, "quantizer": "uniform"}),
    ("bert_like", {"prune": 0.5, "sparsity": 0.5, "quantizer": "uniform_asymmetric"}),
    ("bert_like", {"drop": True, "rank": 0.25, "quantizer": "hashed"}),
    ("vit_like", {"prune": 0.5, "rank": 0.5, "quantizer": "kmeans"}),
    ("gpt_like", {"prune": 0.5, "quantizer": "uniform"}),
    ("lstm_text", {"prune": 0.5, "quantizer": "uniform"}),
    ("lstm", {"sparsity": 0.5, "quantizer": "uniform_asymmetric"}),
    ("gru", {"sparsity": 0.5, "quantizer": "kmeans"}),
    ("gru", {"quantizer": "hashed"}),
    ("shared_layer", {"rank": 0.25, "quantizer": "uniform"}),
    ("tied_weights", {"quantizer": "kmeans"}),
    ("free_parameter", {"quantizer": "uniform"}),
    ("conv_glu", {"prune": 0.5, "quantizer": "uniform"}),
    ("two_inputs", {"prune": 0.5, "quantizer": "uniform"}),
]


@pytest.mark.parametrize(
    ("name", "asked"), FLOAT_CASES, ids=[f"{n}-{'-'.join(map(str, a))}" for n, a in FLOAT_CASES]
)
def test_load_gives_what_the_file_computes(name, asked, zoo, fresh, pack, model_hash):
    net = zoo(name)
    plan = plan_for(net, **asked)
    assert plan != CompressionPlan()
    packed = pack(net.model, net.inputs, plan)
    model = fresh(name.removeprefix("explicit_"))  # attention is spelled out by `load` itself
    before = model_hash(model)
    loaded = load(packed.path, model)
    assert error_of(loaded, packed, net.inputs) < 1e-4
    assert model_hash(model) == before
    assert not any(module.training for module in loaded.modules())


INTEGER_NAMES = ["plain", "residual", "inverted_bottleneck", "dense_concat", "bert_like"]
INTEGER_NAMES += ["vit_like", "unet", "lstm_text", "gpt_like", "zero_padded_shortcut"]


@pytest.mark.parametrize("name", INTEGER_NAMES)
def test_load_follows_files_with_8_bit_inputs(name, zoo, fresh, pack):
    net = zoo(name)
    plan = plan_for(net, quantizer="uniform", bits=7, activation_bits=8)
    packed = pack(net.model, net.inputs, plan)
    loaded = load(packed.path, fresh(name), net.inputs)
    assert error_of(loaded, packed, net.inputs) < 0.05


@pytest.mark.parametrize("name", ["plain", "residual"])
def test_loaded_layers_have_the_grids_of_the_file(name, zoo, fresh, pack):
    net = zoo(name)
    plan = plan_for(net, quantizer="uniform", bits=7, activation_bits=8)
    packed = pack(net.model, net.inputs, plan)
    loaded = load(packed.path, fresh(name), net.inputs)
    grids = {
        float(onnx.numpy_helper.to_array(tensor))
        for tensor in packed.exported.model.graph.initializer
        if tensor.name.endswith("_scale") and not tensor.dims
    }
    found = [m for m in loaded.modules() if isinstance(m, InputQuantizer)]
    assert len(found) > 2
    assert {m.step.item() for m in found} <= grids
    large = tuple(4 * tensor for tensor in net.inputs)  # beyond what the grids were laid over
    with_grids = error_of(loaded, packed, large)
    for module in loaded.modules():
        module._modules.pop("input_quantizer", None)
    assert with_grids < 0.5 * error_of(loaded, packed, large)


def test_loaded_weights_are_the_dequantized_ones(zoo, fresh, pack):
    net = zoo("bert_like")
    packed = pack(net.model, net.inputs, plan_for(net, quantizer="uniform"))
    state = load(packed.path, fresh("bert_like")).state_dict()
    stored = {n: s for n, s in packed.exported.quantized.items() if n in state}
    assert len(stored) > 5
    for name, weight in stored.items():
        values = weight.dequantize()
        own = values if values.shape == tuple(state[name].shape) else values.T
        if not np.array_equal(own, state[name].numpy()):
            assert np.array_equal(values.T, state[name].numpy())  # square, and stored transposed


def test_folded_norms_become_identities_and_give_their_layers_a_bias(zoo, fresh, pack):
    net = zoo("residual")
    packed = pack(net.model, net.inputs, plan_for(net, quantizer="uniform"))
    loaded = load(packed.path, fresh("residual"))
    for norm in (loaded.norm, loaded.norm1, loaded.norm2):
        assert isinstance(norm, nn.Identity)
    assert loaded.stem.bias is not None
    assert not loaded.conv1.bias.isnan().any()


def test_tied_weights_stay_one_parameter(zoo, fresh, pack):
    net = zoo("gpt_like")
    packed = pack(net.model, net.inputs, plan_for(net, quantizer="uniform"))
    loaded = load(packed.path, fresh("gpt_like"))
    assert loaded.head.weight is loaded.tokens.weight


def test_shared_weights_part_where_the_file_folded_other_norms_into_each(zoo, fresh, pack):
    net = zoo("depthwise_separable")
    one, other = "blocks.0.pointwise", "blocks.1.pointwise"
    plan = CompressionPlan(
        layers={one: LayerPlan(weight_bits=4), other: LayerPlan(shared_with=one)}
    )
    packed = pack(net.model, net.inputs, plan)
    assert (
        packed.candidate.get_submodule(one).weight is packed.candidate.get_submodule(other).weight
    )
    loaded = load(packed.path, fresh("depthwise_separable"))
    weights = [loaded.get_submodule(name).weight for name in (one, other)]
    assert weights[0] is not weights[1]
    assert error_of(loaded, packed, net.inputs) < 1e-4


class TwoNorms(nn.Module):
    """One layer that runs twice, each time in front of another batch-norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.norm0, self.norm1 = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm1(self.conv(F.relu(self.norm0(self.conv(x)))))


def test_norms_that_the_file_keeps_are_filled(pack):
    packed = pack(TwoNorms(), (torch.randn(2, 3, 8, 8),))  # float weights: copies would be larger
    loaded = load(packed.path, TwoNorms())
    assert isinstance(loaded.norm0, nn.BatchNorm2d)
    assert torch.equal(loaded.norm0.running_mean, packed.candidate.norm0.running_mean)


def test_load_refuses_a_layer_that_became_two(pack):
    plan = CompressionPlan(layers={"conv": LayerPlan(weight_bits=4)})
    packed = pack(TwoNorms(), (torch.randn(2, 3, 8, 8),), plan)
    with pytest.raises(InputError, match="'conv' is a layer that runs several times") as caught:
        load(packed.path, TwoNorms())
    assert "autocompress unpack" in caught.value.hint


@pytest.mark.parametrize(
    "policy",
    [PruningPolicy(round_to=4), PruningPolicy(round_to=1, scope="global")],
    ids=["rounded", "global"],
)
@pytest.mark.parametrize("name", ["residual", "vit_like"])
def test_widths_are_read_off_the_file(name, policy, zoo, fresh, pack):
    net = zoo(name)
    packed = pack(net.model, net.inputs, plan_for(net, prune=0.5), policy)
    loaded = load(packed.path, fresh(name), net.inputs)
    assert error_of(loaded, packed, net.inputs) < 1e-4
    widths = [tuple(p.shape) for p in loaded.parameters() if p.ndim > 1]
    assert widths == [tuple(p.shape) for p in packed.candidate.parameters() if p.ndim > 1]


class Positions(nn.Module):
    """Only the positions that are looked up are in a graph."""

    length = 4

    def __init__(self) -> None:
        super().__init__()
        self.positions, self.head = nn.Embedding(9, 6), nn.Linear(6, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x + self.positions(torch.arange(self.length)))


def test_what_the_file_does_not_hold_is_nan(pack):
    trained = Positions()
    packed = pack(trained, (torch.randn(2, 4, 6),))
    loaded = load(packed.path, Positions())
    assert torch.equal(loaded.positions.weight[:4], trained.positions.weight[:4])
    assert loaded.positions.weight[4:].isnan().all()
    assert loaded.unused.weight.isnan().all()
    loaded.length = 5
    assert loaded(torch.randn(1, 5, 6)).isnan().any()


class Derived(nn.Module):
    """The exporter computes exp(gain) once and for all."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.head = nn.Parameter(torch.rand(6)), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x * self.gain.exp())


def test_load_refuses_what_was_computed_from_parameters(pack):
    packed = pack(Derived(), (torch.randn(2, 6),))
    with pytest.raises(InputError, match=r"shape \[6\] .* \(it may be computed from 'gain'\)"):
        load(packed.path, Derived())


class BakedChannels(nn.Module):
    """Which channels it picks is a constant of the graph."""

    def __init__(self, *picked: int) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, 4), nn.Linear(2, 3)
        self.picked = list(picked)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.first(x)[:, self.picked])


def test_load_refuses_other_baked_in_channels(pack):
    packed = pack(BakedChannels(0, 2), (torch.randn(2, 6),))
    assert load(packed.path, BakedChannels(0, 2)) is not None
    with pytest.raises(InputError, match=r"constant of shape .* differs from the") as caught:
        load(packed.path, BakedChannels(1, 3))
    assert "give the trained model" in caught.value.hint


class Small(nn.Module):
    def __init__(self, activation=F.relu, stride: int = 1, width: int = 8) -> None:
        super().__init__()
        self.activation = activation
        self.conv = nn.Conv2d(3, width, 3, stride=stride, padding=1, bias=False)
        self.norm, self.head = nn.BatchNorm2d(width), nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.activation(self.norm(self.conv(x))).mean((2, 3)))


IMAGES = (torch.zeros(2, 3, 8, 8),)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Small(activation=torch.tanh), "at 'head' it has `Tanh` where the file has `Relu`"),
        (Small(stride=2), r"at 'conv' it has `Conv` with strides = \[2, 2\] where the file has"),
        (Small(width=9), r"'head.weight' must have the shape that the file has, \[4, 8\]"),
        (nn.Linear(8, 4), "it has `MatMul` where the file has `Gemm`|has `Add`"),
        (nn.Linear(3, 4), "The model must run on inputs"),
        (Small().double(), "must be float32, but 'conv.weight' is torch.float64"),
    ],
    ids=["activation", "stride", "width", "layers", "inputs", "dtype"],
)
def test_load_refuses_other_architectures(other, message, pack):
    packed = pack(Small(), IMAGES)
    with pytest.raises(InputError, match=f"(?i){message}") as caught:
        load(packed.path, other)
    assert caught.value.message.startswith(f"{str(packed.path)!r} cannot be loaded: ")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.zeros(2, 3, 9, 9), r"takes, torch.float32 \(N, 3, 8, 8\), but are .*9, 9\)"),
        (IMAGES * 2, r"takes, torch.float32 \(N, 3, 8, 8\), but are .*, torch.float32"),
        (torch.zeros(2, 3, 8, 8).long(), r"but are torch.int64 \(2, 3, 8, 8\)"),
        (torch.zeros(0, 3, 8, 8), "with at least one example"),
        ("images", "but got str"),
    ],
)
def test_load_refuses_inputs_that_the_file_does_not_take(inputs, message, pack):
    packed = pack(Small(), IMAGES)
    with pytest.raises(InputError, match=message):
        load(packed.path, Small(), inputs)


def test_load_takes_one_example(pack):
    packed = pack(Small(), IMAGES)
    assert error_of(load(packed.path, Small(), IMAGES[0][:1]), packed, IMAGES) < 1e-4


def test_load_refuses_files_without_a_plan(pack):
    packed = pack(Small(), IMAGES, metadata={})
    with pytest.raises(InputError, match="its metadata must hold the plan"):
        load(packed.path, Small())


def test_load_refuses_plans_for_other_models(pack):
    plan = CompressionPlan(pruning_ratios={"elsewhere": 0.5})
    packed = pack(Small(), IMAGES, metadata={"plan": plan.to_json()})
    with pytest.raises(InputError, match="plan names 'elsewhere'"):
        load(packed.path, Small())


def test_load_refuses_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load(tmp_path / "absent.acz", Small())


def test_load_leaves_torchs_switches_as_they_were(pack):
    packed = pack(Small(), IMAGES)
    torch.backends.mha.set_fastpath_enabled(True)
    load(packed.path, Small())
    assert torch.backends.mha.get_fastpath_enabled()


def test_load_is_a_public_name():
    assert autocompress.load is load


class OnlyDynamo(nn.Module):
    """Has an operation that PyTorch's faster exporter does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.asinh(self.norm(self.conv(x))).mean((2, 3)))


def test_load_reads_what_the_slower_exporter_wrote(pack):
    plan = CompressionPlan(layers={"conv": LayerPlan(weight_bits=4)})
    inputs = (torch.randn(2, 3, 8, 8),)
    packed = pack(OnlyDynamo(), inputs, plan)
    loaded = load(packed.path, OnlyDynamo())
    assert error_of(loaded, packed, inputs) < 1e-4
