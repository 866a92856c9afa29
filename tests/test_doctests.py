"""Every example in a docstring is run."""

import doctest
import importlib
import pkgutil

import pytest

import autocompress


def _with_examples():
    for module in pkgutil.walk_packages(autocompress.__path__, "autocompress."):
        if module.name == "autocompress.__main__":
            continue
        source = importlib.util.find_spec(module.name).loader.get_source(module.name)
        if ">>> " in source:
            yield module.name


@pytest.mark.parametrize("name", sorted(_with_examples()))
def test_docstring_examples_are_right(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
