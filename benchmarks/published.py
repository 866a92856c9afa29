"""Where a benchmark's figures are published: under results/, hardware and version in the name."""

import importlib.metadata
from pathlib import Path
from typing import Final

from autocompress.environment import describe_environment

PICTURE_STYLE: Final = {"svg.hashsalt": "autocompress", "font.size": 9, "svg.fonttype": "none"}
"""Matplotlib settings with which equal figures are equal files."""

_RESULTS = Path(__file__).parents[1] / "results"


def result_path(name: str, suffix: str) -> Path:
    """`results/NAME-intel-xeon-2cores-torch2.13.0.SUFFIX`."""
    hardware = describe_environment()["hardware"]
    processor = "-".join(hardware["processor"].lower().replace("(r)", "").split()[:2])
    version = importlib.metadata.version("torch").split("+")[0]
    return _RESULTS / f"{name}-{processor}-{hardware['n_cores']}cores-torch{version}.{suffix}"
