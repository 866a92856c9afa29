"""Nets whose layers share weights, have several, or are dropped: refine, kill, rebuild."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from autocompress.analysis.profile import LayerInfo
from autocompress.compress.share_weights import sharing_partners
from autocompress.evaluate.evaluator import Evaluator
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.measurement import Measurement
from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.runs.refine.training import Epoch, Refinement, refine
from autocompress.tasks.base import Task, TensorData
from autocompress.tasks.prepare import prepare_task

BITS = (1, 2, 1.58, 3)
QUANTIZERS = ("uniform", "kmeans")


class KilledError(Exception):
    """Stands for whatever ends a process."""


def squared_error(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs - targets).square().mean()


def evaluator_of(net: Any) -> Evaluator:
    torch.manual_seed(0)
    inputs = tuple(torch.cat([t] * (24 // len(t) + 1))[:24] for t in net.inputs)
    inputs = tuple(t + 0.3 * torch.randn_like(t) if t.is_floating_point() else t for t in inputs)
    with torch.no_grad():
        data = TensorData(inputs, net.model(*inputs))
    task = Task(
        model=net.model,
        train=data,
        val=data,
        loss=squared_error,
        metric=lambda outputs, targets: float(1.0 / (1.0 + squared_error(outputs, targets))),
        distill="mse",
        batch_size=8,
        proxy_epochs=1,
    )
    return Evaluator(prepare_task(task), EvaluationSettings(threads=1, has_latency=False))


def quantizable(model: nn.Module, layers: tuple[LayerInfo, ...]) -> list[str]:
    kinds = (nn.Linear, nn.Conv2d, nn.Embedding, nn.LSTM)
    return [n.name for n in layers if type(model.get_submodule(n.name)) in kinds]


@pytest.mark.parametrize(
    ("name", "drops_block", "shares"),
    [
        ("depthwise_separable", True, False),
        ("tied_weights", False, False),
        ("shared_layer", False, False),
        ("lstm", False, False),
        ("gpt_like", False, True),
    ],
)
def test_refine_goes_on_bit_for_bit_and_its_weights_can_be_loaded(
    zoo: Callable[[str], Any], name: str, drops_block: bool, shares: bool, tmp_path: Path
) -> None:
    evaluator = evaluator_of(zoo(name))
    layers = {
        layer: LayerPlan(weight_bits=BITS[i % 4], quantizer=QUANTIZERS[i % 2], activation_bits=8)
        for i, layer in enumerate(quantizable(evaluator.model, evaluator.profile.layers))
    }
    if shares:
        for layer, source in sharing_partners(evaluator.profile.layers).items():
            layers[layer] = dataclasses.replace(layers[layer], shared_with=source)
        assert any(plan.shared_with for plan in layers.values())
    blocks = sorted(evaluator.profile.blocks)
    plan = CompressionPlan(layers=layers, dropped_blocks=tuple(blocks[:1]) if drops_block else ())
    assert bool(plan.dropped_blocks) == drops_block
    recipe = dataclasses.replace(evaluator.recipe, epochs=3.0, entropy_strength=0.3)

    def run(tag: str, kill_after: int = 0) -> tuple[Measurement, bytes]:
        def on_epoch(epoch: Epoch) -> None:
            if epoch.number == kill_after:
                raise KilledError

        measured, _ = refine(
            evaluator,
            plan,
            Refinement(recipe=recipe),
            seed=1,
            checkpoint=tmp_path / f"{tag}.checkpoint",
            keep=tmp_path / tag,
            on_epoch=on_epoch,
        )
        return dataclasses.replace(measured, seconds=0.0), (tmp_path / tag).read_bytes()

    unbroken = run("unbroken")
    for number in (1, 2, 3):
        with pytest.raises(KilledError):
            run("broken", number)
    assert run("broken") == unbroken
    model = evaluator.rebuild(plan, tmp_path / "unbroken")
    accuracy, loss, _ = evaluator.measurer.score(model)
    assert unbroken[0].accuracy == pytest.approx(accuracy, abs=1e-6)
    assert unbroken[0].loss == pytest.approx(loss, rel=1e-5)
