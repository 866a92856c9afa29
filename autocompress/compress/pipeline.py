"""The one order: prune, drop, share, factorize, sparsify, quantize. Turns a plan into a model."""

import copy
import dataclasses
from collections.abc import Collection, Set

import torch
from torch import nn

from autocompress.analysis.channel_groups import ChannelGroup, cut_channels_
from autocompress.analysis.regroup import regroup
from autocompress.compress.calibration import CalibrationStatistics, Gradients
from autocompress.compress.drop_blocks import drop_block_
from autocompress.compress.importance.registry import find_criterion
from autocompress.compress.low_rank.surgery import factorize_layers_
from autocompress.compress.model_copy import copy_model, early_model, rewind_
from autocompress.compress.plan_check import check_plan
from autocompress.compress.prune import (
    Channels,
    PruningPolicy,
    choose_channels,
    kept_channels,
    stepped_counts,
)
from autocompress.compress.quantize import freeze_, quantize_
from autocompress.compress.share_weights import share_weights_
from autocompress.compress.sparsity import mask_nothing_, sparsify_, stepped_sparsities
from autocompress.errors import TrialError, first_line
from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.tasks.base import Inputs
from autocompress.technique import FULL_BITS


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A model built from a plan, not yet tuned.

    Attributes:
        model: A copy; the base model is untouched.
        skipped: What was asked for and not done, one line each.
    """

    model: nn.Module
    skipped: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Structure:
    """A model whose weights were taken away, in floating point: what is left to do is rounding.

    Attributes:
        model: A copy; the base model is untouched.
        tied: Layers that have no weight of their own any more.
        skipped: What was asked for and not done, one line each.
    """

    model: nn.Module
    tied: frozenset[str] = frozenset()
    skipped: tuple[str, ...] = ()

    def copy(self) -> "Structure":
        """The same with a model of its own."""
        return dataclasses.replace(self, model=copy.deepcopy(self.model))


def apply_plan(
    model: nn.Module,
    plan: CompressionPlan,
    groups: tuple[ChannelGroup, ...],
    example_inputs: Inputs,
    policy: PruningPolicy,
    statistics: CalibrationStatistics | None = None,
    blocks: Collection[str] | None = None,
) -> Candidate:
    """Build a candidate from a copy of the base model, in one go, and run it once.

    Args:
        model: The base model; not modified.
        plan: What to do.
        groups: The model's channel groups, from its profile.
        example_inputs: Inputs the model runs on, each of shape (N, ...).
        policy: How channels and weights are chosen.
        statistics: What criteria and methods need to know from data.
        blocks: The model's residual blocks, from its profile; None does not check them.

    Raises:
        InputError: If the plan names a group, layer, block or method that there is not, or one that
            cannot take what is asked.
        TrialError: If the candidate does not run.
    """
    construction = Construction(
        model, plan, groups, example_inputs, policy, statistics, blocks=blocks
    )
    construction.prune()
    return quantize_structure(construction.shape(), plan, example_inputs)


def quantize_structure(
    structure: Structure, plan: CompressionPlan, example_inputs: Inputs
) -> Candidate:
    """The last step of the order: round what is left, and run the candidate once.

    Args:
        structure: Made by `Construction` for this plan or for its `structure`; its model becomes
            the candidate's.
        plan: What to do.
        example_inputs: Inputs the model runs on, each of shape (N, ...).

    Raises:
        TrialError: If the candidate does not run.
    """
    gone = [name for name in plan.layers if _is_gone(name, plan)]
    skipped = [*structure.skipped]
    skipped += [f"'{name}' is not compressed: its block is dropped" for name in gone]
    skipped += _ignored_words(structure, plan)
    for name, own in plan.layers.items():
        if name in gone:
            continue
        # the weight of a layer that shares one is its source's, its inputs are its own
        source = plan.layers.get(own.shared_with, LayerPlan()) if name in structure.tied else own
        layer = dataclasses.replace(source, activation_bits=own.activation_bits)
        if layer.is_quantized:
            skipped += quantize_(structure.model, name, layer)
        elif layer.activation_bits < FULL_BITS:
            skipped.append(
                f"activation_bits={layer.activation_bits} of '{name}' skipped: "
                "its weights stay float, and integer kernels need both operands"
            )
    run_once(structure.model, example_inputs)
    return Candidate(model=structure.model, skipped=tuple(filter(None, skipped)))


def _is_gone(layer: str, plan: CompressionPlan) -> bool:
    return any(layer.startswith(f"{block}.") for block in plan.dropped_blocks)


def _ignored_words(structure: Structure, plan: CompressionPlan) -> list[str]:
    """What a plan says of the weights of layers that have none of their own."""
    notes = []
    for name in sorted(structure.tied):
        source = plan.layers[name].shared_with
        own, sources = (
            dataclasses.replace(layer, shared_with="", activation_bits=FULL_BITS)
            for layer in (plan.layers[name], plan.layers.get(source, LayerPlan()))
        )
        if own not in (LayerPlan(), sources):
            notes.append(f"'{name}' is compressed as '{source}': one weight")
    return notes


class Construction:
    """A structure while it is made; between the steps it can be trained.

    torch's fused encoder kernel is switched off for the process: in eval mode it reads the weights
    of nn.TransformerEncoderLayer past the forward of the layers that hold them, and so would
    ignore whatever is done to those.

    Args:
        model: The base model; not modified.
        plan: What to do.
        groups: The model's channel groups, from its profile.
        example_inputs: Inputs the model runs on, each of shape (N, ...).
        policy: How channels and weights are chosen.
        statistics: What criteria and methods need to know from data. With an initial state,
            whatever survives a step starts from there again (lottery ticket; Frankle & Carbin
            2019).
        n_steps: In how many calls of `prune` the ratios and sparsities are reached.
        blocks: The model's residual blocks, from its profile; None does not check them.

    Raises:
        InputError: If the plan names a group, layer, block or method that there is not, or one that
            cannot take what is asked.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: CompressionPlan,
        groups: tuple[ChannelGroup, ...],
        example_inputs: Inputs,
        policy: PruningPolicy,
        statistics: CalibrationStatistics | None = None,
        n_steps: int = 1,
        blocks: Collection[str] | None = None,
    ) -> None:
        check_plan(model, plan, groups, blocks)
        torch.backends.mha.set_fastpath_enabled(False)
        self.model = copy_model(model)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            self.model.requires_grad_(True)  # loaded for inference; with some frozen, those stay so
        self._plan = plan
        self._groups = tuple(group for group in groups if group.name in plan.pruning_ratios)
        self._example_inputs = example_inputs
        self._policy = policy
        self._statistics = statistics or CalibrationStatistics()
        self._early = early_model(self.model, self._statistics.initial_state)
        self._n_steps = n_steps
        self._step = 0
        self._skipped: list[str] = []
        self._schedule = self._make_schedule()

    @property
    def wants_gradients(self) -> bool:
        """Whether the next step scores channels by gradients, to be renewed after training."""
        return bool(self._groups) and find_criterion(self._policy.criterion).needs != "nothing"

    def renew_gradients(self, gradients: Gradients, squared_gradients: Gradients) -> None:
        """Replace the base model's gradients by those of the model as it is now."""
        self._statistics = dataclasses.replace(
            self._statistics, gradients=gradients, squared_gradients=squared_gradients
        )

    @property
    def plan(self) -> CompressionPlan:
        """What is built."""
        return self._plan

    @property
    def is_pruned(self) -> bool:
        """Whether all steps of pruning are done."""
        return self._step == self._n_steps

    def prune(self) -> None:
        """Do the next step of the schedule: cut channels, and zero weights that can be early.

        How many channels a group loses is decided from the base model, so that a plan always gives
        the same shapes; which ones, in each step anew.
        """
        assert not self.is_pruned, "all steps are done"
        self._step += 1
        freeze_(self.model)  # masks of the last step become zeros: cuts need not know of them
        chosen = self._choose(self._counts())
        cuts = [(group, channels) for group, channels in chosen if len(channels)]
        cut_channels_(self.model, cuts)
        if not self.is_pruned or self._early is not None:
            self._sparsify(self._step, without=self._late())
        if self._early is not None:
            cut_channels_(self._early, cuts)
            rewind_(self.model, self._early)
        if not self.is_pruned:
            self._groups = regroup(self._groups, cuts)

    def shape(self) -> Structure:
        """Do what comes between pruning and rounding."""
        assert self.is_pruned, "prune first"
        for block in self._plan.dropped_blocks:
            drop_block_(self.model, block)
        kept = {n: layer for n, layer in self._plan.layers.items() if not _is_gone(n, self._plan)}
        tied = self._share(kept)
        layers = {name: layer for name, layer in kept.items() if name not in tied}
        self._skipped += factorize_layers_(self.model, layers, self._statistics.calibration)
        masked = layers.keys() - self._late() if self._early is not None else set()
        self._sparsify(self._n_steps, without=masked | (self._plan.layers.keys() - layers))
        return Structure(model=self.model, tied=tied, skipped=tuple(self._skipped))

    def _make_schedule(self) -> dict[str, tuple[int, ...]]:
        """Group -> channels it has lost after each step."""
        if self._policy.scope == "local":
            counts = {group.name: self._n_local(group) for group in self._groups}
        else:
            counts = {group.name: len(channels) for group, channels in self._choose(None)}
        self._skipped += [
            f"pruning_ratio={self._plan.pruning_ratios[group.name]:g} of '{group.name}' "
            f"skipped: {group.n_channels} channels stay when rounded to multiples of "
            f"{self._policy.round_to}"
            for group in self._groups
            if counts[group.name] == 0
        ]
        return {name: stepped_counts(count, self._n_steps) for name, count in counts.items()}

    def _n_local(self, group: ChannelGroup) -> int:
        """Channels a group loses by its own ratio."""
        ratio, n = self._plan.pruning_ratios[group.name], group.n_channels
        return n - kept_channels(n, ratio, self._policy.round_to, group.block)

    def _choose(self, counts: dict[str, int] | None) -> list[tuple[ChannelGroup, Channels]]:
        return choose_channels(
            self.model,
            [(group, self._plan.pruning_ratios[group.name]) for group in self._groups],
            criterion=self._policy.criterion,
            round_to=self._policy.round_to,
            statistics=self._statistics,
            scope=self._policy.scope,
            counts=counts,
        )

    def _counts(self) -> dict[str, int]:
        """Channels each group loses in this step."""
        step = self._step - 1
        return {
            name: counts[step] - (counts[step - 1] if step else 0)
            for name, counts in self._schedule.items()
        }

    def _late(self) -> set[str]:
        """Layers whose zeros are chosen at the end only: there the weights they lie in arise."""
        layers = self._plan.layers.items()
        pairs = {name: la.shared_with for name, la in layers if la.shared_with}
        return {name for name, la in layers if la.rank_ratio < 1.0} | {*pairs, *pairs.values()}

    def _share(self, layers: dict[str, LayerPlan]) -> frozenset[str]:
        """Tie weights; the layers that have no weight of their own any more."""
        pairs = {name: layer.shared_with for name, layer in layers.items() if layer.shared_with}
        for name in [name for name, source in pairs.items() if _is_gone(source, self._plan)]:
            source = pairs.pop(name)
            self._skipped.append(
                f"shared_with='{source}' of '{name}' skipped: the block of '{source}' is dropped"
            )
        results = share_weights_(self.model, pairs) if pairs else {}
        self._skipped += results.values()
        return frozenset(name for name, reason in results.items() if not reason)

    def _sparsify(self, step: int, without: Set[str]) -> None:
        """Zero weights up to what a step asks for."""
        wanted = {
            name: (
                stepped_sparsities(layer.sparsity, self._n_steps)[step - 1],
                layer.sparsity_pattern,
            )
            for name, layer in self._plan.layers.items()
            if layer.sparsity > 0.0 and name not in without
        }
        scope = self._policy.sparsity_scope
        notes = sparsify_(self.model, wanted, scope) if wanted else ()
        if step == self._n_steps:
            self._skipped += [note for note in notes if note not in self._skipped]
            if scope == "global":  # who has a mask must not depend on the weights
                mask_nothing_(self.model, wanted)


def run_once(model: nn.Module, inputs: Inputs) -> None:
    """Run a model in eval mode, on the CPU.

    Raises:
        TrialError: If it does not run.
    """
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(*inputs)
    except Exception as error:
        raise TrialError(
            "does_not_run", f"The candidate does not run: {first_line(error)}."
        ) from error
    finally:
        model.train(was_training)
