"""What must not change between two sessions of a study, and what is said when it did."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autocompress.atomic_file import write_atomically
from autocompress.errors import InputError, StudyMismatchError, first_line
from autocompress.option_readers import NAMES_OF_0_1
from autocompress.space.search_space import SearchSpace

FORMAT = 1
"""Of what is kept in a study."""


def current_label(label: str) -> str:
    """What a trial is called today, from what a study keeps: version 0.1 used other words.

    >>> current_label("sweep 2"), current_label("mild price of bits")
    ('initial 2', 'mild rate penalty')
    """
    return re.sub(r"^sweep (?=\d+$)", "initial ", label).replace("price of bits", "rate penalty")


def attributes_of(
    space: SearchSpace,
    objectives: Sequence[str],
    info: Mapping[str, Any],
    identity: Mapping[str, Any],
) -> dict[str, Any]:
    """What a new study says about itself, in the order in which it is to be written.

    Args:
        space: The knobs.
        objectives: Names.
        info: What describes the run.
        identity: What must not change; the last: a study without it was interrupted while made.
    """
    return {
        "format": FORMAT,
        "knobs": [dataclasses.asdict(knob) for knob in space.knobs],
        "methods": [dataclasses.asdict(method) for method in space.methods],
        "objectives": list(objectives),
        "info": dict(info),
        "identity": dict(identity),
    }


def write_info(folder: Path, attributes: Mapping[str, Any]) -> None:
    """Write `run.json`, the readable view of what a study says about itself.

    Raises:
        InputError: If it cannot be written.
    """
    view = {**attributes["info"], **attributes["identity"], "format": FORMAT}
    try:
        write_atomically(folder / "run.json", json.dumps(view, indent=2) + "\n")
    except OSError as error:
        raise InputError(
            f"The run folder {folder} must be writable, but: {first_line(error)}.",
            "Choose another place with `results=FOLDER`.",
        ) from error


def check_format(name: object, attributes: Mapping[str, Any]) -> None:
    """Refuse a study that another version of this package made.

    Args:
        name: What to call the study.
        attributes: What it says about itself.

    Raises:
        StudyMismatchError: If its format is another one.
    """
    if attributes.get("format") != FORMAT:
        raise StudyMismatchError(
            f"The study {name} must have format {FORMAT}, but has {attributes.get('format')}.",
            "Use the version of autocompress that made it, or start a new run with `name=NAME`.",
        )


def check_identity(name: object, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse to continue a study that was made for something else.

    Args:
        name: What to call the study.
        stored: Its identity, as JSON gives it back.
        wanted: Identity of this session.

    Raises:
        StudyMismatchError: If they differ; names what, then and now.
    """
    left_out = [NAMES_OF_0_1.get(part, part) for part in stored.get("without", ())]
    stored = {**stored, **({"without": sorted(left_out)} if "without" in stored else {})}
    then, now = _leaves(stored), _leaves(json.loads(json.dumps(wanted)))
    keys = [key for key in sorted({**then, **now}) if key in then or not _is_newer(key)]
    differing = [key for key in keys if then.get(key) != now.get(key)]
    if differing:
        what = "; ".join(
            f"{key}: {_short(then.get(key))} then, {_short(now.get(key))} now" for key in differing
        )
        raise StudyMismatchError(
            f"The study {name} was made for something else: {what}.",
            "Repeat the first command to resume it, or start a new run with `name=NAME`.",
        )


def _is_newer(key: str) -> bool:
    """Whether a key may be missing in a study: of a setting that came after it was made."""
    return key.startswith(("settings.", "recipe."))


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
