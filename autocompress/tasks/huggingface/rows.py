"""Rows of a data set: splits of a folder, a file or a name on the hub, and the columns in them."""

import csv
import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from autocompress.errors import InputError, first_line, unknown_name
from autocompress.tasks.huggingface.extra import datasets

_BOUNDLESS = 10**9  # a tokenizer without a limit says 10^30
# RoBERTa and its kin number positions from the padding token's number on.
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "longformer", "mpnet", "data2vec-text")


def longest_input(config: Any, tokenizer: Any | None) -> int | None:
    """Most tokens a model takes; None if nothing says so."""
    limits = [
        getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "n_ctx")
    ]
    if getattr(config, "model_type", "") in _OFFSET_POSITIONS and limits[0]:
        limits[0] -= (config.pad_token_id or 0) + 1
    limits.append(getattr(tokenizer, "model_max_length", None))
    found = [int(x) for x in limits if isinstance(x, int | float) and 0 < x < _BOUNDLESS]
    return min(found, default=None)


def check_ids(ids: Tensor, config: Any) -> None:
    """Refuse tokens that the model has no embedding for.

    Raises:
        InputError: If there are any: tokenizer and model do not belong together.
    """
    n_tokens = getattr(config, "vocab_size", None)
    if n_tokens is not None and ids.numel() and int(ids.max()) >= n_tokens:
        raise InputError(
            f"Tokens must lie below the model's vocabulary of {n_tokens}, but the tokenizer gives "
            f"{int(ids.max())}.",
            "Give the tokenizer the model was trained with: `arguments.tokenizer=...`",
        )


# Builder of `datasets` by a file's ending, and what it is told beyond its defaults: quotes stand
# for themselves in tab-separated files (those of GLUE hold single ones), and line breaks are text.
_BUILDERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"sep": "\t", "quoting": csv.QUOTE_NONE}),
    ".json": ("json", {}),
    ".jsonl": ("json", {}),
    ".parquet": ("parquet", {}),
    ".arrow": ("arrow", {}),
    ".txt": ("text", {"sample_by": "document"}),
}
_SPLITS = {
    "train": ("train", "training"),
    "val": ("validation", "val", "valid", "dev", "validation_matched"),
    "test": ("test", "testing", "eval"),
}
_SEED = 20180607


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """Rows of each split; None where the data set has none.

    Attributes:
        train: To tune on.
        val: To judge on.
        test: To report.
    """

    train: Any
    val: Any | None
    test: Any | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which rows of a data set are wanted.

    Attributes:
        subset: Name of a configuration of the data set.
        train_split: Name of the split to tune on; None takes the usual names, or the only split.
        val_split: Name of the split to judge on.
        test_split: Name of the split to report.
        max_train: Most rows of each split, always the same random ones; None takes all.
        max_val: As `max_train`.
        max_test: As `max_train`.
    """

    subset: str | None = None
    train_split: str | None = None
    val_split: str | None = None
    test_split: str | None = None
    max_train: int | None = None
    max_val: int | None = None
    max_test: int | None = None

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            InputError: If one is outside its range.
        """
        for name in ("max_train", "max_val", "max_test"):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                raise InputError(f"`{name}` must be at least 1, but got {limit}.")


def read_splits(source: str, wanted: Wanted) -> Splits:
    """Read a data set.

    Args:
        source: A file (csv, tsv, json, jsonl, parquet, txt), a folder of such files or of images,
            a folder that `save_to_disk` wrote, or a name on the hub.
        wanted: Which splits and how many rows.

    Raises:
        InputError: If it cannot be read, has no rows or no split of a name that was asked for, or
            one split is asked for twice.
    """
    found = _load(source, wanted.subset)
    named = dict(found) if isinstance(found, datasets().DatasetDict) else {"train": found}
    names = _split_names(source, wanted, list(named))
    chosen: dict[str, Any] = {
        split: None if name is None else _some(named[name], getattr(wanted, f"max_{split}"))
        for split, name in names.items()
    }
    if len(chosen["train"]) == 0:
        raise InputError(f"The split `{names['train']}` of {source} must hold rows, but is empty.")
    return Splits(train=chosen["train"], val=chosen["val"], test=chosen["test"])


def _split_names(source: str, wanted: Wanted, named: Sequence[str]) -> dict[str, str | None]:
    """Which split of the data set plays which role; none plays two.

    Raises:
        InputError: If one that was asked for is not there or has two roles, or none is left to
            tune on.
    """
    names: dict[str, str | None] = {}
    for split in _SPLITS:
        asked = getattr(wanted, f"{split}_split")
        if asked is None:
            continue
        if asked not in named:
            raise unknown_name(f"split of {source}", asked, named)
        other = next((role for role, name in names.items() if name == asked), None)
        if other is not None:
            raise InputError(
                f"`{split}_split` must be another split than `{other}_split`, but both are "
                f"{asked!r}.",
                f"Choose from: {', '.join(named)}.",
            )
        names[split] = asked
    for split, usual in _SPLITS.items():
        if split in names:
            continue
        only = named if split == "train" and len(named) == 1 else ()
        free = (name for name in (*usual, *only) if name in named and name not in names.values())
        names[split] = next(free, None)
    if names["train"] is None:
        taken = [role for role, name in names.items() if name in _SPLITS["train"]]
        beside = f" beside `{taken[0]}_split`" if taken else ""
        raise InputError(
            f"The data set {source} must have a split `train`{beside}, but has {', '.join(named)}.",
            "Name one: `arguments.train_split=...`",
        )
    return names


def _some(rows: Any, most: int | None) -> Any:
    if rows is None or most is None or len(rows) <= most:
        return rows
    # Random ones: folders of images are sorted by class.
    picked = rows.shuffle(seed=_SEED).select(range(most))
    return picked.flatten_indices()


def _load(source: str, subset: str | None) -> Any:
    path = Path(source).expanduser()
    if not path.exists() and (source.startswith((".", "~", "/")) or source.count("/") > 1):
        raise InputError(f"The data set must exist, but {path} does not.")
    try:
        if path.is_file():
            _refuse_subset(subset, path)
            return _load_files([path])
        if path.is_dir():
            return _load_folder(path, subset)
        return datasets().load_dataset(source, subset)
    except InputError:
        raise
    except Exception as error:  # of the hub's client, of Arrow, of any reader of files
        cause = error.__cause__ or error
        hint = (
            "HF_HUB_OFFLINE is set: give a file or folder."
            if os.environ.get("HF_HUB_OFFLINE") and not path.exists()
            else "Give a file, a folder, or a name on the hub that can be reached."
        )
        raise InputError(
            f"The data set {source!r} could not be read: "
            f"{type(cause).__name__}: {first_line(cause)}.",
            hint,
        ) from error


def _load_folder(folder: Path, subset: str | None) -> Any:
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        _refuse_subset(subset, folder)
        return datasets().load_from_disk(str(folder))
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith(".")]
    if not files:
        raise InputError(f"The data folder must hold files, but {folder} has none.")
    endings = {path.suffix.lower() for path in files} & set(_BUILDERS)  # beside a README, say
    if len(endings) != 1 or subset is not None:
        return datasets().load_dataset(str(folder), subset)
    # Split by split: files of one folder need not agree on their columns, as those of SST-2 do not.
    of_files = datasets().data_files
    found = of_files.DataFilesDict.from_patterns(
        of_files.get_data_patterns(str(folder)), base_path=str(folder)
    )
    ending = endings.pop()
    splits: dict[str, Any] = {}
    for split, paths in found.items():
        fitting = [Path(path) for path in paths if Path(path).suffix.lower() == ending]
        if fitting:
            splits[str(split)] = _load_files(fitting)["train"]
    return datasets().DatasetDict(splits)


def _refuse_subset(subset: str | None, place: Path) -> None:
    if subset is not None:
        raise InputError(
            f"`subset` is a configuration of a data set on the hub, but got {subset!r} for "
            f"{place}, which has none.",
            "Leave it out.",
        )


def _load_files(files: Sequence[Path]) -> Any:
    ending = files[0].suffix.lower()
    if ending not in _BUILDERS:
        raise unknown_name(f"ending of the data file {files[0].name}:", ending, _BUILDERS)
    builder, kwargs = _BUILDERS[ending]
    return datasets().load_dataset(builder, data_files=[str(p) for p in files], **kwargs)


def choose_column(
    rows: Any, asked: str | None, usual: Iterable[str], argument: str, candidates: Sequence[str]
) -> str:
    """The column that holds something: the one asked for, one of usual name, or the only one.

    Args:
        rows: Of the data set.
        asked: Name the user gave.
        usual: Usual names; exactly one of them must be there.
        argument: Name of the task's argument, for messages.
        candidates: Columns whose type fits; if there is one alone, it is taken whatever its name.

    Raises:
        InputError: If it is not there, or cannot be told.
    """
    names = list(rows.column_names)
    if asked is not None:
        if asked not in names:
            raise unknown_name(f"column given by `{argument}`:", asked, names)
        return asked
    found = fitting_columns(rows, usual, candidates)
    if len(found) == 1:
        return found[0]
    problem = f"{', '.join(found)} could be it" if found else "none of its columns is"
    raise InputError(
        f"The data set must have one column of {argument}s, but {problem} "
        f"(columns: {', '.join(names)}).",
        f"Name it: `arguments.{argument}=COLUMN`",
    )


def fitting_columns(rows: Any, usual: Iterable[str], candidates: Sequence[str]) -> list[str]:
    """Columns that could be the one: those of usual name, or else those whose type fits."""
    named = set(usual)
    return [name for name in rows.column_names if name.lower() in named] or list(candidates)


def text_columns(rows: Any) -> list[str]:
    """Columns of strings."""
    kinds = ("string", "large_string")
    return [n for n, f in rows.features.items() if getattr(f, "dtype", None) in kinds]
