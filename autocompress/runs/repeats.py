"""Runs that repeat another with a different seed: what error bars are made of."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autocompress.errors import AutocompressError
from autocompress.run_record import RunRecord
from autocompress.storages.sqlite import DAMAGE, read_identity, reading
from autocompress.study.records import record_of


def find_repeats(run: RunRecord) -> tuple[RunRecord, ...]:
    """Find the runs beside one that differ from it in nothing but their seed.

    A repeat must have finished at least as many trials; it is cut to the first so many, so that no
    seed had a larger budget than another. Of several with the same seed the first by name counts.
    Runs that cannot be read are passed over.

    Args:
        run: As it is now; the siblings of its folder are looked at and only read.

    Returns:
        The repeats, cut, in order of their seeds; without the run itself.
    """
    here = run.folder.resolve()
    identity = _identity(here / "study.db")
    if not identity or run.n_finished == 0:
        return ()
    by_seed: dict[int, RunRecord] = {}
    for path in sorted(here.parent.glob("*/study.db")):
        other = _identity(path)
        if not other or _without_seed(other) != _without_seed(identity):
            continue
        repeat = None if other["seed"] in (identity["seed"], *by_seed) else _load(path)
        if repeat is not None and repeat.n_finished >= run.n_finished:
            by_seed[other["seed"]] = repeat.after(run.n_finished)
    return tuple(by_seed[seed] for seed in sorted(by_seed))


def _identity(path: Path) -> dict[str, Any]:
    """What a study was made for; empty if it does not say so or cannot be read."""
    try:
        identity = read_identity(path)
    except sqlite3.Error:
        return {}
    return identity if "seed" in identity else {}


def _without_seed(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in identity.items() if key != "seed"}


def _load(path: Path) -> RunRecord | None:
    try:
        with reading(path) as study:
            return record_of(path.parent, study)
    except (*DAMAGE, AutocompressError):
        return None
