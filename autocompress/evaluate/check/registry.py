"""All contracts, in the order in which a user reads them."""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from autocompress.atomic_file import scratch_folder
from autocompress.errors import AutocompressError, InputError, unknown_name
from autocompress.evaluate.check.learning import (
    augments,
    baseline,
    loss_falls,
    metric_in_range,
    metric_rises,
)
from autocompress.evaluate.check.model import is_deterministic, learns, rows_are_independent, runs
from autocompress.evaluate.check.shipping import exports, has_knobs, packs, takes
from autocompress.evaluate.check.subject import Blocked, Finding, Subject, failed, skipped
from autocompress.evaluate.check.whole_task import (
    are_disjoint,
    data,
    loads,
    same_everywhere,
    val_is_unseen,
)
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.space.rules import SpaceRules
from autocompress.tasks.base import Task
from autocompress.tasks.prepare import PreparedTask
from autocompress.tasks.user_code import describe_error, place_of_error

Contract = Callable[[Subject], Finding]

# Name -> what it looks at. To add one, write its function and add a line here.
CONTRACTS: Final[Mapping[str, Contract]] = {
    "task": loads,
    "data": data,
    "model": runs,
    "deterministic": is_deterministic,
    "rows": rows_are_independent,
    "gradients": learns,
    "augment": augments,
    "loss": loss_falls,
    "metric": metric_in_range,
    "direction": metric_rises,
    "baseline": baseline,
    "splits": are_disjoint,
    "unseen": val_is_unseen,
    "knobs": has_knobs,
    "export": exports,
    "pack": packs,
    "repeatable": same_everywhere,
    "time": takes,
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One contract and how it stands.

    Attributes:
        name: Key of `CONTRACTS`.
        finding: What was found.
    """

    name: str
    finding: Finding

    def to_json(self) -> dict[str, Any]:
        """As JSON: `name`, `status`, `message`, `fix`, `facts`."""
        return {"name": self.name, **dataclasses.asdict(self.finding)}


def check_task(
    spec: str,
    arguments: Mapping[str, str],
    *,
    settings: EvaluationSettings,
    rules: SpaceRules,
    n_trials: int = 50,
    only: Sequence[str] = (),
) -> Iterator[Checked]:
    """Look at every contract of a task; one that does not hold hides none of the others.

    Args:
        spec: As `load_task` takes it.
        arguments: Of its factory.
        settings: How a search would tune and measure.
        rules: The search space's.
        n_trials: Trials that a search would make.
        only: Names of the contracts to look at; empty for all.

    Yields:
        Each contract when it has been looked at, in the order of `CONTRACTS`.

    Raises:
        InputError: If a name is unknown.
    """
    for name in only:
        if name not in CONTRACTS:
            raise unknown_name("contract", name, CONTRACTS)
    with scratch_folder() as scratch:
        subject = Subject(
            spec,
            arguments,
            settings=settings,
            rules=rules,
            scratch=Path(scratch),
            n_trials=n_trials,
        )
        for name in only or CONTRACTS:
            yield Checked(name=name, finding=_look(name, subject))


_QUICK: Final = ("deterministic", "gradients", "direction")
_N_QUICK: Final = 512  # examples of val


def check_quickly(
    task: Task,
    prepared: PreparedTask,
    spec: str,
    arguments: Mapping[str, str],
    *,
    settings: EvaluationSettings,
    rules: SpaceRules,
) -> Iterator[Checked]:
    """Look at the contracts without which a search misleads, in about a second.

    Two passes are equal, gradients reach the parameters, the metric is higher for better outputs.
    The last is asked of some examples of val, and of all of it only where these do not say so.

    Args:
        task: What the user brings.
        prepared: What was made of it.
        spec: Where it came from.
        arguments: Of its factory.
        settings: How the search tunes and measures.
        rules: The search space's.

    Yields:
        What does not hold.
    """
    step = -(-len(prepared.val) // _N_QUICK)
    some = dataclasses.replace(prepared, val=prepared.val.subset(slice(None, None, step)))
    with scratch_folder() as scratch:
        few, whole = (
            Subject(
                spec,
                arguments,
                settings=settings,
                rules=rules,
                scratch=Path(scratch),
                ready=(task, known),
            )
            for known in (some, prepared)
        )
        for name in _QUICK:
            finding = _look(name, few)
            if finding.status != "pass" and name == "direction" and step > 1:
                finding = _look(name, whole)
            if finding.status == "fail":
                yield Checked(name=name, finding=finding)


def _look(name: str, subject: Subject) -> Finding:
    try:
        return _guarded(CONTRACTS[name], subject)
    except Blocked as blocked:
        return skipped(f"cannot be told without {blocked}")
    except AutocompressError as error:
        place = place_of_error(error)
        if place is None:
            field = "" if name in ("task", "data") else "model"
            with contextlib.suppress(AutocompressError, Blocked):
                place = subject.place(_field_in(error.message) or field)
        return failed(error.message, error.hint, place)


def _field_in(message: str) -> str:
    """The field of the task that a message is about; empty if it names none."""
    found = re.search(r"`Task\.(\w+)|\b(train|val|test) split\b", message)
    return "" if found is None else found[1] or found[2]


def _guarded(contract: Contract, subject: Subject) -> Finding:
    """The user's code may raise anything, and may even end the process."""
    try:
        return contract(subject)
    except (AutocompressError, Blocked):
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"It raised {describe_error(error)}.") from error
