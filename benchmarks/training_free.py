"""Techniques before any training: a table of validation accuracies.

    python benchmarks/training_free.py [--data FOLDER] [--out FILE.csv] [--question rate]

Error-compensated rounding against rounding to nearest, and with several rate penalties; k-means
against a uniform grid at equal bits; data-aware SVD against plain SVD in the same shape (and
Tucker-2). Bits for all layers, ranks for all k x k kernels; float activations, batch-norm
statistics re-estimated, nothing trained. On digits, and with --data (a folder with
cifar-10-batches-bin and weights of a ResNet-20) on CIFAR-10. Bytes are those of the packed file.
"""

import argparse
import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from autocompress.analysis.profile import LayerInfo
from autocompress.evaluate.evaluator import Evaluator
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.measurement import Measurement
from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.tasks.factory import load_task
from autocompress.tasks.prepare import PreparedTask, prepare_task

_CIFAR = Path(__file__).parents[1] / "examples" / "02_cifar10_resnet20.py"
_COLUMNS = ("model", "question", "amount", "method", "val_accuracy", "val_loss", "size_bytes")
_THREADS = 1
_PRICES = (0.01, 0.02, 0.03, 0.05, 0.1)
Recipe: TypeAlias = Mapping[str, str | float]


def _questions() -> Iterator[tuple[str, str, str, Recipe, LayerPlan]]:
    """(question, amount, method, recipe, what to do with every layer that can take it)."""
    nearest: Recipe = {"rounding": "nearest"}
    for bits in (4, 3, 2):
        for rounding in ("nearest", "compensated"):
            plan = LayerPlan(weight_bits=bits)
            yield "rounding", f"{bits} bit", rounding, {"rounding": rounding}, plan
        for quantizer in ("uniform", "kmeans"):
            # one grid or codebook per tensor: the textbook comparison at equal bits
            plan = LayerPlan(weight_bits=bits, quantizer=quantizer, granularity="tensor")
            yield "values", f"{bits} bit", f"{quantizer} per tensor", nearest, plan
            plan = LayerPlan(weight_bits=bits, quantizer=quantizer)
            yield "values", f"{bits} bit", f"{quantizer} per channel", nearest, plan
    for price in _PRICES:
        for bits in (8, 6, 5, 4, 3):
            plan = LayerPlan(weight_bits=bits, rate_price=price)
            yield "rate", f"{bits} bit", f"{price:g} a bit", nearest, plan
    for ratio in (0.75, 0.5, 0.25):
        for method in ("channel_svd", "data_svd", "svd"):
            plan = LayerPlan(rank_ratio=ratio, factorization=method)
            yield "low rank", f"rank {ratio:g}", method, nearest, plan


def _tasks(data: Path | None) -> Iterator[tuple[str, PreparedTask]]:
    yield "digits", prepare_task(load_task("digits", {}))
    if data is not None:
        yield "cifar10-resnet20", prepare_task(load_task(str(_CIFAR), {"data": str(data)}))


def _evaluator(prepared: PreparedTask, recipe: Recipe, made: dict[str, Evaluator]) -> Evaluator:
    """The evaluator of a recipe, made once: each runs the base model over the val split."""
    settings = EvaluationSettings(threads=_THREADS, has_latency=False, recipe=recipe)
    if str(recipe) not in made:
        made[str(recipe)] = Evaluator(prepared, settings)
    return made[str(recipe)]


def _takes(layer: LayerInfo, plan: LayerPlan) -> bool:
    """Bits for every layer; factors for k x k kernels, which all methods here can split."""
    if plan.rank_ratio < 1.0:
        return "rank_ratio" not in layer.refusals and layer.kind == "conv"
    return "weight_bits" not in layer.refusals


def main() -> int:
    """Measure and print every row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--question", choices=sorted({row[0] for row in _questions()}))
    arguments = parser.parse_args()
    rows: list[tuple[object, ...]] = []

    def add(*texts: str, result: Measurement) -> None:
        figures = (f"{result.accuracy:.4f}", f"{result.loss:.4f}", result.size_bytes)
        rows.append((*texts, *figures))
        print(*rows[-1], sep=",", flush=True)

    for name, prepared in _tasks(arguments.data):
        evaluators: dict[str, Evaluator] = {}
        base = _evaluator(prepared, {"rounding": "nearest"}, evaluators).evaluate(
            CompressionPlan(), seed=0
        )
        add(name, "baseline", "", "", result=base)
        for question, amount, method, recipe, layer in _questions():
            if arguments.question not in (None, question):
                continue
            evaluator = _evaluator(prepared, recipe, evaluators)
            layers = {la.name: layer for la in evaluator.profile.layers if _takes(la, layer)}
            result = evaluator.evaluate(CompressionPlan(layers=layers), seed=0, fidelity=0)
            add(name, question, amount, method, result=result)
    if arguments.out is not None:
        with arguments.out.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([_COLUMNS, *rows])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
