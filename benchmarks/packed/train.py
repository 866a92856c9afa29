"""Train a point, write its file, and measure the file."""

import copy
import dataclasses
import json
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autocompress.atomic_file import write_atomically
from autocompress.environment import describe_environment
from autocompress.evaluate.deploy import deploy
from autocompress.evaluate.evaluator import Evaluator
from autocompress.evaluate.scoring import score
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.onnx_graph.session import make_session
from autocompress.packing.packed import read_packed, write_packed
from autocompress.plan import CompressionPlan
from autocompress.runs.refine.training import Epoch, Refinement, refine
from autocompress.runtime.onnxruntime import predict
from autocompress.tasks.base import Task
from autocompress.tasks.factory import load_task
from autocompress.tasks.prepare import PreparedTask, prepare_task
from packed.coders import coder_bytes
from packed.points import POINTS, Point

_TASK = Path(__file__).parents[2] / "examples" / "02_cifar10_resnet20.py"
_BATCH = 500


def train_points(
    data: Path,
    work: Path,
    *,
    names: Iterable[str],
    depth: int,
    teacher_depth: int | None,
    epochs: int,
    threads: int,
) -> None:
    """Train every point that has no result yet, one JSON file each."""
    work.mkdir(parents=True, exist_ok=True)
    evaluator = _evaluator(data, depth, threads, teacher_depth)
    teacher = f"cifar10-resnet{teacher_depth or depth}"
    for name in names:
        stem = f"resnet{depth}-{epochs}epochs-{name.replace(',', '').replace(' ', '-')}"
        if teacher_depth is not None:
            stem += f"-by-resnet{teacher_depth}"
        result = work / f"{stem}.json"
        if result.exists():
            continue
        point = POINTS[name]
        figures = _train(evaluator, point, epochs, work, stem)
        document = {
            "net": f"cifar10-resnet{depth}",
            "point": name,
            **dataclasses.asdict(point),
            "teacher": teacher,
            "threads": threads,
            **figures,
            "environment": describe_environment(),
        }
        write_atomically(result, json.dumps(document, indent=2) + "\n")
        print(name, *(f"{key}={value}" for key, value in figures.items() if key != "epochs"))


def compare_coders(data: Path, depth: int, threads: int) -> list[dict[str, Any]]:
    """Bytes of the codes of uniform bits, rounded to nearest and untrained, in several coders."""
    evaluator = _evaluator(data, depth, threads)
    rows = []
    for bits in (8, 4, 3, 2):
        plan = Point(bits=bits).plan(evaluator.profile)
        candidate, _ = evaluator.tuned(plan, 0, 0, lambda stage, share: None)
        figures = _file_figures(candidate.model.to("cpu"), plan, evaluator)
        rows.append({"net": f"cifar10-resnet{depth}", "bits": bits, **figures})
    return rows


def _evaluator(data: Path, depth: int, threads: int, teacher_depth: int | None = None) -> Evaluator:
    prepared = prepare_task(_load(data, depth))
    if teacher_depth is not None:
        prepared = dataclasses.replace(prepared, teachers=(_load(data, teacher_depth).model,))
    return Evaluator(prepared, EvaluationSettings(threads=threads, has_latency=False))


def _load(data: Path, depth: int) -> Task:
    return load_task(str(_TASK), {"data": str(data), "depth": str(depth)})


def _train(
    evaluator: Evaluator, point: Point, n_epochs: int, work: Path, stem: str
) -> dict[str, Any]:
    plan = point.plan(evaluator.profile)
    recipe = dataclasses.replace(
        evaluator.recipe,
        epochs=float(n_epochs),
        entropy_strength=point.entropy,
    )
    weights = work / f"{stem}.safetensors"

    def show(epoch: Epoch) -> None:
        print(stem, *dataclasses.asdict(epoch).values(), flush=True)

    measured, epochs = refine(
        evaluator,
        plan,
        Refinement(recipe=recipe, patience=n_epochs),
        seed=0,
        checkpoint=work / f"{stem}.checkpoint",
        keep=weights,
        on_epoch=show,
    )
    model = evaluator.rebuild(plan, weights)
    base = evaluator.evaluate(CompressionPlan(), seed=0)
    return {
        "n_epochs": len(epochs),
        "seconds": measured.seconds,
        "base": {"size_bytes": base.size_bytes, **_scores(evaluator.model, evaluator)},
        **_file_figures(model, plan, evaluator),
        "float_inputs": _scores(_with_float_inputs(model), evaluator),
        "epochs": [dataclasses.asdict(epoch) for epoch in epochs],
    }


def _file_figures(model: nn.Module, plan: CompressionPlan, evaluator: Evaluator) -> dict[str, Any]:
    """Size and accuracies of the packed file, seconds to write and to read it, other coders."""
    graph = deploy(copy.deepcopy(model), evaluator.prepared).graph
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.acz"
        start = time.process_time()
        write_packed(path, graph.model, graph.quantized, {"plan": plan.to_json()})
        packed = time.process_time()
        unpacked = read_packed(path)
        read = time.process_time()
        return {
            "size_bytes": path.stat().st_size,
            **_onnx_scores(unpacked.graph.SerializeToString(), evaluator.prepared),
            "write_seconds": packed - start,
            "read_seconds": read - packed,
            **coder_bytes(path),
        }


def _scores(model: nn.Module, evaluator: Evaluator) -> dict[str, float]:
    graph = deploy(copy.deepcopy(model), evaluator.prepared).graph
    return _onnx_scores(graph.model.SerializeToString(), evaluator.prepared)


def _onnx_scores(model: bytes, prepared: PreparedTask) -> dict[str, float]:
    """Accuracy of an ONNX file on val, on test, and on both together."""
    session = make_session(model, threads=1)
    outputs, targets = {}, {}
    for split in ("val", "test"):
        data = getattr(prepared, split)
        every = tuple(tensor.numpy() for tensor in data.batch(slice(0, len(data)))[0])
        outputs[split] = torch.from_numpy(predict(session, every, _BATCH))
        targets[split] = data.targets
    outputs["held_out"], targets["held_out"] = (
        torch.cat([parts["val"], parts["test"]]) for parts in (outputs, targets)
    )
    return {
        f"{split}_accuracy": score(prepared.task, outputs[split], targets[split])[0]
        for split in outputs
    }


def _with_float_inputs(model: nn.Module) -> nn.Module:
    """A copy whose layers take floats: what the 8-bit activations cost is the difference."""
    model = copy.deepcopy(model)
    for module in model.modules():
        module._modules.pop("input_quantizer", None)
    return model
