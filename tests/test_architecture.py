"""The laws of docs/design.md that can be read from the source."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import click
import pytest

import autocompress
from autocompress.cli.main import cli

ROOT = Path(autocompress.__file__).parent
# A room imports only from rooms on floors below its own, and from itself.
FLOORS = (
    {"errors"},
    {
        "accuracy_scale",
        "atomic_file",
        "entry_points",
        "environment",
        "measurement",
        "pareto",
        "quantities",
        "technique",
    },
    {"objective", "plan", "tasks"},
    {"analysis", "option_readers"},
    {"compress", "search_options"},
    {"space", "train", "onnx_graph"},
    {"run_record", "packing"},
    {"runtime", "samplers", "storages", "report"},
    {"evaluate"},
    {"executors"},
    {"study"},
    {"runs", "export"},
    {"terminal"},
    {"api"},
    {"cli"},
    {"__main__", "__init__"},  # the public names, imported lazily
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
OPTUNA_ROOMS = {"storages", "samplers", "study", "runs"}
FILES = sorted(ROOT.rglob("*.py"))
# A reader of one official format, which admits arrays and plain containers only
PICKLE_READERS = {"autocompress.tasks.cifar10_pickle"}
MAX_LINES = 450  # at 300 lines ask what the second idea in a file is


def _module(path: Path) -> str:
    parts = ["autocompress", *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def _is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


@functools.cache
def _imports(path: Path, *, at_import: bool = False) -> set[str]:
    """Modules a file imports; with `at_import` only those it needs to be imported itself."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively in line {node.lineno}"
            found |= _targets_of(node)
        is_later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if not (at_import and (is_later or _is_for_types_only(node))):
            waiting += ast.iter_child_nodes(node)
    return found


def _targets_of(node: ast.ImportFrom) -> set[str]:
    """`from a.b import c` imports the module a.b.c if there is one, else a.b."""
    module = node.module or ""
    folder = ROOT.parent.joinpath(*module.split("."))
    return {
        f"{module}.{alias.name}"
        if (folder / f"{alias.name}.py").exists() or (folder / alias.name).is_dir()
        else module
        for alias in node.names
    }


def _own(names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] == "autocompress"}


def _find_circle(graph: dict[str, set[str]]) -> list[str]:
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for follower in sorted(graph.get(name, ())):
            if circle := walk(follower, [*path, name]):
                return circle
        done.add(name)
        return []

    return next((circle for name in sorted(graph) if (circle := walk(name, []))), [])


def test_rooms_import_only_from_floors_below():
    offenders = [
        f"{_module(path)} imports {name}"
        for path in FILES
        for name in sorted(_own(_imports(path)))
        if _room(name) != _room(_module(path))
        and FLOOR_OF[_room(name)] >= FLOOR_OF[_room(_module(path))]
    ]
    assert offenders == []


def test_files_import_the_defining_file_and_not_a_package():
    offenders = [
        f"{_module(path)} imports {name}"
        for path in FILES
        for name in sorted(_own(_imports(path)) - {"autocompress"})
        if ROOT.parent.joinpath(*name.split(".")).is_dir()
    ]
    assert offenders == []


def test_files_are_short_and_explain_themselves():
    offenders = []
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        if len(text.splitlines()) > MAX_LINES or "TODO" in text:
            offenders.append(f"{_module(path)} is too long or unfinished")
        if not ast.get_docstring(ast.parse(text)):
            offenders.append(f"{_module(path)} has no docstring")
    assert offenders == []


def test_imports_have_no_circle():
    graph = {_module(path): _own(_imports(path)) - {_module(path)} for path in FILES}
    assert _find_circle(graph) == []


def test_find_circle_finds_one():
    assert _find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert _find_circle({"a": {"b", "c"}, "b": {"c"}}) == []


def test_only_rooms_of_the_study_import_optuna():
    importers = {_module(p) for p in FILES if _has(_imports(p), "optuna")}
    assert importers
    assert {_room(name) for name in importers} == OPTUNA_ROOMS


@pytest.mark.parametrize(
    "library", ["pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"]
)
def test_nothing_unpickles(library):
    assert {_module(p) for p in FILES if _has(_imports(p), library)} <= PICKLE_READERS


def test_torch_load_always_says_weights_only():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert keywords.get("weights_only") == "True", f"{path}:{node.lineno}"


def test_yaml_is_never_loaded_by_an_unsafe_loader():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "yaml":
                assert node.attr not in {"UnsafeLoader", "FullLoader", "Loader", "unsafe_load"}


@pytest.mark.parametrize("room", ["pareto", "plan", "measurement", "objective", "run_record"])
def test_plain_data_knows_no_torch(room):
    assert "torch" not in _loaded_by(f"autocompress.{room}")


def test_report_knows_neither_torch_nor_optuna():
    modules = [_module(p) for p in FILES if _room(_module(p)) == "report"]
    assert not {"torch", "optuna"} & _loaded_by(*modules)


HEAVY = {"torch", "optuna", "pandas", "plotly", "sklearn", "onnx", "scipy", "rich"}


@pytest.mark.parametrize(
    "modules",
    [
        ("autocompress",),
        tuple(
            f"autocompress.cli.{command}"
            for command in ("main", *cli.list_commands(click.Context(cli)))
        ),
    ],
    ids=["library", "commands"],
)
def test_import_is_light(modules):
    """`--help` and `import autocompress` wait for nothing."""
    assert not (HEAVY | {"onnxruntime"}) & _loaded_by(*modules)


def test_process_that_runs_a_file_imports_only_its_runtime():
    """Every file that is timed starts one: two seconds of PyTorch each would count."""
    assert not HEAVY & _loaded_by("autocompress.runtime.child")


def _has(names: set[str], library: str) -> bool:
    return any(name.split(".")[0] == library for name in names)


def _loaded_by(*modules: str) -> set[str]:
    """Top-level packages that importing `modules` pulls into a fresh interpreter."""
    code = (
        f"import sys, {', '.join(modules)}; print(*{{name.split('.')[0] for name in sys.modules}})"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return set(output.stdout.split())
