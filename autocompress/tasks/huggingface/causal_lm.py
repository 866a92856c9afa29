"""Language models: any `AutoModelForCausalLM` on text, judged by how it tells the next token.

Dimension key: `N` blocks, `T` tokens, `V` vocabulary.
"""

import logging
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from autocompress.errors import InputError, unknown_name
from autocompress.tasks.base import Metric, Task, TensorData
from autocompress.tasks.huggingface.pretrained import read_model, read_tokenizer
from autocompress.tasks.huggingface.request import Request
from autocompress.tasks.huggingface.rows import (
    Splits,
    check_ids,
    choose_column,
    longest_input,
    text_columns,
)
from autocompress.tasks.huggingface.tensor_model import LanguageModel

_logger = logging.getLogger(__name__)
_USUAL = ("text", "content", "document", "story")
_IDS = "input_ids"  # a column of this name holds tokens already
_LENGTH = 128
_BATCH_SIZE, _LEARNING_RATE = 16, 0.001
_NO_TARGET: Final = -100  # what cross-entropy of PyTorch leaves out
_MOST_LOGIT_BYTES = 2**28  # of a whole split, which is judged at once: 256 MiB


def token_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of all next tokens in nats, their mean.

    Args:
        outputs: Logits (N, V, T).
        targets: Tokens (N, T); -100 where there is none.
    """
    return F.cross_entropy(outputs, targets, ignore_index=_NO_TARGET)


def token_accuracy(outputs: Tensor, targets: Tensor) -> float:
    """Share of next tokens that have the largest logit.

    Args:
        outputs: Logits (N, V, T).
        targets: Tokens (N, T); -100 where there is none.
    """
    counted = targets != _NO_TARGET
    return float((outputs.argmax(dim=1) == targets)[counted].double().mean())


def inverse_perplexity(outputs: Tensor, targets: Tensor) -> float:
    """exp(-loss): the geometric mean of the probabilities given to the tokens that came.

    Args:
        outputs: Logits (N, V, T).
        targets: Tokens (N, T); -100 where there is none.
    """
    return float(torch.exp(-token_loss(outputs.float(), targets).double()))


METRICS: dict[str, tuple[Metric, str]] = {
    "accuracy": (token_accuracy, "next-token accuracy"),
    "perplexity": (inverse_perplexity, "1 / perplexity per token"),
}
DOCUMENTS = ("joined", "separate")


def causal_lm(request: Request, splits: Splits) -> Task:
    """Make the task; see `factory.hf`.

    Raises:
        InputError: If model, tokenizer or data cannot be used.
    """
    if request.metric not in METRICS:
        raise unknown_name("metric of a language model:", request.metric, METRICS)
    if request.documents not in DOCUMENTS:
        raise unknown_name("way to treat `documents`:", request.documents, DOCUMENTS)
    has_ids = _IDS in splits.train.column_names
    tokenizer = None if has_ids else read_tokenizer(request.model, request.tokenizer)
    most = longest_input(request.config, tokenizer)
    length = request.length or min(_LENGTH, most or _LENGTH)
    if length < 1 or (most is not None and length > most):
        raise InputError(
            f"`length` must be at least 1 and at most the model's {most or 'any'} tokens, "
            f"but got {length}."
        )
    limits = {name: getattr(request.wanted, f"max_{name}") for name in ("train", "val", "test")}
    parts: dict[str, TensorData | None] = {}
    for split, most_blocks in limits.items():
        rows = getattr(splits, split)
        if rows is None:
            parts[split] = None
            continue
        data = _blocks(_documents(rows, request, tokenizer), request, length, split)
        if split != "train" and most_blocks is None:
            most_blocks = _judged_at_once(data, request.config, split)
        parts[split] = _some(data, most_blocks)
    train = parts["train"]
    assert train is not None
    metric, metric_name = METRICS[request.metric]
    return Task(
        model=LanguageModel(read_model("AutoModelForCausalLM", request.model, request.config)),
        train=train,
        val=parts["val"],
        test=parts["test"],
        name=request.task_name,
        loss=token_loss,
        metric=metric,
        metric_name=metric_name,
        batch_size=request.batch_size or _BATCH_SIZE,
        learning_rate=request.learning_rate or _LEARNING_RATE,
        proxy_epochs=request.proxy_epochs,
    )


def _documents(rows: Any, request: Request, tokenizer: Any) -> list[list[int]]:
    """Tokens of each document, with what the tokenizer puts around them."""
    if tokenizer is None:
        return [list(map(int, ids)) for ids in rows[_IDS]]
    column = choose_column(rows, request.text, _USUAL, "text", text_columns(rows))
    texts = [text for text in rows[column] if text]
    if request.separator:
        parts = (part.strip() for text in texts for part in text.split(request.separator))
        texts = [part for part in parts if part]
    return tokenizer(texts, verbose=False)[_IDS] if texts else []


def _blocks(documents: list[list[int]], request: Request, length: int, split: str) -> TensorData:
    """Tokens (N, T) and the ones that follow, each int64.

    Joined documents are one stream, cut into full blocks. Separate ones begin a block each, are
    cut at its end and padded behind.
    """
    if request.documents == "joined":
        stream = torch.tensor([token for ids in documents for token in ids], dtype=torch.int64)
        n_blocks = (len(stream) - 1) // length
        tokens = stream[: n_blocks * length].view(-1, length)
        targets = stream[1 : n_blocks * length + 1].view(-1, length)
    else:
        documents = [ids[: length + 1] for ids in documents if len(ids) > 1]
        n_blocks = len(documents)
        tokens = torch.zeros(n_blocks, length, dtype=torch.int64)
        targets = torch.full((n_blocks, length), _NO_TARGET)
        for i, ids in enumerate(documents):
            row = torch.tensor(ids)
            tokens[i, : len(ids) - 1], targets[i, : len(ids) - 1] = row[:-1], row[1:]
    if n_blocks < 1:
        n_found = sum(map(len, documents))
        raise InputError(
            f"The {split} split must hold at least one block of {length} tokens and the one that "
            f"follows, but has {n_found} tokens.",
            "Give more text, or shorter blocks: `arguments.length=...`",
        )
    check_ids(tokens, request.config)
    check_ids(targets, request.config)
    return TensorData((tokens,), targets)


def _judged_at_once(data: TensorData, config: Any, split: str) -> int:
    """As many blocks as have logits that fit into memory; says so where these are fewer."""
    a_block = 4 * data.targets.shape[1] * int(config.vocab_size)
    most = max(1, _MOST_LOGIT_BYTES // a_block)
    if len(data) > most:
        _logger.warning(
            "The %s split is judged on %d of its %d blocks: logits of more would take over %d MB. "
            "Set max_%s to change that.",
            *(split, most, len(data), _MOST_LOGIT_BYTES // 10**6, split),
        )
    return most


def _some(data: TensorData, most: int | None) -> TensorData:
    """At most so many blocks, always the same random ones."""
    if most is None or len(data) <= most:
        return data
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    return data.subset(order[:most].sort().values)
