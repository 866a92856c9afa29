"""Bytes of a packed file by layer, against numbers counted by hand."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from autocompress.analysis.refusals import LayerKind
from autocompress.compress.pipeline import apply_plan
from autocompress.compress.prune import PruningPolicy
from autocompress.compress.quantize import make_deployable
from autocompress.evaluate.deploy import deploy
from autocompress.evaluate.evaluator import Evaluator
from autocompress.evaluate.packed_size import packed_bytes
from autocompress.onnx_graph.exported_graph import ExportedGraph
from autocompress.packing.ledger import read_ledger
from autocompress.packing.packed import write_packed
from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.runtime.onnx_export import export_onnx
from autocompress.train.recalibrate import recalibrate_

UNTOUCHED = CompressionPlan()


def export(net: Any, plan: CompressionPlan = UNTOUCHED) -> ExportedGraph:
    groups, blocks = net.profile.groups, net.profile.blocks
    policy = PruningPolicy(round_to=1)
    model = apply_plan(net.model, plan, groups, net.inputs, policy, None, blocks).model
    deployable = make_deployable(model)
    return export_onnx(deployable.model, net.inputs, deployable.weights)


def layers_of(net: Any) -> dict[str, LayerKind]:
    return {layer.name: layer.kind for layer in net.profile.layers}


def test_packed_bytes_counts_float_layers_with_their_folded_batchnorm(
    zoo: Callable[[str], Any],
) -> None:
    net = zoo("plain")
    size, by_layer = packed_bytes(export(net), UNTOUCHED, layers_of(net))
    assert by_layer == {
        "conv1": 4 * (8 * 3 * 9 + 8),  # the bias is what is left of the batch-norm
        "norm1": 0,
        "conv2": 4 * (12 * 8 * 9 + 12),
        "hidden": 4 * (16 * 192 + 16),
        "head": 4 * (5 * 16 + 5),
    }
    assert size == packed_bytes(export(net), UNTOUCHED, {})[0]
    assert 0 < size - sum(by_layer.values()) < 1000


def test_packed_bytes_is_the_size_of_a_file(zoo: Callable[[str], Any], tmp_path: Path) -> None:
    exported = export(zoo("residual"))
    metadata = {"plan": UNTOUCHED.to_json()}
    write_packed(tmp_path / "m.acz", exported.model, exported.quantized, metadata)
    assert packed_bytes(exported, UNTOUCHED, {})[0] == (tmp_path / "m.acz").stat().st_size


def test_packed_bytes_gives_every_layer_its_share_of_what_is_coded(
    zoo_net: Any, tmp_path: Path
) -> None:
    if zoo_net.name == "encoder":
        pytest.skip("tasks are prepared with explicit attention, whose layers have names")
    exported = export(zoo_net)
    size, by_layer = packed_bytes(exported, UNTOUCHED, layers_of(zoo_net))
    write_packed(tmp_path / "m.acz", exported.model, exported.quantized, {})
    ledger = read_ledger(tmp_path / "m.acz").n_bytes
    coded = ledger["payload"] + ledger["scales"] + ledger["floats"]
    owned = sum(by_layer.values())

    assert list(by_layer) == list(layers_of(zoo_net))
    assert min(by_layer.values()) >= 0
    assert 0.95 * coded <= owned <= coded < size
    for layer in zoo_net.profile.layers:
        n_weights = math.prod(layer.weight_shape) if len(layer.weight_shape) > 1 else 0
        if not layer.tied_to:
            assert by_layer[layer.name] >= 4 * n_weights


def test_packed_bytes_counts_bits_and_parts_for_the_layer_they_came_from(
    zoo: Callable[[str], Any],
) -> None:
    net = zoo("plain")
    plan = CompressionPlan(
        layers={
            "hidden": LayerPlan(rank_ratio=0.25, weight_bits=8),
            "conv2": LayerPlan(weight_bits=4),
        }
    )
    _, base = packed_bytes(export(net), UNTOUCHED, layers_of(net))
    _, by_layer = packed_bytes(export(net, plan), plan, layers_of(net))
    n_codes = 4 * (192 + 16)

    assert set(by_layer) == set(base)
    assert by_layer["head"] == base["head"]
    assert 0.8 * n_codes <= by_layer["hidden"] <= n_codes + 8 * (4 + 16) + 100
    assert by_layer["conv2"] <= 12 * 8 * 9 / 2 + 4 * 12 + 100


def test_packed_bytes_leaves_nothing_of_a_dropped_block(zoo: Callable[[str], Any]) -> None:
    net = zoo("depthwise_separable")
    assert net.profile.blocks
    block = net.profile.blocks[0]
    plan = CompressionPlan(dropped_blocks=(block,))
    _, base = packed_bytes(export(net), UNTOUCHED, layers_of(net))
    _, by_layer = packed_bytes(export(net, plan), plan, layers_of(net))
    gone = {name for name in base if name.startswith(f"{block}.")}

    assert sum(base[name] for name in gone) > 0
    assert all(by_layer[name] == 0 for name in gone)
    assert all(by_layer[name] > 0 for name in set(base) - gone if base[name])


def test_packed_bytes_of_integer_layers_belong_to_them(evaluator: Evaluator) -> None:
    layers = {n: LayerPlan(weight_bits=8, activation_bits=8) for n in ("conv1", "conv2", "fc")}
    plan = CompressionPlan(layers=layers)
    model = evaluator.build(plan).model
    recalibrate_(model, [evaluator.prepared.train.batch(slice(0, 64))[0]])
    exported = deploy(model, evaluator.prepared).graph
    assert not exported.not_integer
    _, by_layer = packed_bytes(exported, plan, layers_of(evaluator))
    for name, module in evaluator.model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            n_weights, n_channels = module.weight.numel(), module.weight.shape[0]
            assert 0.5 * n_weights < by_layer[name] <= n_weights + 12 * n_channels + 16


@pytest.mark.parametrize("name", ["tied_weights", "shared_layer"])
def test_packed_bytes_counts_a_weight_of_several_layers_once(
    zoo: Callable[[str], Any], name: str
) -> None:
    net = zoo(name)
    _, by_layer = packed_bytes(export(net), UNTOUCHED, layers_of(net))
    assert sum(by_layer.values()) <= 4 * net.profile.n_params + 100


def test_plans_that_make_the_same_candidate_take_the_same_bytes(zoo: Callable[[str], Any]) -> None:
    """Looks are remembered by what a plan does: a worker with a memory must not say otherwise."""
    net = zoo("mlp")
    name = net.profile.layers[0].name
    idle = CompressionPlan(layers={name: LayerPlan(rate_price=0.15, quantizer="kmeans")})
    assert idle != UNTOUCHED
    assert idle.effective == UNTOUCHED
    assert (
        packed_bytes(export(net, idle), idle, {})[0] == packed_bytes(export(net), UNTOUCHED, {})[0]
    )
