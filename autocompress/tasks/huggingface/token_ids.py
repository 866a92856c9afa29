"""What holds for token numbers, whatever a model does with them."""

from typing import Any

from torch import Tensor

from autocompress.errors import InputError

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
            "Give the tokenizer the model was trained with: --task-arg tokenizer=...",
        )
