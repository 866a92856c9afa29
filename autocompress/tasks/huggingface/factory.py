"""The task `hf`: a model and a data set of Hugging Face, by folder or by name."""

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from autocompress.errors import InputError, unknown_name
from autocompress.tasks.base import Task
from autocompress.tasks.huggingface.causal_lm import causal_lm
from autocompress.tasks.huggingface.extra import no_progress_bars
from autocompress.tasks.huggingface.image_classification import image_classification
from autocompress.tasks.huggingface.pretrained import read_config
from autocompress.tasks.huggingface.request import Request
from autocompress.tasks.huggingface.rows import Splits, Wanted, read_splits
from autocompress.tasks.huggingface.text_classification import text_classification

# Kind -> how its task is made. To add one, write its file, a line here, and its arguments and
# endings below.
KINDS: Final[Mapping[str, Callable[[Request, Splits], Task]]] = {
    "image-classification": image_classification,
    "text-classification": text_classification,
    "causal-lm": causal_lm,
}
_ARGUMENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "image-classification": ("label", "image"),
    "text-classification": ("text", "pair", "label", "tokenizer", "length"),
    "causal-lm": ("text", "tokenizer", "length", "documents", "separator", "metric"),
}
_ENDINGS: Final[Mapping[str, str]] = {
    "ForImageClassification": "image-classification",
    "ForImageClassificationWithTeacher": "image-classification",
    "ForSequenceClassification": "text-classification",
    "ForCausalLM": "causal-lm",
    "LMHeadModel": "causal-lm",
}


def hf(
    model: str,
    dataset: str,
    kind: str | None = None,
    subset: str | None = None,
    train_split: str | None = None,
    val_split: str | None = None,
    test_split: str | None = None,
    max_train: int | None = None,
    max_val: int | None = None,
    max_test: int | None = None,
    text: str | None = None,
    pair: str | None = None,
    label: str | None = None,
    image: str | None = None,
    tokenizer: str | None = None,
    length: int | None = None,
    documents: str = "joined",
    separator: str | None = None,
    metric: str = "accuracy",
    batch_size: int | None = None,
    learning_rate: float | None = None,
    proxy_epochs: float = 1.0,
    name: str | None = None,
) -> Task:
    """The task behind `autocompress search hf --model ... --dataset ...`.

    Args:
        model: Folder that `save_pretrained` wrote, with its tokenizer or image processor, or a
            name on the hub. Weights must be safetensors; code beside a model is never run.
        dataset: A file (csv, tsv, json, jsonl, parquet, txt), a folder of such files or of images
            by class, a folder that `save_to_disk` wrote, or a name on the hub.
        kind: `image-classification`, `text-classification` or `causal-lm`; None asks the model.
        subset: Configuration of a hub data set, such as `sst2` of `glue`.
        train_split: Split to tune on; None takes `train`, or the only one.
        val_split: Split to judge on; None takes `validation`, `dev` or the like, and where there
            is none a tenth of the training data is kept aside for it. No split has two roles.
        test_split: Split to report; None takes `test` if it has labels.
        max_train: Most examples of the split, random ones, always the same.
        max_val: As `max_train`; for a val split of the data set's own.
        max_test: As `max_train`.
        text: Column of texts; None takes the usual names.
        pair: Column of second texts, for pairs.
        label: Column of labels: names in the model's `id2label`, or its class numbers where no name
            is one of those.
        image: Column of images.
        tokenizer: Folder or name of the tokenizer, if it is not beside the model.
        length: Tokens of an example; None takes, for classification, the least of 16, 32, 64, ...
            that holds 99 % of the texts, for language models 128.
        documents: Language models: `joined` to one stream and cut into blocks, or `separate`, each
            in a block of its own.
        separator: Language models: what stands between two documents of a text.
        metric: Language models: `accuracy`, of the next token, or `perplexity`, as 1 / perplexity.
        batch_size: Of training.
        learning_rate: Of the fine-tune.
        proxy_epochs: Passes over the training data behind each trial.
        name: Of the task.

    Raises:
        InputError: If something of it cannot be used.
    """
    given = dict(locals())
    if kind is not None and kind not in KINDS:
        raise unknown_name("kind of task:", kind, KINDS)
    _check_ranges(given)
    with no_progress_bars():
        config = read_config(model)
        kind = kind or _kind_of(config, model)
        _check_kind_takes(given, kind)
        wanted = Wanted(**{field.name: given[field.name] for field in dataclasses.fields(Wanted)})
        read = wanted
        if kind == "causal-lm":  # its blocks are counted after the text was cut into them
            read = dataclasses.replace(wanted, max_train=None, max_val=None, max_test=None)
        task = KINDS[kind](
            Request(
                model=model,
                config=config,
                dataset=dataset,
                wanted=wanted,
                tokenizer=tokenizer,
                text=text,
                pair=pair,
                label=label,
                image=image,
                length=length,
                documents=documents,
                separator=separator,
                metric=metric,
                batch_size=batch_size,
                learning_rate=learning_rate,
                proxy_epochs=proxy_epochs,
                name=name,
            ),
            read_splits(dataset, read),
        )
    for split in ("val", "test"):
        most = given[f"max_{split}"]
        if most is not None and getattr(task, split) is None:
            raise InputError(
                f"`max_{split}` limits the {split} split, but got {most} for {dataset}, which "
                "gives none.",
                f"Leave it out, or name one: `arguments.{split}_split=...`",
            )
    return task


def _check_ranges(given: Mapping[str, Any]) -> None:
    for name in ("length", "batch_size"):
        value = given[name]
        if value is not None and value < 1:
            raise InputError(f"`{name}` must be at least 1, but got {value}.")
    for name in ("learning_rate", "proxy_epochs"):
        value = given[name]
        if value is not None and not 0.0 < value < math.inf:
            raise InputError(f"`{name}` must be a positive number, but got {value:g}.")


def _check_kind_takes(given: Mapping[str, Any], kind: str) -> None:
    """Refuse arguments that only other kinds of task look at."""
    defaults = inspect.signature(hf).parameters
    for name in sorted({name for names in _ARGUMENTS.values() for name in names}):
        if name not in _ARGUMENTS[kind] and given[name] != defaults[name].default:
            takers = ", ".join(k for k, names in _ARGUMENTS.items() if name in names)
            raise InputError(
                f"`{name}` goes with {takers} only, but got {given[name]!r} for a task of {kind}.",
                "Leave it out.",
            )


def _kind_of(config: Any, model: str) -> str:
    """The kind that a configuration's architecture names."""
    architectures = list(getattr(config, "architectures", None) or [])
    for architecture in architectures:
        for ending, kind in _ENDINGS.items():
            if architecture.endswith(ending):
                return kind
    raise InputError(
        f"The model {model!r} must be one for {', '.join(KINDS)}, but its configuration says "
        f"{', '.join(architectures) or 'nothing'}.",
        "If it is one, say which: `arguments.kind=...`",
    )
