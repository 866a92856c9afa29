"""The proxy: build a candidate step by step, re-estimate statistics, tune briefly."""

import dataclasses
from collections.abc import Callable, Iterator

import torch
from torch import nn

from autocompress.compress.error_compensation import compensate_
from autocompress.compress.pipeline import Candidate, Construction
from autocompress.evaluate.calibration import mean_gradients, removes_weights
from autocompress.measurement import Fidelity
from autocompress.plan import CompressionPlan
from autocompress.tasks.base import Inputs
from autocompress.tasks.prepare import PreparedTask
from autocompress.train.loop import Throughput, finetune_, steps_of
from autocompress.train.precision import Precision, to_fast_layout_
from autocompress.train.recalibrate import calibration_batches, recalibrate_
from autocompress.train.recipe import Recipe
from autocompress.train.teachers import Teacher

_CALIBRATION_BATCHES = 8
_LEAST_CALIBRATION_BATCH = 32  # statistics of fewer examples are noise
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
    """

    prepared: PreparedTask
    teacher: Teacher
    recipe: Recipe
    device: torch.device
    precision: Precision

    def n_steps(self, plan: CompressionPlan) -> int:
        """Steps in which a plan is pruned, no more than there are steps of training; 0 for none."""
        if not removes_weights(plan):
            return 0
        n_others = (self.recipe.penalty != "none") + plan.has_prices
        n_most = max(1, steps_of(self.recipe, self.prepared) - n_others)
        return min(self.recipe.prune_steps, n_most)

    def make(
        self,
        construction: Construction,
        *,
        fidelity: Fidelity,
        seed: int,
        n_steps: int,
        on_share: OnShare = lambda share: None,
    ) -> tuple[Candidate, Throughput]:
        """Build a candidate and bring it to what a fidelity promises.

        Batch-norm statistics and activation grids are re-estimated on training data when it is
        built (fidelity 0 stops there); after the fine-tune batch-norm statistics once more,
        because those gathered while the weights moved lag behind them. With several steps of
        pruning, a penalty that prepares it, or a rate penalty, the epochs are shared out evenly
        between the phases; the penalty holds until the last step of pruning. What has lost weights
        is tuned before it is rounded for a price, and after it, because rounding keeps what the
        model computes then.

        Args:
            construction: The candidate, not pruned yet.
            fidelity: 0 for statistics only, 1 for the fine-tune.
            seed: Decides batches and augmentation.
            n_steps: Steps of pruning the construction was made for; 0 if there is nothing to prune.
            on_share: Called with the share of the fine-tune that is done.

        Returns:
            The candidate, its model on `device` in eval mode, and what tuning cost.

        Raises:
            TrialError: If the candidate does not run, or the loss stops being a finite number.
        """
        has_penalty = self.recipe.penalty != "none" and n_steps > 0
        plan = construction.plan
        is_settled_first = fidelity > 0 and plan.has_prices and plan.loses_weights
        n_phases = max(1, n_steps) + has_penalty + is_settled_first
        last = dataclasses.replace(
            self.recipe, penalty="none", epochs=self.recipe.epochs / n_phases
        )
        before = dataclasses.replace(last, penalty=self.recipe.penalty)
        costs: list[Throughput] = []

        def phase(model: nn.Module, recipe: Recipe) -> None:
            done = len(costs)
            if fidelity == 0:
                return
            # the last phase has the trial's own seed, as if it were the only one
            number = n_phases - 1 - done
            costs.append(
                finetune_(
                    model,
                    self.prepared,
                    self.teacher,
                    recipe,
                    seed=(seed + number) % 2**32,
                    device=self.device,
                    precision=self.precision,
                    on_step=lambda step, n: on_share((done + step / n) / n_phases),
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
        candidate = construction.finish()
        model = to_fast_layout_(candidate.model, self.device)
        self._recalibrate(model, seed, grids=True)
        compensates_all = self.recipe.rounding == "compensated"
        if is_settled_first:
            phase(model, last)
            self._recalibrate(model, seed, grids=True)
        if compensates_all or plan.has_prices:
            skipped = compensate_(
                model, self._calibration(seed), only_priced=not compensates_all
            ).skipped
            candidate = dataclasses.replace(candidate, skipped=(*candidate.skipped, *skipped))
            self._recalibrate(model, seed, grids=True)
        phase(model, last)
        if fidelity > 0:
            self._recalibrate(model, seed, grids=False)
        total = Throughput(
            n_images=sum(cost.n_images for cost in costs),
            seconds=sum(cost.seconds for cost in costs),
        )
        return candidate, total

    def _recalibrate(self, model: nn.Module, seed: int, *, grids: bool) -> None:
        recalibrate_(model, self._calibration(seed), grids=grids)

    def _calibration(self, seed: int) -> Iterator[Inputs]:
        batch_size = max(_LEAST_CALIBRATION_BATCH, self.recipe.batch_size)
        batches = calibration_batches(self.prepared, batch_size, _CALIBRATION_BATCHES, seed)
        return (tuple(tensor.to(self.device) for tensor in inputs) for inputs in batches)
