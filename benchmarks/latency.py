"""Latency of whole models: float, int8 and pruned int8, in every runtime, side by side.

    python benchmarks/latency.py run results/RUN --trial N [--trial M] # a searched run
    python benchmarks/latency.py vgg                                   # untrained: latency only

`run` times the original model, int8 post-training, the chosen trials (with refined weights, if any)
and the usual alternative: a tenth to a half of all channels removed uniformly by torch-pruning, in
integers. All forms of a net are timed block by block in turns, each file in a process of its own,
for each runtime, batch and number of threads; speedups are medians of ratios to the float model of
the same runtime, with 95 % confidence intervals. Every file is scored in a fresh process. The
uniformly pruned models are not fine-tuned: their rows show speed only, not accuracy. Results are
merged into results/latency-*.csv.
"""

import argparse
import copy
import dataclasses
import itertools
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch_pruning as tp
from published import result_path
from torch import nn

from autocompress.errors import TrialError
from autocompress.evaluate.deploy import deploy, timed_inputs
from autocompress.evaluate.evaluator import Evaluator
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.export.bench import size_of
from autocompress.export.bundle import candidate_of
from autocompress.export.runtime_file import scores
from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.run_record import RunRecord, TrialRecord
from autocompress.runtime.base import Runtime, Shipment
from autocompress.runtime.interleaved import median_interval, time_in_turns
from autocompress.runtime.onnxruntime import executed_integer_nodes
from autocompress.runtime.process import RunningModel
from autocompress.runtime.registry import RUNTIMES, is_installed
from autocompress.study.records import load_run
from autocompress.study.session import reopen
from autocompress.tasks.base import Task
from autocompress.tasks.prepare import PreparedTask, prepare_task

_RUNTIMES = ("onnxruntime", "openvino", "openvino_bf16", "executorch")
_UNIFORM = (0.3, 0.5)
_CHOSEN: dict[str, Any] = {}
_KEY = ["net", "form", "runtime", "batch", "threads"]


def run_rows(folder: Path, trials: list[int], seconds: float) -> Iterator[dict[str, Any]]:
    run = load_run(folder)
    prepared, evaluator = reopen(run)
    forms = {"float32": (evaluator.meter.baseline(), "untouched")}
    control = next(t for t in run.trials if t.label == "int8 post-training")
    points = [control, *(_best(run, number) for number in trials)]
    with tempfile.TemporaryDirectory() as scratch:
        for point in points:
            name = point.label if point is control else f"trial {point.number}"
            kind = "refined" if point.measurement and point.measurement.fidelity == 2 else "proxy"
            model = candidate_of(run, point, evaluator, Path(scratch))
            shipment = evaluator.meter.deploy(model)
            forms[name] = shipment, "untrained" if point is control else kind
    is_convolutional = any(isinstance(m, nn.Conv2d) for m in prepared.task.model.modules())
    for ratio in _UNIFORM if is_convolutional else ():  # of attention its pruner makes a mess
        forms[f"uniform pruning {ratio:g} + int8"] = _uniform(prepared, ratio), "untuned"
    yield from _rows(prepared.task.name, forms, prepared, seconds)


def _best(run: RunRecord, number: int) -> TrialRecord:
    refined = [trial for trial in run.refined if trial.number == number]
    return refined[0] if refined else run.trials[number]


def _uniform(prepared: PreparedTask, ratio: float) -> Shipment:
    """The model pruned by the book, in integers, not tuned."""
    model = copy.deepcopy(prepared.task.model)
    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    pruner = tp.pruner.MagnitudePruner(
        model,
        prepared.example_inputs,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=[last],
    )
    pruner.step()
    return _int8(prepare_task(dataclasses.replace(prepared.task, model=model.eval())))


def _int8(prepared: PreparedTask, ratio: float = 0.0) -> Shipment:
    """All layers with 8-bit weights and inputs; perhaps with fewer channels in every group."""
    evaluator = Evaluator(prepared, EvaluationSettings(threads=torch.get_num_threads()))
    profile = evaluator.profile
    layers = {
        layer.name: LayerPlan(weight_bits=8, activation_bits=8)
        for layer in profile.layers
        if not {"weight_bits", "activation_bits"} & layer.refusals.keys()
    }
    ratios = {group.name: ratio for group in profile.groups} if ratio else {}
    plan = CompressionPlan(layers=layers, pruning_ratios=ratios)
    candidate, _ = evaluator.tuned(plan, 0, 0, lambda stage, share: None)
    return evaluator.meter.deploy(candidate.model.to("cpu"))


def vgg_rows(seconds: float) -> Iterator[dict[str, Any]]:
    """VGG-16 for 32 x 32 images with batch-norm; random weights, so nothing is scored."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    n_in = 3
    for width, n_layers in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(n_layers):
            layers += [nn.Conv2d(n_in, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            n_in = width
        layers.append(nn.MaxPool2d(2))
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10)).eval()
    images = torch.randn(256, 3, 32, 32)
    task = Task(model=model, train=(images, torch.arange(256) % 10), name="vgg16-untrained")
    prepared = prepare_task(task)
    forms = {
        "float32": (deploy(prepared.task.model, prepared), "untrained"),
        "int8": (_int8(prepared), "untrained"),
        "half the channels + int8": (_int8(prepared, 0.5), "untrained"),
    }
    yield from _rows(task.name, forms, prepared, seconds, has_scores=False)


def _rows(
    net: str,
    forms: Mapping[str, tuple[Shipment, str]],
    prepared: PreparedTask,
    seconds: float,
    *,
    has_scores: bool = True,
) -> Iterator[dict[str, Any]]:
    usable = [r for r in RUNTIMES if r.name in _CHOSEN["runtimes"] and is_installed(r)]
    for runtime, batch in itertools.product(usable, _CHOSEN["batches"]):
        with tempfile.TemporaryDirectory() as scratch:
            paths: dict[str, Path] = {}
            for i, (form, (shipment, _)) in enumerate(forms.items()):
                path = Path(scratch) / f"{i}{runtime.suffix}"
                try:
                    runtime.write(shipment, path, batch)
                    RunningModel(runtime, path, threads=1).close()
                except TrialError as error:
                    print(f"{net}, {form}, {runtime.name}: {error.message}", file=sys.stderr)
                    continue
                paths[form] = path
            accuracies = {}
            if has_scores and batch == 1:
                settings = EvaluationSettings(threads=1)
                accuracies = {
                    form: scores(runtime, path, prepared, settings)
                    for form, path in paths.items()
                    if forms[form][1] != "untuned"
                }
            for threads in (1, 2):
                timed = _timed(runtime, paths, prepared, batch, threads, seconds)
                for form, figures in timed.items():
                    row = {
                        **dict(zip(_KEY, (net, form, runtime.name, batch, threads), strict=True)),
                        "training": forms[form][1],
                        **figures,
                        "file_bytes": size_of(paths[form]),
                        **accuracies.get(form, {}),
                    }
                    if runtime.name == "onnxruntime" and batch == threads == 1:
                        row["integer_nodes"] = executed_integer_nodes(paths[form])
                    print({k: row[k] for k in (*_KEY, "median_ms", "speedup")}, flush=True)
                    yield row


def _timed(
    runtime: Runtime,
    paths: Mapping[str, Path],
    prepared: PreparedTask,
    batch: int,
    threads: int,
    seconds: float,
) -> dict[str, dict[str, Any]]:
    example = timed_inputs(prepared.example_inputs, batch)
    with ExitStack() as stack:
        models = [
            stack.enter_context(RunningModel(runtime, path, threads)) for path in paths.values()
        ]
        for model in models:
            model.feed(example)
        timed = time_in_turns(models, seconds * len(models))
        peaks = [model.peak_memory_bytes() for model in models]
    base = timed.blocks_ms[:, 0]
    found = {}
    for form, own, peak in zip(paths, timed.blocks_ms.T, peaks, strict=True):
        speedup, low, high = median_interval(base / own)
        found[form] = {
            "median_ms": float(np.median(own)),
            "speedup": speedup,
            "speedup_low": low,
            "speedup_high": high,
            "peak_memory_bytes": peak,
        }
    return found


def publish(name: str, rows: list[dict[str, Any]], key: list[str]) -> None:
    """Write rows; those of other nets that are published already stay."""
    path = result_path(name, "csv")
    table = pd.DataFrame(rows)
    if path.exists():
        known = pd.read_csv(path)
        parts = [name for name in ("net", "runtime", "batch") if name in table]
        old = pd.MultiIndex.from_frame(known[parts])
        known = known[~old.isin(pd.MultiIndex.from_frame(table[parts]))]
        table = pd.concat([known, table], ignore_index=True) if len(known) else table
    table = table.sort_values(key, kind="stable")
    table.to_csv(path, index=False, float_format="%.6g")
    print(table.to_string())
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["run", "vgg"])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--trial", type=int, action="append", default=[])
    parser.add_argument("--seconds", type=float, default=1.0, help="for each file")
    parser.add_argument("--batch", type=int, action="append", help="default: 1 and 64")
    parser.add_argument("--runtime", action="append", choices=_RUNTIMES, help="default: all")
    given = parser.parse_args()
    _CHOSEN.update(batches=given.batch or [1, 64], runtimes=given.runtime or _RUNTIMES)
    warnings.filterwarnings("ignore")
    if given.what == "run":
        publish("latency", list(run_rows(given.folder, given.trial, given.seconds)), _KEY)
    else:
        publish("latency", list(vgg_rows(given.seconds)), _KEY)


if __name__ == "__main__":
    main()
