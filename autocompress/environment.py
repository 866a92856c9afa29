"""This machine and what is installed on it, as runs and bundles say it."""

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

_PACKAGES = ("autocompress", "torch", "optuna", "torch-pruning", "onnx", "onnxruntime", "numpy")


def describe_environment() -> dict[str, Any]:
    """Versions and hardware of this machine, as JSON.

    Returns:
        `versions` (package -> version), `hardware` (processor, cores, memory in GiB, system) and
        `started`, the time in UTC.
    """
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
        "hardware": {
            "processor": processor_name(),
            "n_cores": n_usable_cores(),
            "memory_gib": _memory_gib(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def n_usable_cores() -> int:
    """Processor cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor_name() -> str:
    """Name of the processor, as precisely as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None
