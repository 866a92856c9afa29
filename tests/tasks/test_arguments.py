from pathlib import Path
from typing import Any, Literal, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.errors import InputError
from autocompress.tasks.arguments import convert_arguments


def _every_type(
    data: Path,
    text: str,
    n: int,
    rate: float,
    is_big: bool,
    maybe: Optional[int] = None,  # noqa: UP045 - the older spelling is what is tested
    other: "Path | None" = None,
    bare="x",
    bare_depth=20,
    bare_folder=Path(),
    anything: Any = None,
):
    """Nothing happens here: only the signature counts."""


_NEEDED = {"data": "/a/b", "text": "3", "n": "-4", "rate": "1e-3", "is_big": "Yes"}


def _message(factory, arguments):
    with pytest.raises(InputError) as caught:
        convert_arguments(factory, arguments, "my.py:task")
    return f"{caught.value.message} {caught.value.hint}"


def test_convert_arguments_goes_by_the_annotations():
    converted = convert_arguments(_every_type, _NEEDED, "my.py:task")

    assert converted == {
        "data": Path("/a/b"),
        "text": "3",
        "n": -4,
        "rate": 0.001,
        "is_big": True,
    }
    assert type(converted["is_big"]) is bool


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("maybe", "7", 7),
        ("maybe", "None", None),
        ("other", "none", None),
        ("other", "weights.bin", Path("weights.bin")),
        ("bare", "12", "12"),
        ("bare_depth", "56", 56),
        ("bare_folder", "here", Path("here")),
        ("anything", "12", "12"),
    ],
)
def test_convert_arguments_takes_optional_and_bare_parameters(name, text, value):
    assert convert_arguments(_every_type, {**_NEEDED, name: text}, "")[name] == value


@given(st.integers(), st.floats(allow_nan=False), st.booleans())
def test_convert_arguments_inverts_str(n, rate, is_big):
    arguments = {**_NEEDED, "n": str(n), "rate": str(rate), "is_big": str(is_big)}

    converted = convert_arguments(_every_type, arguments, "")

    assert (converted["n"], converted["rate"], converted["is_big"]) == (n, rate, is_big)


def test_convert_arguments_expands_the_home_folder():
    assert (
        convert_arguments(_every_type, {**_NEEDED, "data": "~/x"}, "")["data"] == Path.home() / "x"
    )


def test_convert_arguments_hands_unknown_ones_to_keywords():
    def factory(n: int, **rest):
        """Takes anything."""

    assert convert_arguments(factory, {"n": "1", "x": "1"}, "") == {"n": 1, "x": "1"}


def test_convert_arguments_reads_the_constructor_of_a_class():
    class Factory:
        def __init__(self, n: int) -> None:
            self.n = n

    assert convert_arguments(Factory, {"n": "5"}, "") == {"n": 5}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("n", "4.5", "must be int, but got '4.5'"),
        ("n", "none", "must be int, but got 'none'"),
        ("rate", "fast", "must be float, but got 'fast'"),
        ("is_big", "maybe", "must be bool, but got 'maybe'"),
        ("maybe", "x", "'maybe' of my.py:task must be int, but got 'x'"),
    ],
)
def test_convert_arguments_says_what_type_must_come(name, text, expected):
    assert expected in _message(_every_type, {**_NEEDED, name: text})


def test_convert_arguments_lists_the_parameters_when_one_is_unknown():
    def factory(depth: int = 20, width: int = 16):
        """Two parameters."""

    message = _message(factory, {"dept": "3"})

    assert "my.py:task has no parameter 'dept' (given by `arguments.dept`)." in message
    assert "Did you mean 'depth'? It takes: depth, width." in message


def test_convert_arguments_says_when_data_is_not_taken():
    message = _message(lambda: None, {"data": "folder"})

    assert "no parameter 'data' (given by `arguments.data`). It takes no arguments." in message


@pytest.mark.parametrize(
    ("name", "option"), [("data", "`arguments.data=FOLDER`"), ("n", "`arguments.n=...`")]
)
def test_convert_arguments_names_the_option_of_a_missing_argument(name, option):
    arguments = {key: text for key, text in _NEEDED.items() if key != name}

    assert f"needs the argument {name!r}, but none was given. Add {option}." in _message(
        _every_type, arguments
    )


def test_convert_arguments_refuses_annotations_it_cannot_fill():
    def factory(mode: Literal["a", "b"], size: "Nowhere" = 0):  # noqa: F821 - must not resolve
        """Neither can come from text."""

    assert "must be names known in its file, but: name 'Nowhere'" in _message(
        factory, {"mode": "a"}
    )
    factory.__annotations__.pop("size")
    assert "must be annotated as str, int, float, bool or Path" in _message(factory, {"mode": "a"})


def test_convert_arguments_refuses_positional_only_parameters():
    def factory(data, /):
        """Cannot be called by name."""

    assert "'data' of my.py:task is positional-only" in _message(factory, {})


def test_convert_arguments_reads_what_an_environment_variable_holds(monkeypatch):
    monkeypatch.setenv("MY_N", "12")
    monkeypatch.setenv("MY_TEXT", "env:MY_N")
    arguments = {**_NEEDED, "n": "env:MY_N", "text": "env:MY_TEXT"}
    converted = convert_arguments(_every_type, arguments, "my.py:task")
    assert (converted["n"], converted["text"]) == (12, "env:MY_N")

    monkeypatch.setenv("MY_N", "hush")
    assert "hush" not in _message(_every_type, arguments)
    monkeypatch.delenv("MY_N")
    assert "'MY_N', which is not set" in _message(_every_type, arguments)
