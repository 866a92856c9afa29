import pytest
import torch
from torch import nn

from autocompress.analysis.profile import profile_model
from autocompress.errors import InputError
from autocompress.tasks.base import Task
from autocompress.tasks.frozen import freeze, is_frozen
from autocompress.tasks.prepare import prepare_task
from autocompress.train.loop import finetune_
from autocompress.train.recalibrate import calibration_batches, recalibrate_
from autocompress.train.recipe import Recipe
from autocompress.train.teachers import make_teacher


def _model():
    return nn.Sequential(
        nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU()),
        nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU()),
        nn.Linear(8, 3),
    )


@pytest.fixture
def prepared():
    task = Task(model=_model(), train=(torch.randn(64, 4), torch.arange(64) % 3), frozen=("0",))
    return prepare_task(task)


def test_frozen_layers_get_no_knob(prepared):
    profile = profile_model(prepared.task.model, prepared.example_inputs)
    frozen = {layer.name for layer in profile.layers if "weight_bits" in layer.refusals}
    assert {"0.0", "0.1"} <= frozen
    assert "1.0" not in frozen
    assert [group.name for group in profile.groups] == ["1.0"]
    assert profile.refused_groups["0.0"] == "it is frozen by the task"


def test_frozen_layers_are_neither_tuned_nor_re_estimated(prepared):
    model = prepared.task.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    recipe = Recipe(epochs=1.0, batch_size=16, learning_rate=0.1)
    device = torch.device("cpu")
    teacher = make_teacher(prepared, model, recipe, device=device, precision="fp32")
    finetune_(model, prepared, teacher, recipe, seed=0, device=device, precision="fp32")
    recalibrate_(model, calibration_batches(prepared, 16, 2, 0))
    changed = {n for n, tensor in model.state_dict().items() if not torch.equal(tensor, before[n])}
    assert not any(name.startswith("0.") for name in changed)
    assert {"1.0.weight", "1.1.running_mean", "2.weight"} <= changed


def test_freezing_leaves_the_users_model_as_it_is():
    model = _model()
    frozen = freeze(model, ("0.*",))
    assert is_frozen(frozen[0][0])
    assert not is_frozen(frozen[0])
    assert not any(is_frozen(module) for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_model_loaded_for_inference_is_trained_where_it_is_not_frozen():
    frozen = freeze(_model().requires_grad_(False), ("0",))
    assert [p.requires_grad for p in frozen.parameters()] == [False] * 4 + [True] * 6


def test_frozen_names_must_fit_and_leave_something():
    with pytest.raises(InputError, match=r"'encoder' fits none\. Its top level has: 0, 1, 2\."):
        freeze(_model(), ("encoder",))
    with pytest.raises(
        InputError, match="must be a sequence of names, but got the text 'body'"
    ) as text:
        freeze(_model(), ("body"))
    assert text.value.hint == "Give frozen=('body',): a single name needs its comma."
    with pytest.raises(InputError, match="it freezes every parameter"):
        freeze(_model(), ("*",))
