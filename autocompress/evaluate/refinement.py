"""How a plan is refined, and how its epochs came out: plain data."""

import dataclasses

from autocompress.errors import InputError
from autocompress.train.recipe import Recipe


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
        minutes: Time that the epochs may take; None for as many as the recipe has. The speed is
            that of the brief tuning before.
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
