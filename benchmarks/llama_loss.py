"""Loss in nats a token of packed files made from the Llama of `llama_to_hf.py`, on whole stories.

    python benchmarks/llama_loss.py --llama llama_hf results/stories260k/exports/*/model.acz

A packed file is loaded into the architecture (`autocompress.load`) and reads each story of
`test.txt`, and of the first 32 of `validation.txt`, by itself.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from llama_to_hf import SEPARATOR
from torch import nn

import autocompress
from autocompress.tasks.factory import load_task
from autocompress.tasks.huggingface.causal_lm import token_loss

LENGTH = 512
N_STORIES = 32


def data_of(folder: Path, split: str) -> Any:
    """Stories in a block each, and the model, through the task that a user would name."""
    return load_task(
        "hf",
        {
            "model": str(folder / "model"),
            "dataset": str(folder / "data" / f"{split}.txt"),
            "documents": "separate",
            "separator": SEPARATOR,
            "length": str(LENGTH),
            "max_train": str(N_STORIES),
        },
    )


@torch.no_grad()
def loss_of(model: nn.Module, task: Any) -> float:
    """Mean over all tokens of the split."""
    inputs, targets = task.train.batch(slice(0, len(task.train)))
    return float(token_loss(model(*inputs), targets))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llama", type=Path, required=True, help="What llama_to_hf.py wrote.")
    parser.add_argument("packed", type=Path, nargs="*")
    options = parser.parse_args()
    tasks = {split: data_of(options.llama, split) for split in ("test", "validation")}
    fp32 = (options.llama / "model" / "model.safetensors").stat().st_size
    base = {split: loss_of(task.model, task) for split, task in tasks.items()}
    print(json.dumps({"fp32_bytes": fp32} | {f"{k}_loss": round(v, 4) for k, v in base.items()}))
    for path in options.packed:
        model = autocompress.load(path, tasks["test"].model)
        size = path.stat().st_size
        row: dict[str, Any] = {"file": str(path), "bytes": size, "smaller": round(fp32 / size, 2)}
        for split, task in tasks.items():
            loss = loss_of(model, task)
            row[f"{split}_loss"] = round(loss, 4)
            row[f"{split}_higher_percent"] = round(100 * (loss / base[split] - 1), 2)
        print(json.dumps(row))


if __name__ == "__main__":
    main()
