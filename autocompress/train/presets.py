"""How candidates are tuned, as users say it: a preset's name, and fields of the recipe."""

import dataclasses
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from autocompress.errors import InputError, unknown_name
from autocompress.measurement import Fidelity
from autocompress.tasks.base import Task
from autocompress.train.recipe import Recipe

NO_TUNING: Final = "none"
DEFAULT: Final = "standard"

# Name -> factor on Task.proxy_epochs. A training-free proxy has no epochs to scale.
PRESETS: Final[Mapping[str, float | None]] = {
    "quick": 0.25,
    DEFAULT: 1.0,
    "thorough": 4.0,
    NO_TUNING: None,
}

_EXAMPLES: Final = {
    "proxy": "quick,learning_rate=0.001",
    "recipe": "epochs=40,entropy_strength=0.5",
}
_ANY_RECIPE: Final = {"epochs": 1.0, "learning_rate": 0.1, "batch_size": 1}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """What stands behind every trial of a run.

    Attributes:
        preset: Name in `PRESETS`.
        fields: Fields of the recipe that were set by hand.
    """

    preset: str = DEFAULT
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def fidelity(self) -> Fidelity:
        """0 if statistics are re-estimated only, 1 if candidates are tuned."""
        return 0 if PRESETS[self.preset] is None else 1

    def settings(self, task: Task) -> dict[str, Any]:
        """Arguments of `evaluate.settings.EvaluationSettings` that make it so.

        Args:
            task: Gives the epochs that presets scale.

        Returns:
            `proxy_epochs` and `learning_rate`, None where they are the task's, and `recipe`.
        """
        factor, recipe = PRESETS[self.preset], dict(self.fields)
        scaled = None if factor in (None, 1.0) else factor * task.proxy_epochs
        return {
            "proxy_epochs": recipe.pop("epochs", scaled),
            "learning_rate": recipe.pop("learning_rate", None),
            "recipe": recipe,
        }


def parse_proxy(text: str) -> Proxy:
    """Read `proxy`: a preset, settings, or both, as in `quick,learning_rate=0.001`.

    Args:
        text: Comma-separated; what has no `=` is the preset.

    Raises:
        InputError: If a name is unknown, stands twice or has a value that does not fit, or epochs
            are given to a proxy without training.
    """
    items = [part.strip() for part in text.split(",")]
    named = [item for item in items if "=" not in item]
    for name in named:
        if name not in PRESETS:
            raise unknown_name("preset of `proxy`", name, PRESETS)
    if len(named) > 1:
        raise InputError(f"`proxy` must name one preset, but got {named[0]} and {named[1]}.")
    fields = _read_fields("proxy", [item for item in items if "=" in item])
    proxy = Proxy(preset=named[0] if named else DEFAULT, fields=fields)
    _check(proxy)
    return proxy


def parse_recipe(text: str) -> dict[str, Any]:
    """Read `recipe`: settings, as in `epochs=40,entropy_strength=0.5`; empty text sets nothing.

    Raises:
        InputError: If a name is unknown, stands twice or has a value that does not fit.
    """
    items = [part.strip() for part in text.split(",") if part.strip()]
    fields = _read_fields("recipe", items)
    Recipe(**{**_ANY_RECIPE, **fields})
    return fields


def check_field_names(option: str, names: Iterable[str]) -> None:
    """Check that a recipe has these fields.

    Raises:
        InputError: If it has not.
    """
    for name in names:
        if name not in _READERS:
            raise unknown_name(f"setting of {option}", name, _READERS)


def _read_fields(option: str, items: list[str]) -> dict[str, Any]:
    """Fields of a recipe from `name=value` each."""
    fields: dict[str, Any] = {}
    for item in items:
        name, _, value = (part.strip() for part in item.partition("="))
        check_field_names(option, (name,))
        if name in fields:
            raise InputError(f"`{option}` must set each field once, but {name!r} came twice.")
        fields[name] = _read(option, name, value)
    return fields


def _check(proxy: Proxy) -> None:
    idle = [name for name in ("epochs", "learning_rate") if name in proxy.fields]
    if proxy.fidelity == 0 and idle:
        raise InputError(f"`proxy={proxy.preset}` trains nothing, but {idle[0]!r} was set.")
    Recipe(**{**_ANY_RECIPE, **proxy.fields})


def _read(option: str, name: str, value: str) -> Any:
    what, read = _READERS[name]
    try:
        return read(value)
    except (ValueError, KeyError):
        raise InputError(
            f"`{name}` of `{option}` must be {what}, but got {value!r}.",
            f"For example: `{option}={_EXAMPLES[option]}`.",
        ) from None


def _truth(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


# Type of a recipe's field -> what it is called, and how it is read.
_TYPES: Final[Mapping[type, tuple[str, Callable[[str], Any]]]] = {
    float: ("a number", float),
    int: ("a whole number", int),
    bool: ("true or false", _truth),
    str: ("a name", str),
}


def _reader(hint: Any) -> tuple[str, Callable[[str], Any]]:
    """How a field is read; one that may be None is left out to have it so."""
    choices = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return _TYPES[next(choice for choice in choices if choice is not types.NoneType)]


_READERS: Final = {field.name: _reader(field.type) for field in dataclasses.fields(Recipe)}
