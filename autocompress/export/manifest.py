"""What a bundle's manifest must look like to be believed: it may come from anywhere."""

import json
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from autocompress.errors import InputError, first_line, one_line
from autocompress.space.rules import problem_of

FORMAT: Final = 2
MANIFEST: Final = "manifest.json"
CARD: Final = "README.md"
_MOST_BYTES: Final = 16 * 2**20
_MOST_THREADS: Final = 256


def _readable(text: str) -> str:
    if one_line(text) != text:
        msg = f"a text holds control characters: {text!a}"
        raise ValueError(msg)
    return text


def _plain_name(name: str) -> str:
    if Path(name).name != name:
        msg = "a file lies outside the bundle"
        raise ValueError(msg)
    return name


PROMISED: Final = ("model.acz", "model.onnx", "plan.json")
"""Files that every bundle has."""

Text = Annotated[str, AfterValidator(_readable)]
Name = Annotated[str, AfterValidator(_plain_name), AfterValidator(_readable)]
Size = Annotated[int, Field(ge=0)]
Figure = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=4096)]


class _Digest(BaseModel):
    sha256: Text
    size_bytes: Size


class _Written(BaseModel):
    """What is promised of one runtime's file."""

    file: Name
    versions: dict[Text, Text]
    size_bytes: Size
    val_accuracy: Figure | None
    test_accuracy: Figure | None
    held_out_accuracy: Figure | None
    speedup: Figure
    speedup_low: Figure
    speedup_high: Figure


class _Refused(BaseModel):
    file: Name
    error: Text


class _Timed(BaseModel):
    threads: Annotated[int, Field(ge=1, le=_MOST_THREADS)]
    batch: Count


class _Measured(BaseModel):
    size_bytes: Size


class _Hardware(BaseModel):
    processor: Text


class _Environment(BaseModel):
    hardware: _Hardware


def _promising(files: dict[str, _Digest]) -> dict[str, _Digest]:
    """Refuse a manifest that promises nothing of what a bundle is for."""
    missing = [name for name in PROMISED if name not in files]
    if missing:
        raise ValueError(f"it must promise {', '.join(missing)}")
    return files


class _Manifest(BaseModel):
    """What is read of a manifest, which may come from anywhere."""

    files: Annotated[dict[Name, _Digest], AfterValidator(_promising)]
    measurements: _Measured
    timed: _Timed
    runtimes: dict[Text, _Refused | _Written]
    environment: _Environment


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle.

    Raises:
        InputError: If it cannot be read, or is of another format.
    """
    path = folder / MANIFEST
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES} bytes")
        manifest = json.loads(content)
        found = manifest["format"]
        if found == FORMAT:
            _Manifest.model_validate(manifest)
    except OSError as error:
        raise InputError(
            f"{folder} must be a bundle with a {MANIFEST}, but: {first_line(error)}.",
            "Give a folder that `autocompress export` wrote.",
        ) from error
    except ValidationError as error:
        raise InputError(f"The manifest {path} makes no sense at {problem_of(error)}.") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"The manifest {path} makes no sense: {first_line(error)}.") from error
    if found != FORMAT:
        raise InputError(
            f"The manifest {path} must have format {FORMAT}, but has {found}.",
            "Export the point again.",
        )
    return dict(manifest)
