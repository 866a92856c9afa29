"""A candidate's figures count only if its graph computes what it does."""

import dataclasses

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autocompress.errors import TrialError
from autocompress.evaluate.deploy import deploy
from autocompress.evaluate.evaluator import Evaluator
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.evaluate.shipped_graph import check_shipped
from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.tasks.base import Task
from autocompress.tasks.prepare import prepare_task

SETTINGS = EvaluationSettings(threads=1, has_latency=False, proxy_epochs=0.5)


class Tied(nn.Module):
    """Reads a layer's weight outside of the layer, as models with tied embeddings do."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.encoder(x))
        output: Tensor = self.head(F.linear(hidden, self.encoder.weight.t()))
        return output


def task_of(model: nn.Module) -> Task:
    x = torch.randn(256, 16)
    y = x[:, :3].argmax(1)
    return Task(model=model, train=(x, y), val=(x[:64], y[:64]))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_a_graph_that_computes_something_else_is_refused() -> None:
    net = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    prepared = prepare_task(task_of(net))
    shipment, inputs = deploy(net, prepared), (torch.randn(8, 16),)
    check_shipped(shipment, net, inputs)
    with torch.no_grad():
        net[2].bias += 1.0
    with pytest.raises(TrialError, match=r"outputs differ from the candidate's by \d+\.\d% of the"):
        check_shipped(shipment, net, inputs)
    with pytest.raises(TrialError, match=r"returns shape \(8, 3\), the candidate \(8, 16\)"):
        check_shipped(shipment, net[:1], inputs)


def test_a_graph_that_cannot_be_run_is_refused() -> None:
    net = nn.Linear(16, 3).eval()
    shipment = deploy(net, prepare_task(task_of(net)))
    broken = onnx.ModelProto.FromString(shipment.graph.model.SerializeToString())
    broken.graph.initializer[0].dims[0] += 1
    broken.graph.initializer[0].raw_data += bytes(4 * 16)
    graph = dataclasses.replace(shipment.graph, model=broken)
    with pytest.raises(TrialError):
        check_shipped(dataclasses.replace(shipment, graph=graph), net, (torch.randn(8, 16),))


def test_a_candidate_whose_weights_are_read_outside_their_layer_gets_no_figures() -> None:
    """Its file would lose what its figures promise: 84.7 % on a front were 76.0 % as a file."""
    evaluator = Evaluator(prepare_task(task_of(Tied())), SETTINGS)
    mild = CompressionPlan(layers={"head": LayerPlan(weight_bits=4)})
    assert evaluator.evaluate(mild, seed=0).accuracy > 0
    plan = CompressionPlan(layers={"encoder": LayerPlan(weight_bits=2)})
    with pytest.raises(TrialError) as caught:
        evaluator.evaluate(plan, seed=0)
    assert caught.value.reason == "shipped_graph"


@pytest.mark.parametrize("bits", [8, 3])
def test_candidates_with_integer_layers_pass(bits: int) -> None:
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 3))
    evaluator = Evaluator(prepare_task(task_of(net)), SETTINGS)
    layer = LayerPlan(weight_bits=bits, activation_bits=8)
    plan = CompressionPlan(layers={"0": layer, "2": layer})
    assert 0.0 <= evaluator.evaluate(plan, seed=0).accuracy <= 1.0
