"""What the user asked of a Hugging Face task, for whichever kind it turns out to be."""

import dataclasses
from pathlib import Path
from typing import Any

from autocompress.tasks.huggingface.rows import Wanted


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Arguments of `factory.hf`, see there, and the model's configuration.

    Attributes:
        model: Folder or hub name.
        config: Of the model, as transformers reads it.
        dataset: File, folder or hub name.
        wanted: Which splits and how many rows of it.
        tokenizer: Where the tokenizer lies; None means beside the model.
        text: Column of texts.
        pair: Column of second texts.
        label: Column of labels.
        image: Column of images.
        length: Tokens of an example.
        documents: Whether a language model's documents are `joined` or `separate`.
        separator: What stands between two documents of a text.
        metric: What a language model is judged by.
        batch_size: Of training; None for the kind's.
        learning_rate: Of the fine-tune; None for the kind's.
        proxy_epochs: Passes over the training data behind each trial.
        name: Of the task; None makes one of the model's name.
    """

    model: str
    config: Any
    dataset: str
    wanted: Wanted
    tokenizer: str | None
    text: str | None
    pair: str | None
    label: str | None
    image: str | None
    length: int | None
    documents: str
    separator: str | None
    metric: str
    batch_size: int | None
    learning_rate: float | None
    proxy_epochs: float
    name: str | None

    @property
    def task_name(self) -> str:
        """Name of the run folder."""
        return self.name or Path(self.model).expanduser().name or "hf"
