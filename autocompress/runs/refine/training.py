"""The full recipe for the few plans that matter: long, distilled, small grids last, small files.

A candidate is built with finer grids than its plan asks for and tuned as in a trial. Then it is
trained in earnest: grids get coarser level by level, and in the second half what the codes take in
the file is part of the loss. After each epoch it is scored on val and everything is written down,
so that a training that was killed goes on where it was.
"""

import copy
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from autocompress.compress.pipeline import Candidate
from autocompress.compress.quantize import requantize_
from autocompress.compress.quantizers.registry import find_quantizer
from autocompress.errors import InputError
from autocompress.evaluate.candidate_file import load_state_, model_state, save_candidate
from autocompress.evaluate.evaluator import Evaluator
from autocompress.evaluate.measurer import OnStage
from autocompress.measurement import Measurement
from autocompress.plan import CompressionPlan, LayerPlan
from autocompress.runs.refine.checkpoint import read_checkpoint, unreadable, write_checkpoint
from autocompress.train.batches import Batches
from autocompress.train.entropy import mean_code_bits
from autocompress.train.loop import Training, finetune_
from autocompress.train.precision import to_fast_layout_
from autocompress.train.recalibrate import calibration_batches, recalibrate_
from autocompress.train.recipe import Recipe, entropy_ramp
from autocompress.train.teachers import make_teacher

_TIMED_STEPS = 16
_LEAST_EPOCHS = 0.05
_FLOORS = (4, 3, 2)  # bits; finer grids than 4 bits lose next to nothing without training


def progressive_bits(plan: CompressionPlan) -> tuple[CompressionPlan, ...]:
    """Plans that lead to `plan`, which is the last: each with coarser grids than the one before.

    >>> from autocompress.plan import LayerPlan
    >>> plan = CompressionPlan(layers={"conv": LayerPlan(weight_bits=2)})
    >>> [step.layers["conv"].weight_bits for step in progressive_bits(plan)]
    [4, 3, 2]
    """
    steps = [_with_floor(plan, floor) for floor in _FLOORS]
    return tuple(dict.fromkeys([*steps, plan]))


def _with_floor(plan: CompressionPlan, floor: int) -> CompressionPlan:
    layers = {name: _raised(layer, floor) for name, layer in plan.layers.items()}
    return dataclasses.replace(plan, layers=layers)


def _raised(layer: LayerPlan, floor: int) -> LayerPlan:
    has_rate_penalty = layer.rate_price > 0.0  # its own grid is coarser than its bits already
    if (
        has_rate_penalty
        or layer.weight_bits >= floor
        or floor not in find_quantizer(layer.quantizer).bits
    ):
        return layer
    return dataclasses.replace(layer, weight_bits=floor)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One epoch of a refinement.

    Attributes:
        number: From 1.
        n_epochs: Of the whole training.
        accuracy: On val, of the model as it is.
        loss: On val.
        est_code_bits: Bits a quantized weight takes on average, by the entropy of order zero; None
            if no weight is quantized.
        is_final: Whether the epoch counts for the choice of the best: with the plan's own grids,
            and with the entropy in full.
        seconds: Since the refinement began, earlier sessions included.
    """

    number: int
    n_epochs: int
    accuracy: float
    loss: float
    est_code_bits: float | None
    is_final: bool
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Refinement:
    """How a plan is refined.

    Attributes:
        recipe: Its `epochs` are the length unless `minutes` says otherwise.
        patience: Epochs without a better val accuracy after which it ends early; they count from
            the first that is final.
        minutes: Time that it may take; None for as many epochs as the recipe has. Some steps are
            timed to see how many epochs that are.
        is_progressive: Whether grids get coarser level by level.
    """

    recipe: Recipe
    patience: int = 10
    minutes: float | None = None
    is_progressive: bool = True

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            InputError: If a number is outside its range.
        """
        if self.patience < 1:
            raise InputError(f"`patience` must be at least 1 epoch, but got {self.patience}.")
        if self.minutes is not None and not 0.0 < self.minutes < float("inf"):
            raise InputError(f"`minutes` must be > 0, but got {self.minutes:g}.")


def best_of(epochs: list[Epoch]) -> Epoch | None:
    """The epoch whose weights are taken: a final one, of the best val accuracy, then val loss."""
    return max(epochs, key=lambda e: (e.is_final, e.accuracy, -e.loss), default=None)


def is_stalled(epochs: list[Epoch], patience: int) -> bool:
    """Whether `patience` epochs after the best final one were not better."""
    best = best_of(epochs)
    return best is not None and best.is_final and epochs[-1].number - best.number >= patience


_PROGRESSIVE_SHARE = 0.25  # of the epochs, with finer grids than the plan's
_CALIBRATION_BATCHES = 32
_CALIBRATION_BATCH_SIZE = 128


def refine(
    evaluator: Evaluator,
    plan: CompressionPlan,
    refinement: Refinement,
    *,
    seed: int,
    checkpoint: Path,
    keep: Path,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    on_stage: OnStage = lambda stage, share: None,
) -> tuple[Measurement, tuple[Epoch, ...]]:
    """Train a plan with the full recipe and measure it with fidelity 2.

    Args:
        evaluator: Builds, tunes and measures.
        plan: What to train.
        refinement: How.
        seed: Decides everything random.
        checkpoint: Written after each epoch; where it exists, the training goes on from there. It
            must be of the same plan, refinement and seed. Remove it when the result is safe.
        keep: Where the refined weights go.
        on_epoch: Called after each epoch.
        on_stage: Called with (stage, share of it that is done).

    Returns:
        The measurement, and all epochs, those of earlier sessions included.

    Raises:
        InputError: If the checkpoint is damaged, or it or the weights cannot be written.
        TrialError: If the plan cannot be built, trained, exported or measured.
    """
    run = _Run(evaluator, plan, refinement, seed, checkpoint)
    run.open(on_stage)
    run.train(on_epoch, on_stage)
    candidate = run.best()
    measured = evaluator.measurer.measure(
        candidate, plan, fidelity=2, start=run.start, on_stage=on_stage
    )
    save_candidate(keep, candidate.model, plan)
    return dataclasses.replace(measured, seconds=run.seconds()), tuple(run.epochs)


class _Run:
    """One refinement under way."""

    def __init__(
        self,
        evaluator: Evaluator,
        plan: CompressionPlan,
        refinement: Refinement,
        seed: int,
        checkpoint: Path,
    ) -> None:
        self._evaluator = evaluator
        self._plans = progressive_bits(plan) if refinement.is_progressive else (plan,)
        self._refinement = refinement
        self._seed = seed
        self._checkpoint = checkpoint
        self.epochs: list[Epoch] = []
        self._best: dict[str, Tensor] = {}
        self._resumed: dict[str, Tensor] = {}
        self.start = self._last_lap = time.perf_counter()

    def open(self, on_stage: OnStage) -> None:
        """Build the candidate, or read where it was left."""
        if self._checkpoint.is_file():
            self._read()
            return
        on_stage("build", 0.0)
        first, refinement = self._plans[0], self._refinement
        self._candidate, _ = self._evaluator.tuned(first, 1, self._seed, on_stage)
        self._recipe = refinement.recipe
        if refinement.minutes is not None:
            on_stage("time", 0.0)
            left_s = 60.0 * refinement.minutes - (time.perf_counter() - self.start)
            epochs = max(left_s, 0.0) / self._epoch_seconds()
            self._recipe = dataclasses.replace(self._recipe, epochs=max(epochs, _LEAST_EPOCHS))
        self._level = 0

    def _epoch_seconds(self) -> float:
        """How long an epoch of this recipe takes here: some steps of it, on a copy, and scoring."""
        evaluator = self._evaluator
        prepared, device, precision = evaluator.prepared, evaluator.device, evaluator.precision
        batches = Batches(prepared, self._recipe.batch_size, torch.Generator())
        n_images = min(_TIMED_STEPS * self._recipe.batch_size, batches.n_examples)
        model = to_fast_layout_(copy.deepcopy(self._candidate.model), device)
        teacher = make_teacher(
            prepared, evaluator.model, self._recipe, device=device, precision=precision
        )
        recipe = dataclasses.replace(self._recipe, epochs=n_images / batches.n_examples)
        cost = finetune_(
            model, prepared, teacher, recipe, seed=self._seed, device=device, precision=precision
        )
        start = time.perf_counter()
        evaluator.measurer.score(model)
        return batches.n_examples * cost.seconds / cost.n_images + time.perf_counter() - start

    def train(self, on_epoch: Callable[[Epoch], None], on_stage: OnStage) -> None:
        """Train to the last epoch, or until nothing gets better."""
        evaluator, recipe = self._evaluator, self._recipe
        prepared, device, precision = evaluator.prepared, evaluator.device, evaluator.precision
        teacher = make_teacher(
            prepared, evaluator.model, recipe, device=device, precision=precision
        )
        with Training(
            to_fast_layout_(self._candidate.model, device),
            prepared,
            teacher,
            recipe,
            seed=self._seed,
            device=device,
            precision=precision,
        ) as training:
            self._n_epochs = -(-training.n_steps // training.steps_per_epoch)
            if self._resumed:
                training.resume_(self._resumed)
            while training.step < training.n_steps and not is_stalled(
                self.epochs, self._refinement.patience
            ):
                self._climb_down(training)
                left = min(training.steps_per_epoch, training.n_steps - training.step)
                training.run(left, lambda step, n: on_stage("refine", step / n))
                self._end_epoch(training)
                on_epoch(self.epochs[-1])

    def best(self) -> Candidate:
        """The candidate with the weights of its best epoch, statistics re-estimated if that helps.

        Both are decided on val.
        """
        model, measurer = self._candidate.model, self._evaluator.measurer
        load_state_(model, self._best)
        before = measurer.score(model)
        recalibrate_(
            model,
            calibration_batches(
                self._evaluator.prepared, _CALIBRATION_BATCH_SIZE, _CALIBRATION_BATCHES, self._seed
            ),
            grids=False,
        )
        if measurer.score(model)[:1] < before[:1]:
            load_state_(model, self._best)
        return self._candidate

    def _climb_down(self, training: Training) -> None:
        """Take the next level's grids where it is time for them."""
        level = self._level_at(len(self.epochs))
        if level == self._level:
            return
        self._level = level
        requantize_(self._candidate.model, self._plans[level].layers)
        to_fast_layout_(self._candidate.model, self._evaluator.device)
        training.renew_parameters()

    def _level_at(self, n_done: int) -> int:
        """Number of the plan that an epoch is trained with, after `n_done` others.

        The last epoch has the plan's own grids, also where it is the only one.
        """
        n_finer = len(self._plans) - 1
        if n_finer == 0 or n_done + 1 >= self._n_epochs:
            return n_finer
        share = n_done / max(1.0, _PROGRESSIVE_SHARE * self._n_epochs)
        return min(n_finer, int(share * n_finer))

    def _end_epoch(self, training: Training) -> None:
        model = self._candidate.model
        accuracy, loss, _ = self._evaluator.measurer.score(model)
        with torch.no_grad():
            bits = mean_code_bits(model)
        number = len(self.epochs) + 1
        is_last_level = self._level == len(self._plans) - 1
        has_entropy = self._recipe.entropy_strength > 0.0
        # where bits have a price the penalty is in full before, but codes have not settled
        is_settled = not has_entropy or entropy_ramp(training.step - 1, training.n_steps) == 1.0
        epoch = Epoch(
            number=number,
            n_epochs=self._n_epochs,
            accuracy=accuracy,
            loss=loss,
            est_code_bits=None if bits is None else float(bits),
            is_final=(is_last_level and is_settled) or number == self._n_epochs,
            seconds=self.seconds(),
        )
        self.epochs.append(epoch)
        if best_of(self.epochs) is epoch:
            self._best = {n: same[0].detach().clone() for n, same in model_state(model).items()}
        self._write(training)

    def seconds(self) -> float:
        """Since the refinement began, earlier sessions included, the time between them not."""
        return (self.epochs[-1].seconds if self.epochs else 0.0) + self._lap()

    def _lap(self) -> float:
        """Seconds since the last call, or since the session began."""
        last, self._last_lap = self._last_lap, time.perf_counter()
        return self._last_lap - last

    def _write(self, training: Training) -> None:
        model = {name: same[0] for name, same in model_state(self._candidate.model).items()}
        groups = {"model": model, "best": self._best, "training": training.state()}
        facts = {
            "level": self._level,
            "epochs": [dataclasses.asdict(epoch) for epoch in self.epochs],
            "recipe_epochs": self._recipe.epochs,
            "skipped": list(self._candidate.skipped),
        }
        write_checkpoint(self._checkpoint, groups, facts)

    def _read(self) -> None:
        groups, facts = read_checkpoint(self._checkpoint)
        try:
            self._level, n_epochs = int(facts["level"]), float(facts["recipe_epochs"])
            self.epochs = [Epoch(**epoch) for epoch in facts["epochs"]]
            skipped = tuple(facts["skipped"])
            model, self._best, self._resumed = (groups[g] for g in ("model", "best", "training"))
        except (KeyError, TypeError, ValueError) as error:
            raise unreadable(self._checkpoint, error) from error
        self._recipe = dataclasses.replace(self._refinement.recipe, epochs=n_epochs)
        built = self._evaluator.build(self._plans[self._level])
        self._candidate = Candidate(model=built.model, skipped=skipped)
        load_state_(built.model, model)
