"""The task that is checked: what its contracts look at, each part made once."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import torch
from torch import Tensor, nn

from autocompress.errors import AutocompressError, InputError
from autocompress.evaluate.evaluator import Evaluator
from autocompress.evaluate.scoring import score
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.runtime.base import Shipment
from autocompress.space.rules import SpaceRules
from autocompress.tasks.base import Inputs, Task
from autocompress.tasks.factory import load_task, place_of_factory
from autocompress.tasks.prepare import PreparedTask, prepare_task
from autocompress.tasks.user_code import Place, place_of, place_of_field
from autocompress.train.teachers import outputs_on

Status = Literal["pass", "warn", "fail", "skip"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """How one contract stands.

    Attributes:
        status: `fail` must be fixed before a search; `skip` could not be checked.
        message: What holds, or what does not, in one line; names the user's file and line where
            their code is at fault.
        fix: What to do about it; empty if nothing.
        facts: What was measured, as JSON; estimates are named `est_...`.
    """

    status: Status
    message: str
    fix: str = ""
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Blocked(Exception):  # noqa: N818 - it is no error: somebody else has told it already
    """A contract needs something that an earlier one found missing."""


def passed(message: str, **facts: Any) -> Finding:
    """It holds."""
    return Finding(status="pass", message=message, facts=facts)


def warned(message: str, fix: str, place: Place | None = None, **facts: Any) -> Finding:
    """It holds as far as it must, and the user should know."""
    return Finding(status="warn", message=_at(message, place), fix=fix, facts=facts)


def failed(message: str, fix: str, place: Place | None = None, **facts: Any) -> Finding:
    """It does not hold."""
    return Finding(status="fail", message=_at(message, place), fix=fix, facts=facts)


def skipped(message: str) -> Finding:
    """It cannot be told."""
    return Finding(status="skip", message=message)


def _at(message: str, place: Place | None) -> str:
    if place is None or str(place) in message:
        return message
    return f"{message.rstrip('.')} ({place})."


_T = TypeVar("_T")
_TASK: Final = "the task"
_SALVAGED: Final = "a model that runs on its training data"
# What a task can do without, so that what is wrong with it hides nothing else: field -> stand-in.
_STAND_INS: Final[Mapping[str, Any]] = {
    "val": None,
    "test": None,
    "teacher": None,
    "unlabelled": None,
    "initial_state": None,
    "loss": lambda outputs, targets: torch.zeros(()),
    "distill": "mse",
}


class Subject:
    """One task and what is made of it, each when it is first asked for.

    What cannot be made raises its error to the first contract that asks, and `Blocked` to others.

    Args:
        spec: As `load_task` takes it.
        arguments: Of its factory.
        settings: How a search would tune and measure.
        rules: The search space's.
        scratch: A folder for files.
        n_trials: Trials that a search would make.
        ready: The task, and what has been made of it, where that is known already.
    """

    def __init__(
        self,
        spec: str,
        arguments: Mapping[str, str],
        *,
        settings: EvaluationSettings,
        rules: SpaceRules,
        scratch: Path,
        n_trials: int = 1,
        ready: tuple[Task, PreparedTask] | None = None,
    ) -> None:
        self.spec, self.arguments = spec, arguments
        self.settings, self.rules = settings, rules
        self.scratch, self.n_trials = scratch, n_trials
        self.seconds: dict[str, float] = {}
        self._made: dict[str, Any] = {}
        self._broken: dict[str, str] = {}
        if ready is not None:
            self._made = {_TASK: ready[0], _SALVAGED: ready[1], "faults": {}}

    @property
    def task(self) -> Task:
        """What the factory returns."""
        return self._once(_TASK, lambda: load_task(self.spec, self.arguments))

    @property
    def faults(self) -> Mapping[str, AutocompressError]:
        """Field of the task -> what `prepare_task` says against it."""
        self.salvaged  # noqa: B018 - finds them
        return self._made.get("faults", {})

    @property
    def salvaged(self) -> PreparedTask:
        """The task with its faulty parts replaced by stand-ins."""
        return self._once(_SALVAGED, self._salvage)

    @property
    def prepared(self) -> PreparedTask:
        """The task as it would be searched."""
        prepared = self.salvaged
        if faults := self.faults:
            raise Blocked(f"a task whose {' and '.join(faults)} can be used")
        return prepared

    def needs(self, *fields: str) -> PreparedTask:
        """The salvaged task, if these fields are the user's own.

        Raises:
            Blocked: If one of them is a stand-in.
        """
        prepared = self.salvaged
        if missing := [field for field in fields if field in self.faults]:
            raise Blocked(f"a {' and a '.join(missing)} that can be used")
        return prepared

    @property
    def model(self) -> nn.Module:
        """The model as every candidate starts from it, in eval mode; not to be changed."""
        return self.salvaged.task.model.eval()

    @property
    def example(self) -> tuple[Inputs, Tensor]:
        """Inputs and targets of the first training examples."""
        return self.salvaged.train.batch(slice(0, min(8, len(self.salvaged.train))))

    @property
    def evaluator(self) -> Evaluator:
        """Evaluates plans for the task."""
        prepared = self.salvaged
        return self._once(
            "a model that can be analyzed", lambda: Evaluator(prepared, self.settings)
        )

    @property
    def val_outputs(self) -> Tensor:
        """The model's outputs on all of val."""
        val, device = self.needs("val").val, torch.device("cpu")
        return self._once(
            "outputs on val", lambda: self.timed("val", outputs_on, self.model, val, device, "fp32")
        )

    @property
    def scores(self) -> tuple[float, float]:
        """Metric and loss of the model on all of val."""
        prepared, outputs = self.needs("loss", "val"), self.val_outputs
        return self._once(
            "a metric that can judge val",
            lambda: score(prepared.task, outputs, prepared.val.targets),
        )

    @property
    def shipment(self) -> Shipment:
        """The model as it would be exported."""
        measurer = self.evaluator.measurer
        return self._once(
            "a model that can be exported", lambda: self.timed("export", measurer.baseline)
        )

    def timed(self, name: str, make: Callable[..., _T], *arguments: Any) -> _T:
        """Do something and remember how many seconds it took."""
        began = time.perf_counter()
        made = make(*arguments)
        self.seconds[name] = time.perf_counter() - began
        return made

    def place(self, field: str) -> Place | None:
        """Where the user's code gives a field of the task: its function, the field, the factory.

        Without a field: where the factory is.
        """
        value = getattr(self._made.get(_TASK), field, None)
        factory = place_of_factory(self.spec)
        written = None if value is None else place_of(value)
        if written is not None or factory is None:
            return written
        return place_of_field(factory, field) or factory

    def _once(self, name: str, make: Callable[[], _T]) -> _T:
        if name in self._broken:
            raise Blocked(name)
        if name not in self._made:
            try:
                self._made[name] = make()
            except Blocked:
                raise
            except BaseException:
                self._broken[name] = name
                raise
        made: _T = self._made[name]
        return made

    def _salvage(self) -> PreparedTask:
        """Prepare the task; whatever can be blamed on one field is replaced until it runs."""
        task = self.task
        faults: dict[str, AutocompressError] = {}
        while True:
            found = _prepared(task)
            if isinstance(found, PreparedTask):
                self._made["faults"] = faults
                return found
            for field, stand_in in _STAND_INS.items():
                if field in faults or getattr(task, field) is None:
                    continue
                without = dataclasses.replace(task, **{field: stand_in})
                other = _prepared(without)
                if isinstance(other, PreparedTask) or other.message != found.message:
                    task, faults[field] = without, found
                    break
            else:
                raise found


def _prepared(task: Task) -> PreparedTask | InputError:
    try:
        return prepare_task(task)
    except InputError as error:
        return error
