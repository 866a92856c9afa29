"""Tables whose rows come from this package and, through entry points, from other installed ones.

A package adds a row by one line in its `pyproject.toml`:

    [project.entry-points."autocompress.quantizers"]
    my_quantizer = "my_package.quantizers:MY_QUANTIZER"

Names are read from the metadata of installed packages, which imports none of them. A row's module
is imported when the row is asked for by its name.
"""

import dataclasses
import functools
import importlib.metadata
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint
from typing import Any, Final, Generic, TypeVar, cast

from autocompress.errors import InputError, first_line, unknown_name

Row = TypeVar("Row")
_THIS_PACKAGE: Final = "autocompress"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Registry(Generic[Row]):
    """The built-in rows of a table, and those that other installed packages add.

    Attributes:
        kind: What a row is, as messages call it.
        group: Of the entry points that add rows.
        built_in: Name -> row of this package.
        is_row: Whether an object that was imported can be a row.
        reserved: Names that mean something without a row; no package may add one of them.
    """

    kind: str
    group: str
    built_in: Mapping[str, Row]
    is_row: Callable[[Any], bool]
    reserved: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every name once: reserved and built-in ones first. Nothing is imported."""
        return tuple(dict.fromkeys((*self.reserved, *self.built_in, *_added(self.group))))

    def check_name(self, name: str) -> None:
        """Check that a name has one meaning. Nothing is imported.

        Raises:
            InputError: If there is none of that name, or several packages have it.
        """
        if name not in self.names:
            raise unknown_name(self.kind, name, self.names)
        self._entry_point(name)

    def find(self, name: str) -> Row:
        """The row of a name; imports it if another package adds it.

        Raises:
            InputError: If there is none of that name, several packages have it, or it cannot be
                imported.
        """
        added = self._entry_point(name)
        if added is not None:
            return self._imported(added)
        if name not in self.built_in:
            raise unknown_name(self.kind, name, self.names)
        return self.built_in[name]

    def target_of(self, name: str) -> str | None:
        """`module:object` of a row that another package adds; None for other names.

        Raises:
            InputError: If several packages have the name.
        """
        added = self._entry_point(name)
        if added is None:
            return None
        return "".join(
            added.value.partition("[")[0].split()
        )  # a value may have [extras] and spaces

    def versions_of(self, name: str) -> dict[str, str]:
        """Distribution -> version of what a row is made of, besides this package.

        These are the distributions in the row's `packages`, where it has such an attribute, and the
        one that adds the row.

        Raises:
            InputError: As `find` does.
        """
        if name in self.reserved:
            self.check_name(name)
            return {}
        packages = getattr(self.find(name), "packages", ())
        versions = {package: importlib.metadata.version(package) for package in packages}
        added = self._entry_point(name)
        if added is not None and added.dist is not None:
            versions[added.dist.name] = added.dist.version
        return versions

    def install_command(self, name: str, extra: str) -> str:
        """The command that installs an extra of the package a row comes from."""
        added = self._entry_point(name)
        return f"pip install '{_THIS_PACKAGE if added is None else _package(added)}[{extra}]'"

    def _entry_point(self, name: str) -> EntryPoint | None:
        """What adds a row of that name, if anything does."""
        added = _added(self.group).get(name, ())
        packages = [_package(entry_point) for entry_point in added]
        if name in self.built_in or name in self.reserved:
            packages.insert(0, _THIS_PACKAGE)
        if len(packages) > 1:
            raise InputError(
                f"The {self.kind} {name!r} must come from one package, but these have one of that "
                f"name: {', '.join(packages)}.",
                "Uninstall all but one of them, or have the row renamed.",
            )
        return added[0] if added else None

    def _imported(self, added: EntryPoint) -> Row:
        what = f"The {self.kind} {added.name!r} of the package {_package(added)!r}"
        try:
            row = added.load()
        except (Exception, SystemExit) as error:  # a module may raise anything
            raise InputError(
                f"{what} must be importable, but its entry point {added.value!r} raised "
                f"{type(error).__name__}: {first_line(error)}.",
                "Update or uninstall that package.",
            ) from error
        if not self.is_row(row):
            raise InputError(
                f"{what} must be what {self.group!r} asks for, but its entry point "
                f"{added.value!r} is of type {type(row).__name__}.",
                "Update or uninstall that package.",
            )
        return cast(Row, row)


def _added(group: str) -> Mapping[str, tuple[EntryPoint, ...]]:
    """Name -> entry points of a group in the packages that can be imported now."""
    return _read(group, tuple(sys.path))


@functools.lru_cache(maxsize=64)
def _read(group: str, path: tuple[str, ...]) -> Mapping[str, tuple[EntryPoint, ...]]:
    """`path` is where packages are looked for: what is found there is kept."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry_point in importlib.metadata.entry_points(group=group):
        found[entry_point.name] = (*found.get(entry_point.name, ()), entry_point)
    return found


def _package(entry_point: EntryPoint) -> str:
    return "?" if entry_point.dist is None else entry_point.dist.name
