"""How long it takes to cut a model, against torch-pruning's own copy, graph and prune.

    python benchmarks/apply_plan.py [--repeats 15]

Both remove half the channels of every group that can be cut, of a CIFAR ResNet-20 and ResNet-110,
on one core, in turns. Ours finds the groups once per model and replays them; what finding costs is
printed beside. Medians in milliseconds, and the median of the ratios.
"""

import argparse
import copy
import statistics
import time
import warnings
from collections.abc import Callable

import torch
import torch_pruning as tp
from torch import Tensor, nn

from autocompress.analysis.channel_groups import find_channel_groups
from autocompress.compress.pipeline import apply_plan
from autocompress.compress.policy import PruningPolicy
from autocompress.plan import CompressionPlan
from autocompress.tasks.residual_cnn import ResidualBlock


def _resnet(n_blocks: int) -> nn.Module:
    """CIFAR ResNet with `n_blocks` blocks a stage and projected shortcuts (He et al. 2016)."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)]
    n_in = 16
    for width in (16, 32, 64):
        for _ in range(n_blocks):
            layers.append(ResidualBlock(n_in, width, stride=1 if n_in == width else 2))
            n_in = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(*layers).eval()


def _theirs(model: nn.Module, inputs: Tensor) -> None:
    """Copy, trace, and halve every group but the classifier's, by L2 norm."""
    copied = copy.deepcopy(model)
    pruner = tp.pruner.MagnitudePruner(
        copied,
        inputs,
        importance=tp.importance.MagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=[m for m in copied.modules() if isinstance(m, nn.Linear)],
    )
    pruner.step()


def _ms(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print("model,find_once_ms,apply_plan_ms,torch_pruning_ms,ratio")
    for name, n_blocks in (("resnet20", 3), ("resnet110", 18)):
        _compare(name, _resnet(n_blocks), torch.randn(2, 3, 32, 32), repeats)


def _compare(name: str, model: nn.Module, inputs: Tensor, repeats: int) -> None:
    find_ms = _ms(lambda: find_channel_groups(model, (inputs,)))
    groups, _ = find_channel_groups(model, (inputs,))
    plan = CompressionPlan(pruning_ratios={group.name: 0.5 for group in groups})
    policy = PruningPolicy(round_to=1)
    pairs = [
        (
            _ms(lambda: apply_plan(model, plan, groups, (inputs,), policy)),
            _ms(lambda: _theirs(model, inputs)),
        )
        for _ in range(repeats + 1)
    ][1:]
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"{name},{find_ms:.0f},{ours:.1f},{theirs:.1f},{ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
