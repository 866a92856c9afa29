"""All runtimes by name: adding one here is all it takes to have it timed, exported and tested."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from autocompress.entry_points import Registry
from autocompress.errors import InputError
from autocompress.runtime.base import Runtime
from autocompress.runtime.executorch import ExecuTorch
from autocompress.runtime.onnxruntime import OnnxRuntime
from autocompress.runtime.openvino import OpenVino
from autocompress.runtime.torch_export import TorchExport

RUNTIMES: Final[tuple[Runtime, ...]] = (
    OnnxRuntime(),
    OpenVino("openvino", "f32"),
    OpenVino("openvino_bf16", "bf16"),
    ExecuTorch(),
    TorchExport(),
)
RUNTIME_REGISTRY: Final[Registry[Runtime]] = Registry(
    kind="runtime",
    group="autocompress.runtimes",
    built_in={runtime.name: runtime for runtime in RUNTIMES},
    is_row=lambda row: isinstance(row, Runtime),
)


def known_runtime(name: str) -> Runtime:
    """The runtime of that name, whose own packages may be missing.

    Raises:
        InputError: If there is none.
    """
    found = RUNTIME_REGISTRY.find(name)
    if found.name != name:
        raise InputError(
            f"The runtime {name!r} must have that name, but calls itself {found.name!r}."
        )
    return found


def find_runtime(name: str) -> Runtime:
    """The runtime of that name, ready to be used.

    Raises:
        InputError: If there is none, or it is not installed.
    """
    found = known_runtime(name)
    if not is_installed(found):
        raise InputError(
            f"The runtime {name!r} needs the package {found.packages[0]!r}, which is not "
            "installed.",
            f"Install it with: {RUNTIME_REGISTRY.install_command(name, found.extra)}",
        )
    return found


def runtimes_for(path: Path, names: Sequence[str] = ()) -> tuple[Runtime, ...]:
    """The runtimes among `names` that open a file, or the first built-in one that does.

    Raises:
        InputError: If none opens it, one is not installed, or it may run more than a model.
    """
    asked = [*RUNTIMES, *map(known_runtime, _added(names))]
    usable = [r for r in asked if path.suffix in r.opens]
    found = [r for r in usable if r.name in names] if names else usable[:1]
    unsafe = next((r for r in found if not r.is_safe_to_open), None)
    if unsafe is not None:
        raise InputError(
            f"{path}: {unsafe.title} files are not opened, since they can run any code.",
            "Give the ONNX or packed file of the same bundle.",
        )
    if not found:
        endings = dict.fromkeys(end for r in asked if r.is_safe_to_open for end in r.opens)
        who = f"one of {', '.join(names)}" if names else "a runtime"
        raise InputError(
            f"{path}: no file that {who} opens.", f"Files end in {', '.join(endings)}."
        )
    return tuple(find_runtime(runtime.name) for runtime in found)


def is_installed(runtime: Runtime) -> bool:
    """Whether a runtime's package is there; it is not imported."""
    return importlib.util.find_spec(runtime.packages[0]) is not None


def versions_of(runtime: Runtime) -> dict[str, str]:
    """Distribution -> its version, of all that a runtime's figures depend on."""
    return RUNTIME_REGISTRY.versions_of(runtime.name)


def _added(names: Sequence[str]) -> list[str]:
    """Those of `names` that other packages add."""
    return [name for name in names if name not in RUNTIME_REGISTRY.built_in]
