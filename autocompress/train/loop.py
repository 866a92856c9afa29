"""The fast training loop: in-memory data, whole-batch augmentation, bf16, channels-last."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import torch
from torch import Tensor, nn

from autocompress.compress.error_compensation import has_rate_penalty
from autocompress.compress.input_quantizer import InputQuantizer
from autocompress.compress.quantizers.base import WeightQuantizer
from autocompress.errors import TrialError
from autocompress.tasks.frozen import keep_frozen_
from autocompress.tasks.prepare import PreparedTask
from autocompress.train.batches import Batches
from autocompress.train.entropy import mean_code_bits
from autocompress.train.features import matching
from autocompress.train.precision import (
    Precision,
    keep_freed_memory,
    sound_gradients,
    to_device,
)
from autocompress.train.recipe import Recipe, check_recipe, entropy_ramp, rate_share
from autocompress.train.regularize import Penalty, penalizing
from autocompress.train.teachers import Teacher
from autocompress.train.training_loss import make_loss

_MOMENTUM = 0.9
_WEIGHT_DECAY = 1e-4
_GATE_RATE = 1000.0  # of the learning rate: gates have far to go; 10 to 1000 tried on digits


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """What tuning cost.

    Attributes:
        n_images: Training examples seen, repeats counted.
        seconds: Wall time.
    """

    n_images: int
    seconds: float

    @property
    def images_per_s(self) -> float | None:
        """Training examples per second; None if nothing was trained."""
        return self.n_images / self.seconds if self.n_images else None


NO_TRAINING: Final = Throughput(n_images=0, seconds=0.0)


def finetune_(
    model: nn.Module,
    prepared: PreparedTask,
    teacher: Teacher,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    precision: Precision,
    on_step: Callable[[int, int], None] | None = None,
) -> Throughput:
    """Tune a candidate in place.

    Args:
        model: Changed; on `device`, left in eval mode.
        prepared: Training data, augmentation and loss.
        teacher: What to distill from, on `device`; the base model if features are matched.
        recipe: How long, how fast, and what is added to the task's loss.
        seed: Decides order, augmentation and dropout; equal seeds give equal weights on one
            machine with one thread count.
        device: Where to train.
        precision: Format of convolutions and matrix products.
        on_step: Called with (step, n_steps) after each step.

    Raises:
        InputError: If the task does not bring what the recipe needs.
        TrialError: If the loss stops being a finite number.
    """
    start = time.perf_counter()
    with Training(
        model, prepared, teacher, recipe, seed=seed, device=device, precision=precision
    ) as training:
        training.run(training.n_steps, on_step)
    return Throughput(n_images=training.n_images, seconds=time.perf_counter() - start)


class Training:
    """One training of a candidate, which can be left between two epochs and taken up again.

    Use it as a context manager: penalties and features hook into the model.

    Args:
        model: Changed; on `device`, left in eval mode.
        prepared: Training data, augmentation and loss.
        teacher: What to distill from, on `device`; the base model if features are matched.
        recipe: How long, how fast, and what is added to the task's loss.
        seed: Decides order, augmentation and dropout.
        device: Where to train.
        precision: Format of convolutions and matrix products.

    Raises:
        InputError: If the task does not bring what the recipe needs.
    """

    def __init__(
        self,
        model: nn.Module,
        prepared: PreparedTask,
        teacher: Teacher,
        recipe: Recipe,
        *,
        seed: int,
        device: torch.device,
        precision: Precision,
    ) -> None:
        check_recipe(recipe, prepared)
        keep_freed_memory()
        torch.manual_seed(seed)
        self._model, self._prepared, self._teacher = model, prepared, teacher
        self._recipe, self._device, self._precision = recipe, device, precision
        self._has_rate_penalty = has_rate_penalty(model)
        self._batches = Batches(prepared, recipe.batch_size, torch.Generator().manual_seed(seed))
        assert teacher.cached is None or len(teacher.cached) == self._batches.n_examples
        self._stack = contextlib.ExitStack()
        self._penalty: Penalty | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self.step = 0
        self.n_steps = steps_of(recipe, prepared)
        self.n_images = 0

    def __enter__(self) -> "Training":
        """Open what hooks into the model."""
        recipe = self._recipe
        with contextlib.ExitStack() as stack:
            example = to_device(self._prepared.example_inputs, self._device)
            self._penalty = stack.enter_context(penalizing(recipe.penalty, self._model, example))
            features = stack.enter_context(
                matching(recipe.features, self._teacher.model, self._model, example)
            )
            self._stack = stack.pop_all()
        self._loss_of = make_loss(
            self._prepared, self._teacher, recipe, features, self._device, self._precision
        )
        self.renew_parameters()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close it again."""
        self._stack.close()
        self._model.eval()

    def renew_parameters(self) -> None:
        """Train what the model has as parameters now; those that stayed keep their momentum."""
        known = {} if self._optimizer is None else self._optimizer.state
        self._optimizer = torch.optim.SGD(
            _parameter_groups(self._model, self._gates),
            lr=self._recipe.learning_rate,
            momentum=_MOMENTUM,
            nesterov=True,
        )
        for _, parameter in self._named_parameters():
            if parameter in known:
                self._optimizer.state[parameter] = known[parameter]

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one pass over the training data."""
        return self._batches.per_epoch

    def run(self, n_steps: int, on_step: Callable[[int, int], None] | None = None) -> None:
        """Train for some steps.

        Raises:
            TrialError: If the loss stops being a finite number.
        """
        assert self._optimizer is not None, "enter the context first"
        recipe, device = self._recipe, self._device
        self._model.train()
        keep_frozen_(self._model)
        for _ in range(n_steps):
            rate = recipe.learning_rate * rate_share(self.step, self.n_steps)
            for group in self._optimizer.param_groups:
                group["lr"] = rate * group["rate"]
            inputs, targets, indices = self._batches.draw()
            loss = self._loss_of(
                self._model, to_device(inputs, device), targets.to(device), indices
            )
            loss = loss + self._price_of_weights()
            self._optimizer.zero_grad(set_to_none=True)
            with sound_gradients(self._model):
                loss.backward()
            self._optimizer.step()
            self.n_images += len(indices)
            self.step += 1
            _check_finite(loss.item(), self.step, self.n_steps)
            if on_step is not None:
                on_step(self.step, self.n_steps)

    def _price_of_weights(self) -> Tensor | float:
        """What is added to the loss for the weights as they are."""
        price: Tensor | float = 0.0
        if self._penalty is not None:
            price = self._recipe.penalty_strength * self._penalty.value()
        strength = self._recipe.entropy_strength * self.entropy_share(self.step)
        bits = mean_code_bits(self._model) if strength > 0.0 else None
        return price if bits is None else price + strength * bits

    def entropy_share(self, step: int) -> float:
        """Share of the entropy's strength at a step: 0 in the first half, 1 in the last quarter.

        It is 1 throughout where weights were rounded for a price: their codes take few bits from
        the start, and without a penalty would take more and more.
        """
        return 1.0 if self._has_rate_penalty else entropy_ramp(step, self.n_steps)

    def state(self) -> dict[str, Tensor]:
        """What a later `resume_` needs beside the model: between two epochs, or at the end."""
        assert self._optimizer is not None, "enter the context first"
        is_over = self.step == self.n_steps
        assert is_over or not self._batches.queue, "leave a training between two epochs"
        momenta = {
            f"momentum.{name}": self._optimizer.state[parameter]["momentum_buffer"].clone()
            for name, parameter in self._named_parameters()
            if parameter in self._optimizer.state
        }
        generators = {
            "batches": self._batches.generator.get_state(),
            "global": torch.get_rng_state(),
        }
        if self._device.type == "cuda":
            generators["device"] = torch.cuda.get_rng_state(self._device)
        return {
            **momenta,
            **{f"gate.{i}": gate.detach().clone() for i, gate in enumerate(self._gates)},
            **generators,
            "counts": torch.tensor([self.step, self.n_images]),
        }

    def resume_(self, state: Mapping[str, Tensor]) -> None:
        """Go on where another training of the same model and recipe was left.

        Args:
            state: What its `state` returned.
        """
        assert self._optimizer is not None, "enter the context first"
        for name, parameter in self._named_parameters():
            if f"momentum.{name}" in state:
                momentum = state[f"momentum.{name}"].to(parameter.device).clone()
                self._optimizer.state[parameter]["momentum_buffer"] = momentum
        with torch.no_grad():
            for i, gate in enumerate(self._gates):
                gate.copy_(state[f"gate.{i}"])
        self._batches.generator.set_state(state["batches"])
        torch.set_rng_state(state["global"])
        if "device" in state:
            torch.cuda.set_rng_state(state["device"], self._device)
        self.step, self.n_images = (int(count) for count in state["counts"])

    @property
    def _gates(self) -> tuple[nn.Parameter, ...]:
        """What the penalty learns; no part of the model."""
        return () if self._penalty is None else self._penalty.parameters

    def _named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self._model.named_parameters()
        yield from ((f"gate {i}", gate) for i, gate in enumerate(self._gates))


def steps_of(recipe: Recipe, prepared: PreparedTask) -> int:
    """Training steps that `finetune_` takes for a recipe: its epochs in batches, at least 1."""
    per_epoch = Batches(prepared, recipe.batch_size, torch.Generator()).per_epoch
    return max(1, round(recipe.epochs * per_epoch))


def _check_finite(loss: float, step: int, n_steps: int) -> None:
    if not math.isfinite(loss):
        raise TrialError("nonfinite_loss", f"The loss became {loss} in step {step} of {n_steps}.")


def _parameter_groups(
    model: nn.Module, gates: tuple[nn.Parameter, ...] = ()
) -> list[dict[str, object]]:
    """Weight decay on weights only: not on biases, norms, quantizers or gates."""
    quantizers = (m for m in model.modules() if isinstance(m, WeightQuantizer | InputQuantizer))
    learned = {id(p) for quantizer in quantizers for p in quantizer.parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.ndim >= 2 and id(p) not in learned]
    kept = [p for p in trained if p.ndim < 2 or id(p) in learned]
    groups: list[dict[str, object]] = [
        {"params": decayed, "weight_decay": _WEIGHT_DECAY, "rate": 1.0},
        {"params": kept, "weight_decay": 0.0, "rate": 1.0},
        {"params": list(gates), "weight_decay": 0.0, "rate": _GATE_RATE},
    ]
    return [group for group in groups if group["params"]]
