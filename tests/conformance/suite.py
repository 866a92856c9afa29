"""The conformance suite: every technique on every net of the zoo, from rules to the packed file.

Loaded by path, by conftest.py here and by scripts/conformance_table.py, which writes
docs/conformance.md.
"""

import dataclasses
import functools
import itertools
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autocompress.analysis.profile import ModelProfile, count_macs, profile_model
from autocompress.compress.codes import CodebookTensor, HashedTensor
from autocompress.compress.importance.registry import CRITERIA
from autocompress.compress.low_rank.registry import find_factorization
from autocompress.compress.pipeline import Candidate, Construction
from autocompress.compress.prune import PruningPolicy
from autocompress.compress.quantize import make_deployable
from autocompress.errors import InputError
from autocompress.evaluate.calibration import StatisticsCollector
from autocompress.evaluate.deploy import deploy
from autocompress.evaluate.proxy import Tuner
from autocompress.onnx_graph.session import make_session
from autocompress.packing.packed import read_packed, write_packed
from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.runtime.onnxruntime import predict
from autocompress.space.build import BuiltSpace, build_space
from autocompress.space.rules import SpaceRules
from autocompress.tasks.base import Task, TensorData
from autocompress.tasks.prepare import PreparedTask, prepare_task
from autocompress.train.recipe import Recipe
from autocompress.train.teachers import make_teacher

N_EXAMPLES = 12
CPU = torch.device("cpu")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Technique:
    """A row of the table: what a search-space file says to ask for it."""

    name: str
    row: str
    rule: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    pruning: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    recipe: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def needs_nni(self) -> bool:
        """Whether it can only be run with the extra `nni`."""
        return "nni" in self.name


def _quantizer(name: str, bits: float = 4, granularity: str = "channel") -> dict[str, Any]:
    return {"weight_bits": [bits], "quantizer": name, "granularity": granularity}


def _factors(name: str) -> dict[str, Any]:
    return {"rank_ratio": [0.25], "factorization": name}


def _criterion(name: str) -> dict[str, Any]:
    return {"rule": {"pruning_ratio": [0.5]}, "pruning": {"criterion": name}}


_PRUNED = {"pruning_ratio": [0.5], "sparsity": [0.5]}
TECHNIQUES = tuple(
    Technique(name=name, row=row, **parts)
    for name, row, parts in (
        ("channels", "P1", {"rule": {"pruning_ratio": [0.5]}}),
        ("blocks", "P2", {"rule": {"drop_block": True}}),
        ("zeros", "P3", {"rule": {"sparsity": [0.5]}}),
        ("zeros n:4", "P4", {"rule": {"sparsity": [0.5], "sparsity_pattern": "n:4"}}),
        ("zeros block:1x4", "P4", {"rule": {"sparsity": [0.5], "sparsity_pattern": "block:1x4"}}),
        (
            "global scope",
            "P5",
            {"rule": _PRUNED, "pruning": {"scope": "global", "sparsity_scope": "global"}},
        ),
        *((f"channels by {name}", "P6", _criterion(name)) for name in CRITERIA if name != "l2"),
        ("l1 penalty", "P7", {"rule": _PRUNED, "recipe": {"penalty": "l1"}}),
        ("group lasso", "P7", {"rule": _PRUNED, "recipe": {"penalty": "group_lasso"}}),
        ("l0 gates", "P7", {"rule": _PRUNED, "recipe": {"penalty": "l0"}}),
        ("pruning in steps", "P8", {"rule": _PRUNED, "recipe": {"prune_steps": 2}}),
        ("lottery ticket", "P9", {"rule": _PRUNED, "recipe": {"rewind": True}}),
        ("uniform 4 bit", "Q1", {"rule": _quantizer("uniform")}),
        ("uniform per tensor", "Q1", {"rule": _quantizer("uniform", granularity="tensor")}),
        ("uniform per group", "Q1", {"rule": _quantizer("uniform", granularity="group:8")}),
        ("asymmetric", "Q1", {"rule": _quantizer("uniform_asymmetric")}),
        ("ternary", "Q2", {"rule": _quantizer("uniform", "ternary")}),
        ("binary", "Q2", {"rule": _quantizer("uniform", "binary")}),
        # 8-bit weights beside them saturate on processors without VNNI
        ("8-bit activations", "Q3", {"rule": {"weight_bits": [7], "activation_bits": [8]}}),
        ("k-means", "Q4", {"rule": _quantizer("kmeans")}),
        ("equal frequency", "Q4", {"rule": _quantizer("equal_frequency")}),
        ("power of two", "Q4", {"rule": _quantizer("power_of_two")}),
        ("additive power of two", "Q4", {"rule": _quantizer("additive_power_of_two")}),
        ("nni_qat", "Q1", {"rule": _quantizer("nni_qat")}),
        ("fixed point", "Q5", {"rule": _quantizer("fixed_point")}),
        ("hashed", "Q6", {"rule": _quantizer("hashed", granularity="tensor")}),
        (
            "compensated rounding",
            "Q8",
            {"rule": {"weight_bits": [3]}, "recipe": {"rounding": "compensated"}},
        ),
        ("rate penalty", "Q8", {"rule": {"weight_bits": [8], "rate_price": [0.05]}}),
        ("svd, Tucker-2", "R1 R2", {"rule": _factors("svd")}),
        ("data-aware svd", "R1", {"rule": _factors("data_svd")}),
        ("cp", "R2", {"rule": _factors("cp")}),
        ("spatial split", "R2", {"rule": _factors("spatial")}),
        ("separable", "R4", {"rule": _factors("separable")}),
        ("shared weights", "R3", {"rule": {"shared_with": "earlier"}}),
        (
            "similarity distillation",
            "D2",
            {"rule": {"weight_bits": [4]}, "recipe": {"features": "similarity"}},
        ),
    )
)
BY_NAME = {technique.name: technique for technique in TECHNIQUES}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Net:
    """A net of the zoo as a task, with what is the same for all techniques."""

    name: str
    model: nn.Module
    prepared: PreparedTask
    profile: ModelProfile
    initial_state: Mapping[str, Tensor]


def make_net(name: str, model: nn.Module, inputs: tuple[Tensor, ...]) -> Net:
    """Wrap a net and inputs for it into a task of random data whose loss fits any output."""
    repeats = -(-N_EXAMPLES // len(inputs[0]))
    many = tuple(torch.cat([x] * repeats)[:N_EXAMPLES] for x in inputs)
    data = TensorData(many, torch.zeros(N_EXAMPLES))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        state = {
            name: torch.randn_like(value) * 0.1 if value.is_floating_point() else value
            for name, value in model.state_dict().items()
            if not name.endswith(("running_mean", "running_var"))
        }
    state = {name: state.get(name, value) for name, value in model.state_dict().items()}
    task = Task(
        model=model,
        train=data,
        val=data,
        loss=lambda outputs, targets: outputs.square().mean() + 0.0 * targets.sum(),
        metric=lambda outputs, targets: 0.5,
        distill="mse",
        batch_size=6,
        initial_state=state,
    )
    prepared = prepare_task(task)
    profile = profile_model(prepared.task.model, prepared.example_inputs)
    return Net(
        name=name,
        model=prepared.task.model,
        prepared=prepared,
        profile=profile,
        initial_state=state,
    )


def rules_of(*techniques: Technique) -> SpaceRules | None:
    """One search-space file that asks for all of them; None if two want the same field."""
    rule: dict[str, Any] = {}
    sections: dict[str, dict[str, Any]] = {"pruning": {"round_to": 1}, "recipe": {}}
    for technique in techniques:
        for target, wanted in (
            (rule, technique.rule),
            (sections["pruning"], technique.pruning),
            (sections["recipe"], technique.recipe),
        ):
            if any(target.get(key, value) != value for key, value in wanted.items()):
                return None
            target.update(wanted)
    return SpaceRules.model_validate({**sections, "rules": [rule]})


def build(net: Net, rules: SpaceRules) -> tuple[BuiltSpace | None, str]:
    """The space, or None and why there is none."""
    try:
        return build_space(net.profile, rules), ""
    except InputError as error:
        if "no knob for this model" not in error.message:
            raise
        return None, error.message.partition("model: ")[2].rstrip(".")


def strongest(built: BuiltSpace) -> CompressionPlan:
    """The plan with every knob at its last level."""
    space = built.space
    return space.decode({knob.name: len(knob.levels) - 1 for knob in space.knobs})


def make_candidate(net: Net, rules: SpaceRules, plan: CompressionPlan) -> Candidate:
    """Build a plan and train it one step a phase."""
    torch.manual_seed(0)
    recipe = Recipe(
        epochs=1.5,
        learning_rate=1e-3,
        batch_size=6,
        distill="mse",
        **rules.recipe.model_dump(exclude_none=True),
    )
    statistics = StatisticsCollector(
        net.model, net.prepared, rules.pruning.criterion, is_rewound=recipe.rewind
    )
    teacher = make_teacher(net.prepared, net.model, recipe, device=CPU, precision="fp32")
    tuner = Tuner(
        prepared=net.prepared,
        teacher=teacher,
        recipe=recipe,
        device=CPU,
        precision="fp32",
        score=lambda model: (0.0,),  # what was tuned is kept
    )
    n_steps = tuner.n_steps(plan)
    construction = Construction(
        net.model,
        plan.structure,
        net.profile.groups,
        net.prepared.example_inputs,
        PruningPolicy(**rules.pruning.model_dump()),
        statistics.for_plan(plan),
        max(1, n_steps),
        net.profile.blocks,
    )
    structure, before = tuner.make_structure(construction, fidelity=1, seed=0, n_steps=n_steps)
    candidate, after = tuner.make(structure, plan, fidelity=1, seed=0)
    is_untouched = plan.effective == CompressionPlan()
    assert (before.n_images + after.n_images == 0) == is_untouched
    return candidate


def check_shipped(net: Net, candidate: Candidate, folder: Path) -> int:
    """Export, pack, unpack: the file must compute what the candidate does. Returns its bytes."""
    model = candidate.model.eval()
    inputs = net.prepared.example_inputs
    with torch.no_grad():
        expected = model(*inputs).numpy()
    exported = deploy(model, net.prepared).graph
    assert not exported.unmatched, f"not found in the graph: {exported.unmatched}"
    path = folder / "model.acz"
    size_bytes = write_packed(path, exported.model, exported.quantized, {})
    assert size_bytes == path.stat().st_size
    unpacked = read_packed(path).graph
    arrays = tuple(x.numpy() for x in inputs)
    shipped, direct = (
        predict(make_session(graph, threads=1), arrays, N_EXAMPLES)
        for graph in (unpacked, exported.model)
    )
    assert np.array_equal(shipped, direct), "the unpacked file computes something else"
    has_integers = bool(make_deployable(model).activations)
    # float16 scales and biases differ by 1e-3; 8-bit activations by their rounding
    tolerance = (0.15 if has_integers else 5e-3) * (np.abs(expected).max() + 1e-3)
    assert np.abs(shipped - expected).max() <= tolerance, np.abs(shipped - expected).max()
    return size_bytes


def check_realised(
    net: Net, rules: SpaceRules, plan: CompressionPlan, candidate: Candidate
) -> None:
    """What the plan says must be there: widths, ranks, zeros, distinct values."""
    model, skipped = candidate.model, " ".join(candidate.skipped)
    widths = {g.name: g.n_channels for g in net.profile.groups}
    assert all(p.numel() > 0 for p in model.parameters()), "a parameter is empty"
    inputs = net.prepared.example_inputs
    macs, before = count_macs(model, inputs).get("", 0), net.profile.macs
    if plan.pruning_ratios and "pruning_ratio" not in skipped and not plan.layers:
        assert macs < before or before == 0, (macs, before, widths)
    if recount_macs(net.model, inputs) == before:  # nothing but linear layers and convolutions
        assert recount_macs(model, inputs) == macs
    for block in plan.dropped_blocks:
        assert not list(model.get_submodule(block).parameters()), f"{block} is still there"
    stored = make_deployable(model).weights
    for name, tensor in stored.items():
        values = tensor.dequantize()
        assert np.isfinite(values).all()
        if isinstance(tensor, HashedTensor):
            assert len(np.unique(values)) <= len(tensor.values) * len(np.unique(tensor.scale))
            continue
        n_codes = len(np.unique(tensor.codes))
        own = plan.layers.get(name, LayerPlan())
        bits = max(own.weight_bits, plan.layers.get(own.shared_with, own).weight_bits)
        limit = {1: 3, 1.58: 3}.get(bits, 2 ** math.ceil(bits))  # a masked binary weight has 0
        if own.rate_price > 0.0 and tensor.codes.size >= 256 and f"'{name}'" not in skipped:
            limit //= 2  # the price leaves a coarser grid
        assert n_codes <= limit + isinstance(tensor, CodebookTensor), (name, n_codes, bits)
    frozen = make_deployable(model).model
    for name, layer in plan.layers.items():
        owner = layer.shared_with or name  # whose weight it is, and whose notes count
        is_told = f"'{name}'" in skipped or f"'{owner}'" in skipped
        if layer.rank_ratio < 1.0 and not is_told and not _is_gone(name, plan):
            _check_rank(net, name, layer, model)
        if layer.sparsity == 0.0 or f"'{name}'" in skipped or _is_gone(name, plan):
            continue
        weights = [p for p in frozen.get_submodule(name).parameters() if p.ndim > 1]
        zeros = sum(int((p == 0).sum()) for p in weights)
        if layer.sparsity_pattern == "unstructured" and rules.pruning.sparsity_scope == "local":
            # exactly the share of each matrix, of which one weight always stays
            least = sum(min(round(layer.sparsity * p.numel()), p.numel() - 1) for p in weights)
            assert zeros >= least, (name, zeros, least)


def recount_macs(model: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """MACs of linear layers and convolutions for one example, from the shapes they really see."""
    total = 0

    def count(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        per_value = module.weight[0].numel()  # of one output; of one input if transposed
        total += per_value * (args[0] if getattr(module, "transposed", False) else output).numel()

    counted = (nn.Linear, nn.modules.conv._ConvNd)
    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, counted)]
    with torch.no_grad():
        model.eval()(*(x[:1] for x in inputs))
    for hook in hooks:
        hook.remove()
    return total


def _check_rank(net: Net, name: str, layer: LayerPlan, model: nn.Module) -> None:
    """The factors hold as many weights as the ranks of their layer's shape come to."""
    factors = model.get_submodule(name)
    assert isinstance(factors, nn.Sequential), f"{name} is not split"
    parts = [part for part in factors if hasattr(part, "weight")]
    whole = next(la for la in net.profile.layers if la.name == name)
    is_embedding = whole.kind == "embedding"
    ends = (parts[0], parts[-1]) if is_embedding else (parts[-1], parts[0])
    widths = tuple(
        getattr(end, attribute)
        for end, *names in (
            (ends[0], "out_channels", "out_features", "num_embeddings"),
            (ends[1], "in_channels", "in_features", "out_features"),
        )
        for attribute in names
        if hasattr(end, attribute)
    )
    shape = (widths[0], widths[-1 if is_embedding else 1], *whole.weight_shape[2:])
    n_weights = sum(part.weight.numel() for part in parts)
    assert n_weights == find_factorization(layer.factorization).size(shape, layer.rank_ratio)


def _is_gone(name: str, plan: CompressionPlan) -> bool:
    return any(name.startswith(f"{block}.") for block in plan.dropped_blocks)


def run(net: Net, *techniques: Technique) -> str:
    """Run techniques together on a net; returns why they are not applicable, or ""."""
    rules = rules_of(*techniques)
    assert rules is not None
    built, reason = build(net, rules)
    if built is None:
        return reason
    plan = strongest(built)
    candidate = make_candidate(net, rules, plan)
    check_realised(net, rules, plan, candidate)
    with tempfile.TemporaryDirectory() as folder:
        check_shipped(net, candidate, Path(folder))
    return ""


@functools.cache
def pairs() -> tuple[tuple[Technique, Technique], ...]:
    """Every pair that does not ask for two values of one field.

    Criteria are left out: they decide which channels go, and what follows sees widths only.
    """
    composed = [technique for technique in TECHNIQUES if technique.row != "P6"]
    return tuple(
        pair for pair in itertools.combinations(composed, 2) if rules_of(*pair) is not None
    )


def applicability(
    nets: Mapping[str, Net], techniques: Sequence[Technique] = TECHNIQUES
) -> Iterator[tuple[Technique, dict[str, str]]]:
    """For each technique: net -> why it is not applicable, or ""."""
    for technique in techniques:
        rules = rules_of(technique)
        assert rules is not None
        yield technique, {name: build(net, rules)[1] for name, net in nets.items()}
