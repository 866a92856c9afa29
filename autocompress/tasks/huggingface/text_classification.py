"""Text classification: any `AutoModelForSequenceClassification` on sentences or pairs of them.

Dimension key: `N` texts, `T` tokens.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from autocompress.errors import InputError
from autocompress.tasks.base import Task, TensorData
from autocompress.tasks.huggingface.labels import check_single_label, label_column, labelled_rows
from autocompress.tasks.huggingface.pretrained import read_model, read_tokenizer
from autocompress.tasks.huggingface.request import Request
from autocompress.tasks.huggingface.rows import (
    Splits,
    check_ids,
    choose_column,
    longest_input,
    text_columns,
)
from autocompress.tasks.huggingface.tensor_model import TextClassifier

_USUAL = ("text", "sentence", "content", "review", "document", "tweet", "comment", "question")
_USUAL_PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "passage"),
    ("text1", "text2"),
    ("text", "text_pair"),
)
_LENGTHS = (16, 32, 64, 128, 256, 512, 1024)  # one is taken, so that like data has like graphs
_HELD_WHOLE = 0.99  # share of texts that the length holds; what is longer is cut
_BATCH_SIZE, _LEARNING_RATE = 32, 0.001


def text_classification(request: Request, splits: Splits) -> Task:
    """Make the task; see `factory.hf`.

    Raises:
        InputError: If model, tokenizer or data cannot be used.
    """
    check_single_label(request.config)
    tokenizer = read_tokenizer(request.model, request.tokenizer)
    if tokenizer.pad_token is None:
        raise InputError(
            "The tokenizer must have a padding token or one that ends a text, but has neither.",
            "Set `tokenizer.pad_token` and save it again.",
        )
    columns = _columns(splits.train, request)
    length = request.length or _length(splits.train, columns, tokenizer, request.config)
    most = longest_input(request.config, tokenizer)
    if most is not None and length > most:
        raise InputError(f"`length` must be at most the model's {most} tokens, but got {length}.")
    parts: dict[str, TensorData | None] = {}
    for split in ("train", "val", "test"):
        rows = getattr(splits, split)
        parts[split] = None if rows is None else _read(rows, request, tokenizer, length, split)
    assert parts["train"] is not None
    model = read_model(
        "AutoModelForSequenceClassification",
        request.model,
        request.config,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Task(
        model=TextClassifier(model),
        train=parts["train"],
        val=parts["val"],
        test=parts["test"],
        name=request.task_name,
        batch_size=request.batch_size or _BATCH_SIZE,
        learning_rate=request.learning_rate or _LEARNING_RATE,
        proxy_epochs=request.proxy_epochs,
    )


def _columns(rows: Any, request: Request) -> tuple[str, ...]:
    """The column of texts, or the two of pairs."""
    label = label_column(rows, request.label)
    if request.text is None and request.pair is None:
        for pair in _USUAL_PAIRS:
            if set(pair) <= set(rows.column_names):
                return pair
    fitting = [name for name in text_columns(rows) if name not in (label, request.pair)]
    first = choose_column(rows, request.text, _USUAL, "text", fitting)
    if request.pair is None:
        return (first,)
    return first, choose_column(rows, request.pair, (), "pair", ())


def _length(rows: Any, columns: Sequence[str], tokenizer: Any, config: Any) -> int:
    """The least usual length that holds nearly all texts, within what the model takes."""
    ids = tokenizer(*_texts(rows, columns))["input_ids"]
    lengths = torch.tensor([len(row) for row in ids], dtype=torch.float64)
    wanted = int(torch.quantile(lengths[:1_000_000], _HELD_WHOLE, interpolation="higher"))
    chosen = next((length for length in _LENGTHS if length >= wanted), _LENGTHS[-1])
    return min(chosen, longest_input(config, tokenizer) or chosen)


def _texts(rows: Any, columns: Sequence[str]) -> tuple[list[str], ...]:
    return tuple(["" if text is None else str(text) for text in rows[name]] for name in columns)


def _read(
    rows: Any, request: Request, tokenizer: Any, length: int, split: str
) -> TensorData | None:
    """Tokens, mask and, for pairs, sentence numbers, each int64 (N, T)."""
    found = labelled_rows(rows, request, split)
    if found is None:
        return None
    rows, labels = found
    columns = _columns(rows, request)  # another split may have other ones
    n_types = getattr(request.config, "type_vocab_size", 0) or 0
    has_types = len(columns) == 2 and n_types > 1
    encoded = tokenizer(
        *_texts(rows, columns),
        truncation=True,
        max_length=length,
        padding="max_length",
        return_token_type_ids=has_types,
        return_tensors="pt",
    )
    check_ids(encoded["input_ids"], request.config)
    inputs: list[Tensor] = [encoded["input_ids"], encoded["attention_mask"]]
    if has_types:
        inputs.append(encoded["token_type_ids"])
    return TensorData(tuple(inputs), labels)
