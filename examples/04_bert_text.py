"""A small BERT that tells whether a sentence of a film review is positive (SST-2, GLUE).

    autocompress search examples/04_bert_text.py --data FOLDER --space transformer --budget 12

FOLDER holds `text/sst2/train.tsv` and `dev.tsv`, with the columns `label` and `content`. The model
is trained from scratch on the training sentences, once; its weights are kept in the cache folder.
`--task-arg quick=true` trains on a tenth of them, in a minute.
"""

import csv
import hashlib
from collections import Counter
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autocompress import Task, TensorData
from autocompress.errors import InputError, first_line
from autocompress.tasks.digits import training_progress
from autocompress.tasks.model_cache import load_or_train

LENGTH = 32  # words; longer sentences are cut
N_WORDS = 8000
PADDING, UNKNOWN, START = 0, 1, 2


class Attention(nn.Module):
    """Self-attention of several heads, which ignores padding."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.num_attention_heads, self.attention_head_size = n_heads, width // n_heads
        self.all_head_size = width
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def _split(self, x: Tensor) -> Tensor:
        shape = (*x.shape[:-1], self.num_attention_heads, self.attention_head_size)
        return x.view(shape).permute(0, 2, 1, 3)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(N, T, D), mask (N, 1, 1, T) that is -1e4 at padding -> (N, T, D)."""
        q, k, v = self._split(self.query(x)), self._split(self.key(x)), self._split(self.value(x))
        scores = q @ k.transpose(-1, -2) / self.attention_head_size**0.5 + mask
        mixed = (scores.softmax(-1) @ v).permute(0, 2, 1, 3).contiguous()
        return mixed.view(*mixed.shape[:-2], self.all_head_size)


class Layer(nn.Module):
    """Attention, then a perceptron, each added to its input and normalised."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.attention, self.output = Attention(width, n_heads), nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(N, T, D) -> (N, T, D)."""
        x = self.norm1(x + self.dropout(self.output(self.attention(x, mask))))
        return self.norm2(x + self.dropout(self.down(F.gelu(self.up(x)))))


class Bert(nn.Module):
    """Encoder of Devlin et al. (2019), small; tokens (N, T) -> logits (N, 2)."""

    def __init__(self, width: int = 256, n_layers: int = 4, n_heads: int = 4) -> None:
        super().__init__()
        self.words = nn.Embedding(N_WORDS, width, padding_idx=PADDING)
        self.positions = nn.Embedding(LENGTH, width)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(Layer(width, n_heads) for _ in range(n_layers))
        self.pooler, self.head = nn.Linear(width, width), nn.Linear(width, 2)
        self.dropout = nn.Dropout(0.1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (N, T) -> logits (N, 2)."""
        mask = (tokens == PADDING)[:, None, None, :] * -1e4
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.dropout(self.norm(self.words(tokens) + self.positions(places)))
        for layer in self.layers:
            x = layer(x, mask)
        return self.head(self.dropout(torch.tanh(self.pooler(x[:, 0]))))


def read_sst2(path: Path) -> tuple[list[list[str]], Tensor]:
    """Words of each sentence, and labels."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
        return [text.split() for _, text in rows], torch.tensor([int(label) for label, _ in rows])
    except OSError as error:
        raise InputError(
            f"The sentences must lie in {path}, but: {error.strerror}.",
            "Give the folder that holds text/sst2 as --data.",
        ) from error
    except (ValueError, csv.Error) as error:
        raise InputError(
            f"{path} must hold a row of `label` and `content`, then 0 or 1, a tab and a sentence "
            f"in each, but: {first_line(error)}."
        ) from error


def encode(sentences: list[list[str]], vocabulary: dict[str, int]) -> Tensor:
    """Numbers of words (N, LENGTH), int64."""
    tokens = torch.full((len(sentences), LENGTH), PADDING)
    for i, words in enumerate(sentences):
        ids = [START, *(vocabulary.get(word, UNKNOWN) for word in words)][:LENGTH]
        tokens[i, : len(ids)] = torch.tensor(ids)
    return tokens


def train(model: Bert, data: TensorData, n_epochs: int) -> None:
    """Train with AdamW and a warm-up, in bfloat16."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.01)
    n_steps = n_epochs * (len(data) // 64)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-4, total_steps=n_steps, pct_start=0.1)
    model.train()
    with training_progress("a small BERT on SST-2", n_steps) as advance:
        for step in range(n_steps):
            if step % (len(data) // 64) == 0:
                order = torch.randperm(len(data))
            at = step % (len(data) // 64) * 64
            (tokens,), labels = data.batch(order[at : at + 64])
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(model(tokens).float(), labels, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            rate.step()
            advance()


def task(data: Path, quick: bool = False) -> Task:
    sentences, labels = read_sst2(data / "text" / "sst2" / "train.tsv")
    held_out, held_out_labels = read_sst2(data / "text" / "sst2" / "dev.tsv")
    counts = Counter(word for words in sentences for word in words)
    common = [word for word, _ in counts.most_common(N_WORDS - 3)]
    vocabulary = {word: i for i, word in enumerate(common, start=3)}
    every = 10 if quick else 1
    # Training sentences are mostly phrases of one another, so some of them are no clean val split.
    # The search uses one half of the dev sentences, `export` the other.
    train_data = TensorData((encode(sentences[::every], vocabulary),), labels[::every])
    tokens = encode(held_out, vocabulary)
    torch.manual_seed(0)
    model = Bert(*((64, 2, 4) if quick else (256, 4, 4)))
    content = hashlib.sha256(f"{train_data.fingerprint()} {model} 1".encode()).hexdigest()
    load_or_train(model, "sst2-bert", content, lambda: train(model, train_data, 3))
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))
    val, test = order[::2], order[1::2]
    return Task(
        model=model,
        train=train_data,
        val=(tokens[val], held_out_labels[val]),
        test=(tokens[test], held_out_labels[test]),
        name="sst2-bert",
        batch_size=64,
        learning_rate=0.001,
        proxy_epochs=0.1,
    )
