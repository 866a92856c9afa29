"""The proxy: make a structure and train it briefly, round it, tune what was rounded coarsely."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from autocompress.compress.error_compensation import compensate_
from autocompress.compress.pipeline import (
    Candidate,
    Construction,
    Structure,
    quantize_structure,
    run_once,
)
from autocompress.evaluate.calibration import mean_gradients, removes_weights
from autocompress.evaluate.candidate_file import load_state_, model_state
from autocompress.measurement import Fidelity
from autocompress.plan import CompressionPlan
from autocompress.tasks.base import Inputs
from autocompress.tasks.prepare import PreparedTask
from autocompress.train.loop import Throughput, finetune_, steps_of
from autocompress.train.precision import Precision, to_fast_layout_
from autocompress.train.recalibrate import calibration_batches, has_running_statistics, recalibrate_
from autocompress.train.recipe import Recipe
from autocompress.train.teachers import Teacher

_WHOLE_PASS: Final = 1.0  # epochs; a shorter tuning is brief
_STRUCTURE_SHARE: Final = 3.0  # epochs of a structure over those of a brief tuning
_CALIBRATION_BATCHES = 8
_LEAST_CALIBRATION_BATCH = 32  # statistics of fewer examples are noise
_TUNED_IN_VAIN: Final = "tuning made it worse on val: its weights are those before"
OnShare = Callable[[float], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tuner:
    """How every candidate of a run is tuned.

    Attributes:
        prepared: The task.
        teacher: What to distill from.
        recipe: The brief fine-tune, and what happens between the steps of building.
        device: Where to train.
        precision: Format of convolutions and matrix products.
        score: How good a model on `device` is on val, larger is better.
    """

    prepared: PreparedTask
    teacher: Teacher
    recipe: Recipe
    device: torch.device
    precision: Precision
    score: Callable[[nn.Module], tuple[float, ...]]

    def n_steps(self, plan: CompressionPlan) -> int:
        """Steps in which a plan is pruned, no more than there are steps of training; 0 for none."""
        if not removes_weights(plan):
            return 0
        recipe = self._structural
        n_most = max(1, steps_of(recipe, self.prepared) - (recipe.penalty != "none"))
        return min(recipe.prune_steps, n_most)

    @property
    def _structural(self) -> Recipe:
        """The recipe for structures: each is rounded in several ways and may cost more."""
        share = _STRUCTURE_SHARE if self._is_brief else 1.0
        return dataclasses.replace(self.recipe, epochs=share * self.recipe.epochs)

    @property
    def _is_brief(self) -> bool:
        return self.recipe.epochs < _WHOLE_PASS

    def _tunes_rounded(self, plan: CompressionPlan) -> bool:
        """Whether a candidate is tuned after it was rounded.

        Rounding with a rate penalty makes up for its own errors, and 7 bits or more make hardly
        any. On a CIFAR-10 ResNet-20 a tenth of an epoch then changes the divergence by 2 to 8 % at
        2.5 times the cost, and makes that of 8-bit weights 40 times as large; whole passes pay.
        """
        if not any(layer.is_quantized for layer in plan.layers.values()):
            return False
        has_entropy = self.recipe.entropy_strength > 0.0
        return plan.is_rounded_coarsely or not self._is_brief or has_entropy

    def epochs(self, plan: CompressionPlan) -> tuple[float, float]:
        """How long a plan's structure is trained, and its candidate after rounding."""
        return (
            self._structural.epochs if plan.loses_weights else 0.0,
            self.recipe.epochs if self._tunes_rounded(plan) else 0.0,
        )

    def make_structure(
        self,
        construction: Construction,
        *,
        fidelity: Fidelity,
        seed: int,
        n_steps: int,
        on_share: OnShare = lambda share: None,
    ) -> tuple[Structure, Throughput]:
        """Take weights away and train what is left, in floating point.

        Rounding comes later: what a structure loses and what rounding loses add up, so that one
        training serves all ways of rounding. With several steps of pruning, or a penalty that
        prepares it, the epochs are shared out evenly between the phases; the penalty holds until
        the last step of pruning.

        Args:
            construction: Of a plan's `structure`, not pruned yet.
            fidelity: 0 for statistics only, 1 for training.
            seed: Decides batches and augmentation.
            n_steps: Steps of pruning the construction was made for; 0 if there is nothing to prune.
            on_share: Called with the share of the training that is done.

        Returns:
            The structure, its model on `device` in eval mode, and what training cost.

        Raises:
            TrialError: If it does not run, or the loss stops being a finite number.
        """
        has_penalty = self.recipe.penalty != "none" and n_steps > 0
        n_phases = max(1, n_steps) + has_penalty
        last = dataclasses.replace(
            self._structural, penalty="none", epochs=self._structural.epochs / n_phases
        )
        before = dataclasses.replace(last, penalty=self.recipe.penalty)
        costs: list[Throughput] = []

        def phase(model: nn.Module, recipe: Recipe) -> None:
            if fidelity == 0:
                return
            done = len(costs)
            # the last phase has the seed itself, as if it were the only one
            costs.append(
                self._train_(
                    model,
                    recipe,
                    seed + n_phases - 1 - done,
                    lambda share: on_share((done + share) / n_phases),
                )
            )

        if has_penalty:
            phase(to_fast_layout_(construction.model, self.device), before)
        while not construction.is_pruned:
            construction.model.to("cpu")
            if costs and construction.wants_gradients:
                construction.renew_gradients(*mean_gradients(construction.model, self.prepared))
            construction.prune()
            if not construction.is_pruned:
                model = to_fast_layout_(construction.model, self.device)
                self._recalibrate(model, seed, grids=False)
                phase(model, before)
        structure = construction.shape()
        run_once(structure.model, self.prepared.example_inputs)
        model = to_fast_layout_(structure.model, self.device)
        if construction.plan.loses_weights:
            self._recalibrate(model, seed, grids=False)
            phase(model, last)
            if fidelity > 0:
                self._recalibrate(model, seed, grids=False)
        return structure, _total(costs)

    def make(
        self,
        structure: Structure,
        plan: CompressionPlan,
        *,
        fidelity: Fidelity,
        seed: int,
        on_share: OnShare = lambda share: None,
    ) -> tuple[Candidate, Throughput]:
        """Round a structure as a plan says, and bring it to what a fidelity promises.

        Batch-norm statistics and activation grids are re-estimated on training data. Then it is
        tuned, where that can help (see `_tunes_rounded`); if it did not, the weights are put back.

        Args:
            structure: Of the plan; its model becomes the candidate's.
            plan: What to do.
            fidelity: 0 for statistics only, 1 for the fine-tune where there is one.
            seed: Decides batches and augmentation.
            on_share: Called with the share of the fine-tune that is done.

        Returns:
            The candidate, its model on `device` in eval mode, and what tuning cost.

        Raises:
            TrialError: If the candidate does not run, or the loss stops being a finite number.
        """
        structure.model.to("cpu")
        candidate = quantize_structure(structure, plan, self.prepared.example_inputs)
        model = to_fast_layout_(candidate.model, self.device)
        self._recalibrate(model, seed, grids=True)
        compensates_all = self.recipe.rounding == "compensated"
        if compensates_all or plan.has_prices:
            skipped = compensate_(
                model, self._calibration(seed), only_priced=not compensates_all
            ).skipped
            candidate = dataclasses.replace(candidate, skipped=(*candidate.skipped, *skipped))
            self._recalibrate(model, seed, grids=True)
        costs = []
        if fidelity > 0 and self._tunes_rounded(plan):
            before, state = self.score(model), _copied(model)
            costs.append(self._train_(model, self.recipe, seed, on_share))
            self._recalibrate(model, seed, grids=False)
            if self.score(model) < before:
                load_state_(model, state)
                candidate = dataclasses.replace(
                    candidate, skipped=(*candidate.skipped, _TUNED_IN_VAIN)
                )
        return candidate, _total(costs)

    def reestimate(self, candidate: Candidate, seed: int, margin: float) -> Candidate:
        """The original model, with re-estimated batch-norm statistics if they are clearly better.

        Every candidate's are re-estimated. What that alone gives is no merit of compression: on a
        keyword spotter it lifts the untouched model by 2.75 points.

        Args:
            candidate: Its model, on `device`, gets the statistics that are better.
            seed: Decides batches and augmentation.
            margin: What the accuracy on val must gain.
        """
        model = candidate.model
        if not has_running_statistics(model):
            return candidate
        before, state = self.score(model), _copied(model)
        self._recalibrate(model, seed, grids=False)
        if self.score(model)[0] <= before[0] + margin:
            load_state_(model, state)
            return candidate
        note = f"batch-norm statistics re-estimated: as it came it has {before[0]:.2%}"
        return dataclasses.replace(candidate, skipped=(*candidate.skipped, note))

    def _train_(self, model: nn.Module, recipe: Recipe, seed: int, on_share: OnShare) -> Throughput:
        return finetune_(
            model,
            self.prepared,
            self.teacher,
            recipe,
            seed=seed % 2**32,
            device=self.device,
            precision=self.precision,
            on_step=lambda step, n: on_share(step / n),
        )

    def _recalibrate(self, model: nn.Module, seed: int, *, grids: bool) -> None:
        recalibrate_(model, self._calibration(seed), grids=grids)

    def _calibration(self, seed: int) -> Iterator[Inputs]:
        batch_size = max(_LEAST_CALIBRATION_BATCH, self.recipe.batch_size)
        batches = calibration_batches(self.prepared, batch_size, _CALIBRATION_BATCHES, seed)
        return (tuple(tensor.to(self.device) for tensor in inputs) for inputs in batches)


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: same[0].detach().clone() for name, same in model_state(model).items()}


def _total(costs: Sequence[Throughput]) -> Throughput:
    return Throughput(
        n_images=sum(cost.n_images for cost in costs),
        seconds=sum(cost.seconds for cost in costs),
    )
