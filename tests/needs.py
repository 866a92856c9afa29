"""What a test needs beyond `make test`: an optional extra of the package, a program, real data.

Reasons for skipping are alike, so that the end of a test run can count them (tests/conftest.py).
"""

import functools
import importlib.metadata
import os
import shutil
from pathlib import Path

import pytest
from packaging.requirements import Requirement


@functools.cache
def missing_packages(extra: str) -> tuple[str, ...]:
    """Packages of an extra that are not installed."""
    requirements = map(Requirement, importlib.metadata.requires("autocompress") or ())
    wanted = [r for r in requirements if r.marker and _belongs_to(r, extra)]
    assert wanted, f"pyproject.toml has no extra {extra!r}"
    return tuple(r.name for r in wanted if not _is_installed(r.name))


def need_extra(extra: str) -> None:
    """Skip the test, or the module that calls this, where an extra is not installed."""
    if missing_packages(extra):
        pytest.skip(f"needs the extra {extra}: {install_command(extra)}", allow_module_level=True)


def install_command(extra: str) -> str:
    """The command that installs an extra in a checkout."""
    return f"pip install -c constraints.txt -e '.[{extra}]'"


def need_program(*names: str) -> str:
    """Path of the first of these programs that is on the PATH; skips where there is none."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"needs a program on the PATH: {names[0]}", allow_module_level=True)
    return found


def need_data(*names: str) -> Path:
    """The folder of real data, which holds these files or folders; skips where it does not."""
    folder = os.environ.get("AUTOCOMPRESS_DATA")
    if not folder or not all((Path(folder) / name).exists() for name in names):
        pytest.skip(f"needs AUTOCOMPRESS_DATA, a folder that holds {' and '.join(names)}")
    return Path(folder)


def _belongs_to(requirement: Requirement, extra: str) -> bool:
    assert requirement.marker is not None
    return requirement.marker.evaluate({"extra": extra}) and not requirement.marker.evaluate(
        {"extra": ""}
    )


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
