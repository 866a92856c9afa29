"""The one order: prune, drop, share, factorize, sparsify, quantize. Turns a plan into a model."""

import dataclasses
from collections.abc import Set
from typing import Literal

import torch
from torch import nn

from autocompress.analysis.channel_groups import ChannelGroup, cut_channels_
from autocompress.analysis.regroup import regroup
from autocompress.compress.drop_blocks import drop_block_
from autocompress.compress.evidence import Evidence, Gradients
from autocompress.compress.importance.table import find_criterion
from autocompress.compress.low_rank.surgery import factorize_layers_
from autocompress.compress.model_copy import copy_model
from autocompress.compress.plan_check import check_plan
from autocompress.compress.prune import choose_channels, stepped_counts
from autocompress.compress.quantize import freeze_, quantize_
from autocompress.compress.rewind import early_model, rewind_
from autocompress.compress.share_weights import share_weights_
from autocompress.compress.sparsity import sparsify_, stepped_sparsities
from autocompress.errors import TrialError, first_line
from autocompress.plan import FULL_BITS, CompressionPlan, LayerPlan
from autocompress.tasks.base import Inputs

Scope = Literal["local", "global"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PruningPolicy:
    """How channels and weights are chosen.

    Attributes:
        criterion: Name in `importance.table.CRITERIA`.
        round_to: Kept widths are multiples of this.
        scope: `local` takes from each channel group what its ratio says; `global` takes as many in
            all, wherever the scores are lowest.
        sparsity_scope: The same for single weights.
    """

    criterion: str = "l2"
    round_to: int = 8
    scope: Scope = "local"
    sparsity_scope: Scope = "local"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A model built from a plan, not yet tuned.

    Attributes:
        model: A copy; the base model is untouched.
        skipped: What was asked for and not done, one line each.
    """

    model: nn.Module
    skipped: tuple[str, ...]


def apply_plan(
    model: nn.Module,
    plan: CompressionPlan,
    groups: tuple[ChannelGroup, ...],
    example_inputs: Inputs,
    policy: PruningPolicy,
    evidence: Evidence | None = None,
) -> Candidate:
    """Build a candidate from a copy of the base model, in one go, and run it once.

    Args:
        model: The base model; not modified.
        plan: What to do.
        groups: The model's channel groups, from its profile.
        example_inputs: Inputs the model runs on, each of shape (N, ...).
        policy: How channels and weights are chosen.
        evidence: What criteria and methods need to know from data.

    Raises:
        InputError: If the plan names a group, layer, block or method that there is not, or one that
            cannot take what is asked.
        TrialError: If the candidate does not run.
    """
    construction = Construction(model, plan, groups, example_inputs, policy, evidence)
    construction.prune()
    return construction.finish()


class Construction:
    """A candidate while it is built; between the steps it can be trained.

    torch's fused encoder kernel is switched off for the process: in eval mode it reads the weights
    of nn.TransformerEncoderLayer past the forward of the layers that hold them, and so would
    ignore whatever is done to those.

    Args:
        model: The base model; not modified.
        plan: What to do.
        groups: The model's channel groups, from its profile.
        example_inputs: Inputs the model runs on, each of shape (N, ...).
        policy: How channels and weights are chosen.
        evidence: What criteria and methods need to know from data. With an initial state, whatever
            survives a step starts from there again (lottery ticket; Frankle & Carbin 2019).
        n_steps: In how many calls of `prune` the ratios and sparsities are reached.

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
        evidence: Evidence | None = None,
        n_steps: int = 1,
    ) -> None:
        check_plan(model, plan, groups)
        torch.backends.mha.set_fastpath_enabled(False)
        self.model = copy_model(model)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            self.model.requires_grad_(True)  # loaded for inference; with some frozen, those stay so
        self._plan = plan
        self._groups = tuple(group for group in groups if group.name in plan.pruning_ratios)
        self._example_inputs = example_inputs
        self._policy = policy
        self._evidence = evidence or Evidence()
        self._early = early_model(self.model, self._evidence.initial_state)
        self._n_steps = n_steps
        self._step = 0
        self._schedule: dict[str, tuple[int, ...]] = {}
        self._skipped: list[str] = []

    @property
    def wants_gradients(self) -> bool:
        """Whether the next step scores channels of a changed model by gradients: renew them."""
        is_scored = find_criterion(self._policy.criterion).needs != "nothing"
        return is_scored and self._step > 0 and bool(self._groups)

    def renew_gradients(self, gradients: Gradients, squared_gradients: Gradients) -> None:
        """Replace the base model's gradients by those of the model as it is now."""
        self._evidence = dataclasses.replace(
            self._evidence, gradients=gradients, squared_gradients=squared_gradients
        )

    @property
    def is_pruned(self) -> bool:
        """Whether all steps of pruning are done."""
        return self._step == self._n_steps

    def prune(self) -> None:
        """Do the next step of the schedule: cut channels, and zero weights that can be early.

        How many channels a group loses is decided in the first step, from the base model; which
        ones, in each step anew.
        """
        assert not self.is_pruned, "all steps are done"
        is_first, self._step = self._step == 0, self._step + 1
        freeze_(
            self.model
        )  # masks of the step before become zeros, so that cuts need not know them
        chosen = choose_channels(
            self.model,
            [(group, self._plan.pruning_ratios[group.name]) for group in self._groups],
            criterion=self._policy.criterion,
            round_to=self._policy.round_to,
            evidence=self._evidence,
            scope=self._policy.scope,
            counts=None if is_first else self._counts(),
        )
        if is_first:
            self._make_schedule({group.name: len(channels) for group, channels in chosen})
            chosen = [(g, channels[: self._schedule[g.name][0]]) for g, channels in chosen]
        cuts = [(group, channels) for group, channels in chosen if len(channels)]
        cut_channels_(self.model, cuts)
        if not self.is_pruned or self._early is not None:
            changed = {n for n, la in self._plan.layers.items() if la.rank_ratio < 1.0}
            self._sparsify(self._step, without=changed | self._sharing())
        if self._early is not None:
            cut_channels_(self._early, cuts)
            rewind_(self.model, self._early)
        if not self.is_pruned:
            self._groups = regroup(self._groups, cuts)

    def finish(self) -> Candidate:
        """Do what comes after pruning, and run the candidate once.

        Raises:
            TrialError: If the candidate does not run.
        """
        assert self.is_pruned, "prune first"
        for block in self._plan.dropped_blocks:
            drop_block_(self.model, block)
        layers = self._share(self._kept_layers())
        self._skipped += factorize_layers_(self.model, layers, self._evidence.calibration)
        self._sparsify(self._n_steps, without=self._plan.layers.keys() - layers)
        for name, layer in layers.items():
            if layer.is_quantized:
                self._skipped += quantize_(self.model, name, layer)
            elif layer.activation_bits < FULL_BITS:
                self._skipped.append(
                    f"activation_bits={layer.activation_bits} of '{name}' skipped: "
                    "its weights stay float, and integer kernels need both operands"
                )
        _run_once(self.model, self._example_inputs)
        return Candidate(model=self.model, skipped=tuple(filter(None, self._skipped)))

    def _make_schedule(self, counts: dict[str, int]) -> None:
        for group in self._groups:
            self._schedule[group.name] = stepped_counts(counts[group.name], self._n_steps)
            if counts[group.name] == 0:
                self._skipped.append(
                    f"pruning_ratio={self._plan.pruning_ratios[group.name]:g} of '{group.name}' "
                    f"skipped: {group.n_channels} channels stay when rounded to multiples of "
                    f"{self._policy.round_to}"
                )

    def _counts(self) -> dict[str, int]:
        """Channels each group loses in this step."""
        step = self._step - 1
        return {name: counts[step] - counts[step - 1] for name, counts in self._schedule.items()}

    def _kept_layers(self) -> dict[str, LayerPlan]:
        """Plans of the layers that are not in a dropped block."""
        inside = tuple(f"{block}." for block in self._plan.dropped_blocks)
        gone = [name for name in self._plan.layers if inside and name.startswith(inside)]
        self._skipped += [f"'{name}' is not compressed: its block is dropped" for name in gone]
        return {name: layer for name, layer in self._plan.layers.items() if name not in gone}

    def _sharing(self) -> set[str]:
        pairs = {name: la.shared_with for name, la in self._plan.layers.items() if la.shared_with}
        return {*pairs, *pairs.values()}

    def _share(self, layers: dict[str, LayerPlan]) -> dict[str, LayerPlan]:
        """Tie weights; plans of the layers that still have a weight of their own."""
        pairs = {name: layer.shared_with for name, layer in layers.items() if layer.shared_with}
        results = share_weights_(self.model, pairs) if pairs else {}
        self._skipped += results.values()
        tied = {name for name, reason in results.items() if not reason}
        for name in sorted(tied):
            if dataclasses.replace(layers[name], shared_with="") not in (
                LayerPlan(),
                layers.get(pairs[name]),
            ):
                self._skipped.append(f"'{name}' is compressed as '{pairs[name]}': one weight")
        return {name: layer for name, layer in layers.items() if name not in tied}

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
        notes = sparsify_(self.model, wanted, self._policy.sparsity_scope) if wanted else ()
        if step == self._n_steps:
            self._skipped += [note for note in notes if note not in self._skipped]


def _run_once(model: nn.Module, inputs: Inputs) -> None:
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
