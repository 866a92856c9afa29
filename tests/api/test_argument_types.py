"""Types of what Python callers give, without a search behind them."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autocompress.api.argument_types import checked_options
from autocompress.api.search import search
from autocompress.errors import InputError

NOT_OPTIONS = ("task", "name", "results", "arguments", "quiet", "watch")


def _options(**given: Any) -> dict[str, Any]:
    parameters = inspect.signature(search).parameters
    usual = {name: p.default for name, p in parameters.items() if name not in NOT_OPTIONS}
    return {**usual, **given}


@pytest.mark.parametrize("name", _options())
def test_no_option_may_be_any_object(name: str) -> None:
    with pytest.raises(InputError, match=f"^`{name}` must be .*, but got <object object"):
        checked_options(_options(**{name: object()}))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"budget": "5"}, "`budget` must be a whole number, but got '5'."),
        ({"budget": 2.5}, "`budget` must be a whole number, but got 2.5."),
        ({"seed": "a"}, "`seed` must be a whole number, but got 'a'."),
        ({"seed": True}, "`seed` must be a whole number, but got True."),
        ({"threads": 1.0}, "`threads` must be a whole number, but got 1.0."),
        ({"trial_timeout": "2h"}, "`trial_timeout` must be a number, but got '2h'."),
        ({"max_size": [1]}, "`max_size` must be a number, or a text with its unit, but got [1]."),
        ({"sampler": None}, "`sampler` must be a text, but got None."),
        ({"without": {1}}, "`without` must be a text or several, but got {1}."),
        ({"space": 3}, "`space` must be a text or a path, but got 3."),
        ({"input_shapes": [8]}, "such as [(3, 32, 32)], but got [8]."),
        ({"input_shapes": [(8, 0)]}, "such as [(3, 32, 32)], but got [(8, 0)]."),
        ({"input_shapes": [(2.5,)]}, "such as [(3, 32, 32)], but got [(2.5,)]."),
        ({"input_shapes": "3,32"}, "such as [(3, 32, 32)], but got '3,32'."),
    ],
)
def test_option_of_another_type_is_one_clear_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        checked_options(_options(**given))
    assert said in caught.value.message


def test_defaults_and_numbers_of_other_libraries_are_taken() -> None:
    assert checked_options(_options()) == _options()
    checked = checked_options(
        _options(
            budget=np.int64(4),
            trial_timeout=60,
            input_shapes=[np.array([3, 8])],
            without=["table"],
            timeout="2h",
            max_drop=0.1,
            space=Path("mine.yaml"),
        )
    )
    assert type(checked["budget"]) is int
    assert checked["trial_timeout"] == 60.0
    assert checked["input_shapes"] == ((3, 8),)
