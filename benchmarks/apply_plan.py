"""How long it takes to cut a model, against torch-pruning's own copy, graph and prune.

    python benchmarks/apply_plan.py [--repeats 15]

Both remove half the channels of every group that can be cut, of a CIFAR ResNet-20 and ResNet-110,
on one core, in turns. Ours finds the groups once per model and replays them; what finding costs is
printed beside. Medians in milliseconds, and medians of the ratios:

- `apply_plan` (check, copy, scores, cut, one run of the candidate) against MagnitudePruner (copy,
  graph, scores, prune), and against the same without scores (`bare`);
- `copy_and_cut` against `bare`: like for like.
"""

import argparse
import copy
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
import torch_pruning as tp
from torch import Tensor, nn

from autocompress.analysis.channel_groups import (
    ChannelGroup,
    cut_channels_,
    find_channel_groups,
)
from autocompress.compress.model_copy import copy_model
from autocompress.compress.pipeline import apply_plan
from autocompress.compress.prune import PruningPolicy
from autocompress.plan import CompressionPlan
from autocompress.tasks.digits import ResidualBlock


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


def _bare(model: nn.Module, inputs: Tensor) -> None:
    """Copy, trace, and cut the first half of the channels of every group but the classifier's."""
    copied = copy.deepcopy(model)
    graph = tp.DependencyGraph().build_dependency(copied, inputs)
    ignored = [m for m in copied.modules() if isinstance(m, nn.Linear)]
    groups = graph.get_all_groups(ignored_layers=ignored, root_module_types=[nn.Conv2d])
    for group in list(groups):
        dependency, n_channels = group[0].dep, len(group[0].idxs)
        half = list(range(n_channels // 2))
        graph.get_pruning_group(dependency.target.module, dependency.handler, half).prune()


def _copy_and_cut(model: nn.Module, groups: tuple[ChannelGroup, ...]) -> None:
    """Copy, and cut the first half of the channels of every group."""
    cut_channels_(copy_model(model), [(g, np.arange(g.n_channels // 2)) for g in groups])


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
    print("model,find_once_ms,apply_plan_ms,copy_and_cut_ms,magnitude_pruner_ms,bare_ms,ratios")
    for name, n_blocks in (("resnet20", 3), ("resnet110", 18)):
        _compare(name, _resnet(n_blocks), torch.randn(2, 3, 32, 32), repeats)


def _compare(name: str, model: nn.Module, inputs: Tensor, repeats: int) -> None:
    find_ms = _ms(lambda: find_channel_groups(model, (inputs,)))
    groups, _ = find_channel_groups(model, (inputs,))
    plan = CompressionPlan(pruning_ratios={group.name: 0.5 for group in groups})
    policy = PruningPolicy(round_to=1)
    rounds = [
        (
            _ms(lambda: apply_plan(model, plan, groups, (inputs,), policy)),
            _ms(lambda: _copy_and_cut(model, groups)),
            _ms(lambda: _theirs(model, inputs)),
            _ms(lambda: _bare(model, inputs)),
        )
        for _ in range(repeats + 1)
    ][1:]
    medians = [f"{statistics.median(column):.1f}" for column in zip(*rounds, strict=True)]
    ratios = {
        "apply_plan/magnitude_pruner": statistics.median(a / t for a, _, t, _ in rounds),
        "apply_plan/bare": statistics.median(a / b for a, _, _, b in rounds),
        "copy_and_cut/bare": statistics.median(c / b for _, c, _, b in rounds),
    }
    shown = " ".join(f"{key}={ratio:.2f}" for key, ratio in ratios.items())
    print(name, f"{find_ms:.0f}", *medians, shown, sep=",", flush=True)


if __name__ == "__main__":
    main()
