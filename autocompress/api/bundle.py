"""An exported point, as Python sees it."""

import dataclasses
import html
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """The folder of one exported point.

    Attributes:
        folder: Where it is.
        manifest: What it says of itself: hashes, measurements, versions.
    """

    folder: Path
    manifest: Mapping[str, Any] = dataclasses.field(repr=False)

    @property
    def accuracy(self) -> float:
        """Of the exported file: on test, or on val if the task has no test split."""
        found = self.manifest["measurements"]
        return float(
            found["val_accuracy"] if found["test_accuracy"] is None else found["test_accuracy"]
        )

    @property
    def size_bytes(self) -> int:
        """Of the packed file."""
        return int(self.manifest["measurements"]["size_bytes"])

    @property
    def compression(self) -> float:
        """How many times smaller than the original model's packed file."""
        return float(self.manifest["baseline"]["size_bytes"] / self.size_bytes)

    @property
    def files(self) -> dict[str, Path]:
        """Name -> path of every file in it."""
        return {path.name: path for path in sorted(self.folder.iterdir())}

    def load(self, model: "nn.Module") -> "nn.Module":
        """The exported point as a PyTorch model; see `autocompress.load`.

        Args:
            model: The uncompressed architecture, with any weights.
        """
        from autocompress.export.load import load

        return load(self.folder / "model.acz", model)

    def _repr_html_(self) -> str:
        rows = {
            "folder": str(self.folder),
            "accuracy": f"{self.accuracy:.2%}",
            "size": f"{self.size_bytes:,} bytes, {self.compression:.1f}x smaller",
            "files": ", ".join(self.files),
        }
        cells = "".join(f"<tr><th>{k}</th><td>{html.escape(v)}</td></tr>" for k, v in rows.items())
        return f"<table>{cells}</table>"
