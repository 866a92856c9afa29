"""Small models of transformers through analysis, every technique at once, and export."""

import numpy as np
import pytest
import torch

from autocompress.analysis.profile import profile_model
from autocompress.compress.pipeline import apply_plan
from autocompress.compress.prune import PruningPolicy
from autocompress.evaluate.deploy import deploy
from autocompress.onnx_graph.session import make_session
from autocompress.runtime.onnxruntime import predict
from autocompress.space.build import build_space
from autocompress.space.rules import SpaceRules
from autocompress.tasks.factory import load_task
from autocompress.tasks.prepare import prepare_task

RULES = SpaceRules.model_validate(
    {
        "pruning": {"round_to": 1},
        "rules": [
            {
                "match": {"name": "*"},
                "pruning_ratio": [0.5],
                "rank_ratio": [0.25],
                "weight_bits": [8],
                "optional": True,
            }
        ],
    }
)
# Name -> data, task arguments, and the channel groups there must be at least.
NETS = {
    "distilbert": ("sentences", {}, 2),
    "resnet": ("pictures", {}, 2),
    "gpt2": ("plays", {"length": "8"}, 2),
    "llama": ("plays", {"length": "8"}, 1),  # one key and value for all heads: none can go
}


@pytest.mark.parametrize("name", NETS)
def test_model_is_pruned_factorized_quantized_and_exported(name, saved_model, request):
    data, arguments, n_groups = NETS[name]
    dataset = request.getfixturevalue(data)
    task = load_task("hf", {"model": str(saved_model(name)), "dataset": str(dataset), **arguments})
    prepared = prepare_task(task)
    model, inputs = prepared.task.model, prepared.example_inputs
    profile = profile_model(model, inputs)
    space = build_space(profile, RULES).space
    plan = space.decode({knob.name: len(knob.levels) - 1 for knob in space.knobs})
    assert {"rank_ratio", "weight_bits", "pruning_ratio"} <= {knob.kind for knob in space.knobs}
    assert len(profile.groups) >= n_groups

    policy = PruningPolicy(**RULES.pruning.model_dump())
    candidate = apply_plan(model, plan, profile.groups, inputs, policy, blocks=profile.blocks)
    small = candidate.model.eval()
    graph = deploy(small, prepared).graph

    with torch.no_grad():
        expected = small(*inputs).numpy()
    found = predict(make_session(graph.model, threads=1), tuple(x.numpy() for x in inputs), 2)
    assert not graph.unmatched
    assert np.abs(found - expected).max() < 5e-3 * np.abs(expected).max()
    n_before, n_after = (sum(p.numel() for p in m.parameters()) for m in (model, small))
    assert n_after < 0.9 * n_before
