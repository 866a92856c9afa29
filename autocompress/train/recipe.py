"""Recipe: how a candidate is tuned. Plain data; what the names mean stands in the tables."""

import dataclasses
import math
from collections.abc import Iterable, Mapping

from autocompress.errors import InputError, unknown_name
from autocompress.tasks.prepare import PreparedTask
from autocompress.train.distill import DISTILLATIONS, TASK_SHARE, TEMPERATURE
from autocompress.train.features import FEATURES, find_taps
from autocompress.train.regularize import PENALTIES

_WARM_UP_STEPS = 100
_WARM_UP_SHARE = 0.1


def rate_share(step: int, n_steps: int) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then half a cosine."""
    n_warm = min(_WARM_UP_STEPS, round(_WARM_UP_SHARE * n_steps))
    if step < n_warm:
        return (step + 1) / (n_warm + 1)
    progress = (step - n_warm) / max(1, n_steps - n_warm)
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def entropy_ramp(step: int, n_steps: int) -> float:
    """0 in the first half of a training, 1 in its last quarter."""
    return min(1.0, max(0.0, 4.0 * step / n_steps - 2.0))


ROUNDINGS = ("nearest", "compensated")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a candidate is tuned: SGD with Nesterov momentum, warm-up, then a cosine to zero.

    Attributes:
        epochs: Passes over the training data, unlabelled examples included; a fraction is fine.
        learning_rate: Peak learning rate.
        batch_size: Examples per step.
        distill: How outputs are matched to the teacher's: `kl`, `mse` or `none`.
        temperature: Softening of `kl`, > 0.
        task_share: Weight of the task's loss, in [0, 1]; the rest is distillation. Without
            distillation the task's loss counts in full.
        features: What inside the model is matched to the base model's: `similarity` between
            examples, `attention` over positions, or `none`.
        feature_weight: Weight of that loss; None takes the default of its kind.
        penalty: What is added to the loss to make weights small: `l1`, `l2`, `group_lasso`, `l0`
            or `none`.
        penalty_strength: Its factor.
        entropy_strength: Loss per bit that a quantized weight takes in the packed file on average;
            it counts from the middle of the training on, in full from three quarters, or in full
            from the start where bits have a price.
        prune_steps: Steps in which pruning reaches its ratio, each followed by tuning.
        rewind: Whether the weights that survive pruning go back to `Task.initial_state`.
        rounding: How weights are rounded when quantized: `nearest`, or `compensated`, each error
            made up for by other weights. Where a plan has a `rate_price` they are compensated in
            any case.
    """

    epochs: float
    learning_rate: float
    batch_size: int
    distill: str = "kl"
    temperature: float = TEMPERATURE
    task_share: float = TASK_SHARE
    features: str = "none"
    feature_weight: float | None = None
    penalty: str = "none"
    penalty_strength: float = 1e-4
    entropy_strength: float = 0.0
    prune_steps: int = 1
    rewind: bool = False
    rounding: str = "nearest"

    def __post_init__(self) -> None:
        """Check names and ranges.

        Raises:
            InputError: If a name is unknown or a number outside its range.
        """
        for field in ("epochs", "learning_rate", "temperature"):
            self._check(field, _is_number(getattr(self, field), above=0.0), "> 0")
        for field in ("batch_size", "prune_steps"):
            value = getattr(self, field)
            is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            self._check(field, is_count, "a whole number >= 1")
        self._check("task_share", _is_number(self.task_share, most=1.0), "in [0, 1]")
        for field in ("penalty_strength", "entropy_strength"):
            self._check(field, _is_number(getattr(self, field)), ">= 0")
        is_weight = self.feature_weight is None or _is_number(self.feature_weight)
        self._check("feature_weight", is_weight, ">= 0")
        self._check("rewind", isinstance(self.rewind, bool), "true or false")
        tables: Mapping[str, Iterable[str]] = {
            "distill": DISTILLATIONS,
            "features": FEATURES,
            "penalty": PENALTIES,
            "rounding": ROUNDINGS,
        }
        for field, known in tables.items():
            if getattr(self, field) not in known:
                raise unknown_name(f"{field} of the recipe", str(getattr(self, field)), known)

    def _check(self, field: str, holds: bool, what: str) -> None:
        if not holds:
            value = getattr(self, field)
            raise InputError(f"`{field}` of the recipe must be {what}, but got {value!r}.")


def _is_number(value: object, *, above: float = -math.inf, most: float = math.inf) -> bool:
    """Whether a value is a finite number >= 0, `above` one limit and at `most` another."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and value >= 0.0 and above < value <= most


def check_recipe(recipe: Recipe, prepared: PreparedTask) -> None:
    """Check that the task brings what the recipe needs.

    Features are those of the base model: another teacher has other layers, of which none is known
    to correspond to one of the candidate's.

    Raises:
        InputError: If it does not, or the model has no features to match.
    """
    if recipe.features != "none" and prepared.teachers:
        raise InputError(
            f"The recipe's features={recipe.features!r} are matched to the base model's, but the "
            "task names another teacher.",
            "Use features: none, or leave Task.teacher out.",
        )
    find_taps(recipe.features, prepared.task.model, prepared.example_inputs)
    if recipe.distill == "none" and prepared.unlabelled is not None:
        raise InputError(
            "The task brings unlabelled inputs, from which only distillation can learn, but the "
            "recipe's `distill` is 'none'.",
            "Use kl or mse, or leave Task.unlabelled out.",
        )
    if recipe.rewind and prepared.task.initial_state is None:
        raise InputError(
            "The recipe's `rewind` needs weights from early in training, but the task has none.",
            "Give Task.initial_state.",
        )
