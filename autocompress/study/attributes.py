"""What a study says about itself and its trials, checked as it is read: it may be anybody's."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
)

from autocompress.errors import one_line
from autocompress.space.rules import problem_of
from autocompress.technique import TECHNIQUES, KnobKind


def _plain(name: str) -> str:
    """A name that other things are found by: it cannot be changed to one that steers nothing."""
    if one_line(name) != name:
        msg = f"a name holds control characters: {name!a}"
        raise ValueError(msg)
    return name


_Name = Annotated[StrictStr, AfterValidator(_plain)]
_Text = Annotated[StrictStr, AfterValidator(one_line)]
_Index = Annotated[StrictInt, Field(ge=0, le=2**53)]
_Number = Annotated[StrictInt | StrictFloat, Field(ge=0, allow_inf_nan=False, le=1e300)]

_Level = Annotated[StrictInt | StrictFloat, Field(ge=0, le=2**20)]


class _Part(BaseModel):
    """Holds more than is checked: what other versions say is kept."""

    model_config = ConfigDict(extra="allow")


class _Info(_Part):
    task: StrictStr = ""
    task_name: _Text = ""
    arguments: dict[StrictStr, StrictStr] = {}
    metric: _Text = "accuracy"
    splits: dict[_Name, _Index | None] = {}
    options: Any = {}  # read with care by those who need them, as version 0.1 had others


class _Recipe(_Part):
    epochs: _Number = 0


class _Machine(_Part):
    processor: _Text = ""


class _Identity(_Part):
    seed: StrictInt = 0
    sampler: _Text = ""
    model: StrictStr = ""
    settings: dict[StrictStr, Any] = {}
    recipe: _Recipe = _Recipe()
    data: dict[StrictStr, StrictStr | None] = {}
    machine: _Machine = _Machine()
    limits: dict[StrictStr, _Number | None] = {}
    fidelity: Literal[0, 1, 2] = 1


class _Knob(BaseModel):
    kind: KnobKind
    targets: list[_Name]
    levels: Annotated[list[_Level | StrictStr], Field(min_length=1)]
    label: _Name


class _Method(BaseModel):
    kind: KnobKind
    target: _Name
    value: _Name


class _Study(_Part):
    info: _Info
    identity: _Identity
    knobs: list[_Knob]
    methods: list[_Method] = []


class _Trial(_Part):
    role: Literal["baseline", "control", "search"]
    label: StrictStr
    fidelity: Literal[0, 1, 2] = 1
    reason: StrictStr | None = None
    attempts: _Index = 1


def checked_study(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a study says about itself, `info` and `identity` completed by what they may leave out.

    Raises:
        ValueError: If something has a type or a value that no version writes.
    """
    try:
        found = _Study.model_validate(dict(attributes))
    except ValidationError as error:
        raise ValueError(problem_of(error)) from error
    for knob in found.knobs:
        is_name = isinstance(TECHNIQUES[knob.kind].untouched, str)
        if any(isinstance(level, str) != is_name for level in knob.levels):
            msg = f"the levels of {knob.kind} cannot be {str(knob.levels)[:40]}"
            raise ValueError(msg)
    return found.model_dump()


def check_trial(attributes: Mapping[str, Any]) -> None:
    """Refuse what no version says of a trial.

    Raises:
        ValueError: If something has another type or value.
    """
    try:
        _Trial.model_validate(dict(attributes))
    except ValidationError as error:
        raise ValueError(problem_of(error)) from error
