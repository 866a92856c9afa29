"""What a study is kept in, as the study sees it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import optuna
from optuna.trial import FrozenTrial

from autocompress.objective import Direction

Result = TypeVar("Result")


class Store(Protocol):
    """Holds one study, for one driver or for several that share its budget.

    Attributes:
        name: What errors call it; without a password.
        is_shared: Whether other drivers may work on the study at the same time.
        driver: Tells this driver from others in what is kept; empty where there is only one.
    """

    name: str
    is_shared: bool
    driver: str

    def open(
        self,
        directions: Sequence[Direction],
        claim: Callable[[optuna.Study], Mapping[str, Any]],
    ) -> optuna.Study:
        """Create or open the study, and make it this session's.

        Args:
            directions: `maximize` or `minimize` per objective.
            claim: Probes the attributes that a study has already, and raises if it is another
                one; returns those to be written, in order.

        Raises:
            AutocompressError: If it cannot be opened, is another study, or is driven by somebody.
        """
        ...

    def close(self) -> None:
        """Let others have it; what runs is left to them."""
        ...

    def attempt(self, action: Callable[[], Result], *, is_patient: bool = True) -> Result:
        """Read, or write what may be written twice.

        Args:
            action: What to do.
            is_patient: Whether to wait for a server that is away, which may take minutes.

        Raises:
            AutocompressError: If the study cannot be reached, read or written.
        """
        ...

    def in_turn(self, action: Callable[[], Result]) -> Result:
        """Write while no other driver takes turns; may be called once more if that is cut short.

        Raises:
            AutocompressError: As `attempt`.
        """
        ...

    def check_turn(self) -> None:
        """Before the write that must not be made out of turn: raise if the turn has been lost."""
        ...

    def alone(self, action: Callable[[], object]) -> bool:
        """Do what one driver does for all, and takes long.

        Returns:
            Whether it was done; False, after a moment, if another driver is at it.

        Raises:
            AutocompressError: As `attempt`.
        """
        ...

    def left_behind(self, trials: Sequence[FrozenTrial]) -> list[tuple[FrozenTrial, bool]]:
        """Running trials nobody works on any more, and whether their driver was killed.

        Args:
            trials: Running trials that this session has not begun.
        """
        ...

    def write_attribute(self, key: str, value: Any) -> None:
        """Note an attribute that the study was just given."""
        ...

    def write_trial(self, trial: FrozenTrial) -> None:
        """Note what a trial is now."""
        ...
