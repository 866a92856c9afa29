"""The zoo as tasks, made once."""

import functools
import importlib.util
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

_SHARE = (
    10  # of all combinations one in ten, evenly spread: the rest takes too long for each change
)


def _load(name: str, path: Path) -> ModuleType:
    """Under --import-mode=importlib tests cannot import each other; files are loaded by path."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


_SUITE = _load("conformance_suite", Path(__file__).with_name("suite.py"))
_TABLE = _load("conformance_table", Path(__file__).parents[2] / "scripts" / "conformance_table.py")
_ZOO = sys.modules["zoo"]  # loaded by the conftest above


@functools.cache
def _net(name: str) -> Any:
    model, inputs = _ZOO.build(name)
    return _SUITE.make_net(name, model, inputs)


@pytest.fixture(scope="session")
def suite() -> ModuleType:
    """The suite's functions and its table of techniques."""
    return _SUITE


@pytest.fixture(scope="session")
def net_of() -> Callable[[str], Any]:
    """A net of the zoo as a task, by name."""
    return _net


@pytest.fixture(scope="session")
def zoo_names() -> list[str]:
    """Names of all nets."""
    return sorted(_ZOO.ZOO)


@pytest.fixture(scope="session")
def docs_table() -> ModuleType:
    """The script that writes the table."""
    return _TABLE


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrise by the names of nets, techniques and pairs."""
    if "net_name" in metafunc.fixturenames:
        metafunc.parametrize("net_name", sorted(_ZOO.ZOO))
    if "technique_and_net" in metafunc.fixturenames:
        every = itertools.product(enumerate(_SUITE.BY_NAME), enumerate(sorted(_ZOO.ZOO)))
        metafunc.parametrize(
            "technique_and_net", [(t, n) for (i, t), (j, n) in every if (i + j) % _SHARE == 0]
        )
