"""What must not change between two sessions of a study, and what is said when it did."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autocompress.errors import StudyMismatchError

FORMAT = 1
"""Of what is kept in a study."""


def check_format(path: Path, attributes: Mapping[str, Any]) -> None:
    """Refuse a study that another version of this package made.

    Args:
        path: Where the study lies.
        attributes: What it says about itself.

    Raises:
        StudyMismatchError: If its format is another one.
    """
    if attributes.get("format") != FORMAT:
        raise StudyMismatchError(
            f"The study {path} must have format {FORMAT}, but has {attributes.get('format')}.",
            "Use the version of autocompress that made it, or start a new run with --run NAME.",
        )


def check_identity(path: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse to continue a study that was made for something else.

    Args:
        path: Where the study lies.
        stored: Its identity, as JSON gives it back.
        wanted: Identity of this session.

    Raises:
        StudyMismatchError: If they differ; names what, then and now.
    """
    then, now = _leaves(stored), _leaves(json.loads(json.dumps(wanted)))
    differing = [key for key in sorted({**then, **now}) if then.get(key) != now.get(key)]
    if differing:
        what = "; ".join(
            f"{key}: {_short(then.get(key))} then, {_short(now.get(key))} now" for key in differing
        )
        raise StudyMismatchError(
            f"The study {path} was made for something else: {what}.",
            "Repeat the first command to resume it, or start a new run with --run NAME.",
        )


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as one level of dotted keys."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            leaves.update(_leaves(value, f"{prefix}{key}."))
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
