"""An option is written once: the fields, the flags and the arguments of Python are the same."""

import dataclasses
import inspect
import json
import pickle
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

import autocompress as ac
from autocompress.cli.main import cli, in_flags
from autocompress.cli.options import flag_of
from autocompress.errors import InputError
from autocompress.evaluate.settings import EvaluationSettings
from autocompress.option_readers import Typed
from autocompress.search_options import GROUPS, SearchOptions, default_of, names_of, option_of

NOT_OPTIONS = {"task", "arguments", "quiet", "watch"}


def test_python_takes_every_option_with_the_same_default() -> None:
    parameters = inspect.signature(ac.search).parameters
    assert {name: p.default for name, p in parameters.items() if name not in NOT_OPTIONS} == {
        name: default_of(name) for name in names_of()
    }


def test_command_line_has_a_flag_for_every_option() -> None:
    command = cli.get_command(click.Context(cli), "search")
    assert command is not None
    flags = {option.name: option.opts for option in command.params}
    assert {name: flags[name] for name in names_of()} == {
        name: [flag_of(name)] for name in names_of()
    }


def test_help_shows_every_group_of_options() -> None:
    command = cli.get_command(click.Context(cli), "search")
    assert command is not None
    shown = command.get_help(click.Context(command, info_name="search"))
    assert [line.rstrip(":") for line in shown.splitlines() if line.rstrip(":") in GROUPS] == [
        *GROUPS
    ]


def test_settings_are_fields_of_the_evaluation() -> None:
    fields = {field.name for field in dataclasses.fields(EvaluationSettings)}
    assert set(names_of("setting")) <= fields


@pytest.mark.parametrize("name", names_of())
def test_no_option_may_be_any_object(name: str) -> None:
    with pytest.raises(InputError, match=f"^`{name}` must be .*, but got <object object"):
        SearchOptions.read({name: object()})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"budget": "5"}, "`budget` must be a whole number, but got '5'."),
        ({"budget": 2.5}, "`budget` must be a whole number, but got 2.5."),
        ({"budget": 0}, "`budget` must be at least 1, but got 0."),
        ({"seed": "a"}, "`seed` must be a whole number, but got 'a'."),
        ({"seed": True}, "`seed` must be a whole number, but got True."),
        ({"threads": 1.0}, "`threads` must be a whole number, but got 1.0."),
        ({"threads": 0}, "`threads` must be at least 1, but got 0."),
        ({"refine": -1}, "`refine` must be at least 0, but got -1."),
        ({"timeout": 0}, "`timeout` must be more than 0 s, but got 0."),
        ({"trial_timeout": "-1"}, "`trial_timeout` must be a time in s, m or h, but got '-1'."),
        ({"max_size": [1]}, "`max_size` must be a number, or a text with its unit, but got [1]."),
        ({"max_drop": 1.5}, "`max_drop` must be a share in [0, 1], or points as 1% or 1pt"),
        ({"sampler": None}, "`sampler` must be a text, but got None."),
        ({"without": {1}}, "`without` must be a text or several, but got {1}."),
        ({"space": 3}, "`space` must be a text or a path, but got 3."),
        ({"integer": "both"}, "Unknown value of `integer` 'both'."),
        ({"input_shapes": [8]}, "such as [(3, 32, 32)], but got [8]."),
        ({"input_shapes": [(8, 0)]}, "such as [(3, 32, 32)], but got [(8, 0)]."),
        ({"input_shapes": [(2.5,)]}, "such as [(3, 32, 32)], but got [(2.5,)]."),
        ({"input_shapes": "3,32"}, "such as [(3, 32, 32)], but got '3,32'."),
        ({"budget": Typed("x")}, "`budget` must be a whole number, but got 'x'."),
    ],
)
def test_option_of_another_type_or_range_is_one_clear_line(
    given: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError) as caught:
        SearchOptions.read(given)
    assert said in caught.value.message


def test_numbers_of_other_libraries_and_texts_with_units_are_taken(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").touch()
    options = SearchOptions.read(
        {
            "budget": np.int64(4),
            "trial_timeout": 60,
            "input_shapes": [np.array([3, 8])],
            "without": ["surrogate"],
            "timeout": "2h",
            "max_drop": "1pt",
            "max_size": "1.5 MiB",
            "max_latency": "250us",
            "space": tmp_path / "mine.yaml",
            "objectives": ["accuracy", "size"],
            "track": "mlflow",
        }
    )
    assert type(options.budget) is int
    assert (options.trial_timeout, options.timeout) == (60.0, 7200.0)
    assert options.input_shapes == ((3, 8),)
    assert options.without == {"surrogate"}
    assert (options.max_drop, options.max_size, options.max_latency) == (0.01, 1572864, 0.25)
    assert options.space == str(tmp_path / "mine.yaml")
    assert (options.objectives, options.track) == ("accuracy,size", ("mlflow",))


def test_typed_text_is_read_as_the_value_of_python() -> None:
    typed = {
        "budget": Typed("7"),
        "input_shapes": (Typed("3,8"), Typed("4")),
        "without": Typed("table, seeds"),
        "trial_memory": Typed("4GB"),
    }
    assert SearchOptions.read(typed) == SearchOptions(
        budget=7,
        input_shapes=((3, 8), (4,)),
        without=frozenset({"sensitivity_table", "initial_design"}),
        trial_memory=4 * 10**9,
    )


def test_from_json_inverts_to_json_and_leaves_out_what_belongs_to_a_session() -> None:
    options = SearchOptions.read(
        {
            "budget": 9,
            "max_size": "1kB",
            "without": "surrogate",
            "input_shapes": [(3, 8)],
            "seed": 3,
        }
    )
    kept = json.loads(json.dumps(options.to_json()))
    assert SearchOptions.from_json(kept) == options
    session = names_of("session")
    assert not kept.keys() & {*session}
    assert {"timeout", "track", "storage"} <= {*session}  # a URI may hold a password


def test_from_json_reads_what_version_0_1_kept() -> None:
    kept = {
        "budget": 10, "max_drop": "20%", "max_size": "100kB", "max_latency": None, "without": None,
        "input_shapes": ["3,8"], "trial_memory": "4GB", "trial_timeout": 7200.0, "threads": 2,
    }  # fmt: skip
    assert SearchOptions.from_json(kept) == SearchOptions(
        budget=10,
        max_drop=0.2,
        max_size=100_000,
        input_shapes=((3, 8),),
        trial_memory=4 * 10**9,
        threads=2,
    )


@pytest.mark.parametrize("kept", [{"colour": 1}, {"budget": "many"}, None, 5])
def test_from_json_refuses_what_makes_no_sense(kept: Any) -> None:
    with pytest.raises(InputError):
        SearchOptions.from_json(kept)


@pytest.mark.parametrize(
    ("message", "hint", "typed"),
    [
        ("`max_drop` must be.", "For example: `max_drop=1%`.",
         ("`--max-drop` must be.", "For example: --max-drop 1%.")),
        ("`name` must be.", "Or `name=NAME`.", ("`--run` must be.", "Or --run NAME.")),
        ("`loss` must be.", "Set `model`.", ("`loss` must be.", "Set `model`.")),
        ("", "Name it: `arguments.kind=...`", ("", "Name it: --task-arg kind=...")),
        ("(given by `arguments.data`)", "", ("(given by `--data`)", "")),
        ("`trial` must be.", "", ("`--trial` must be.", "")),
    ],
)  # fmt: skip
def test_command_line_calls_options_by_their_flags(
    message: str, hint: str, typed: tuple[str, str]
) -> None:
    assert in_flags(message, hint, ["--debug", "export"]) == typed


def test_every_option_says_what_it_means() -> None:
    for name in names_of():
        option = option_of(name)
        assert option.help.endswith("."), name
        assert option.group in GROUPS, name


def test_search_is_a_function_that_help_shows_and_pickle_takes() -> None:
    assert inspect.isfunction(ac.search)
    assert pickle.loads(pickle.dumps(ac.search)) is ac.search
    assert "Search for the Pareto front" in (ac.search.__doc__ or "")
