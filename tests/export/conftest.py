"""Packed files of zoo nets, made without training, and fresh copies of the nets."""

import dataclasses
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autocompress.analysis.channel_groups import find_channel_groups
from autocompress.compress.pipeline import apply_plan
from autocompress.compress.prune import PruningPolicy
from autocompress.compress.quantize import make_deployable
from autocompress.onnx_graph.exported_graph import ExportedGraph
from autocompress.packing.packed import write_packed
from autocompress.plan import CompressionPlan
from autocompress.runtime.integer import to_integer
from autocompress.runtime.onnx_export import export_onnx
from autocompress.train.recalibrate import recalibrate_


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackedFile:
    """A file, what went into it, and the candidate it was made of."""

    path: Path
    exported: ExportedGraph
    candidate: nn.Module


@pytest.fixture
def pack(tmp_path: Path) -> Callable[..., PackedFile]:
    """Apply a plan to a model, re-estimate its statistics, export it and write a packed file."""

    def make(
        model: nn.Module,
        inputs: tuple[Tensor, ...],
        plan: CompressionPlan | None = None,
        policy: PruningPolicy | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> PackedFile:
        plan = plan or CompressionPlan()
        groups = find_channel_groups(model, inputs)[0] if plan.pruning_ratios else ()
        candidate = apply_plan(model, plan, groups, inputs, policy or PruningPolicy()).model
        recalibrate_(candidate, [inputs, inputs])
        deployable = make_deployable(candidate.eval())
        exported = export_onnx(deployable.model, inputs, deployable.weights)
        if deployable.activations:
            arrays = tuple(tensor.numpy() for tensor in inputs)
            exported = to_integer(exported, deployable.activations, [arrays])
        path = tmp_path / "model.acz"
        metadata = {"plan": plan.to_json()} if metadata is None else metadata
        write_packed(path, exported.model, exported.quantized, metadata)
        return PackedFile(path=path, exported=exported, candidate=candidate)

    return make


@pytest.fixture(scope="session")
def fresh() -> Callable[[str], nn.Module]:
    """A zoo net as a user would write it down again: initialised by another seed, untrained."""

    def make(name: str) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1234)
            return sys.modules["zoo"].ZOO[name][0]()  # loaded by the conftest above

    return make
