"""What the techniques are worth before any training: a table of validation accuracies.

    python benchmarks/training_free.py [--data FOLDER] [--out FILE.csv]

Error-compensated rounding against rounding to the nearest, k-means against a uniform grid at equal
bits, data-aware SVD against plain SVD in the same shape (and Tucker-2). Bits for all layers, ranks
for all k x k kernels; float inputs, batch-norm statistics re-estimated, nothing trained. On digits,
and with --data (a folder with cifar-10-batches-bin and weights of a ResNet-20) on CIFAR-10. Bytes
are those of the packed file.
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

from autocompress.analysis.profile import LayerInfo
from autocompress.evaluate.evaluator import Evaluator
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.tasks.factory import load_task
from autocompress.tasks.prepare import prepare_task

_CIFAR = Path(__file__).parents[1] / "examples" / "02_cifar10_resnet20.py"
_COLUMNS = ("model", "question", "amount", "method", "val_accuracy", "val_loss", "size_bytes")
_THREADS = 2


def _questions() -> Iterator[tuple[str, str, str, str, LayerPlan]]:
    """(question, amount, method, rounding, what to do with every layer that can take it)."""
    for bits in (4, 3, 2):
        for rounding in ("nearest", "compensated"):
            yield "rounding", f"{bits} bit", rounding, rounding, LayerPlan(weight_bits=bits)
        for quantizer in ("uniform", "kmeans"):
            # one grid or codebook per tensor: the textbook comparison at equal bits
            plan = LayerPlan(weight_bits=bits, quantizer=quantizer, granularity="tensor")
            yield "values", f"{bits} bit", f"{quantizer} per tensor", "nearest", plan
            plan = LayerPlan(weight_bits=bits, quantizer=quantizer)
            yield "values", f"{bits} bit", f"{quantizer} per channel", "nearest", plan
    for ratio in (0.75, 0.5, 0.25):
        for method in ("channel_svd", "data_svd", "svd"):
            plan = LayerPlan(rank_ratio=ratio, factorization=method)
            yield "low rank", f"rank {ratio:g}", method, "nearest", plan


def _evaluators(data: Path | None) -> Iterator[tuple[str, dict[str, Evaluator]]]:
    tasks = {"digits": ("digits", {})}
    if data is not None:
        tasks["cifar10-resnet20"] = (str(_CIFAR), {"data": str(data)})
    for name, (spec, arguments) in tasks.items():
        prepared = prepare_task(load_task(spec, arguments))
        yield (
            name,
            {
                rounding: Evaluator(
                    prepared,
                    EvaluationSettings(
                        threads=_THREADS, has_latency=False, recipe={"rounding": rounding}
                    ),
                )
                for rounding in ("nearest", "compensated")
            },
        )


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
    arguments = parser.parse_args()
    rows: list[tuple[object, ...]] = []
    for name, evaluators in _evaluators(arguments.data):
        base = evaluators["nearest"].evaluate(CompressionPlan(), seed=0)
        figures = (f"{base.accuracy:.4f}", f"{base.loss:.4f}", base.size_bytes)
        rows.append((name, "baseline", "", "", *figures))
        print(*rows[-1], sep=",", flush=True)
        for question, amount, method, rounding, layer in _questions():
            evaluator = evaluators[rounding]
            layers = {la.name: layer for la in evaluator.profile.layers if _takes(la, layer)}
            result = evaluator.evaluate(CompressionPlan(layers=layers), seed=0, fidelity=0)
            figures = (f"{result.accuracy:.4f}", f"{result.loss:.4f}", result.size_bytes)
            rows.append((name, question, amount, method, *figures))
            print(*rows[-1], sep=",", flush=True)
    if arguments.out is not None:
        with arguments.out.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([_COLUMNS, *rows])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
