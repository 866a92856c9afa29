"""A small GPT that continues Shakespeare, character by character (Radford et al. 2019; Karpathy).

    autocompress search examples/06_gpt_like.py --data FOLDER --space transformer --budget 12

FOLDER holds `text/tinyshakespeare/input.txt`. The model is trained from scratch, once, on the first
eight tenths of the text, which takes about five minutes on one core; its weights are kept in the
cache folder. `--task-arg quick=true` trains a smaller one, in half a minute; `--task-arg steps=N`
trains for another number of steps.
"""

import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autocompress import Task, TensorData
from autocompress.errors import InputError
from autocompress.tasks.digits import training_progress
from autocompress.tasks.model_cache import load_or_train

LENGTH = 64  # characters that the model sees
UNKNOWN = 0  # a character that the training text does not have


class Attention(nn.Module):
    """Self-attention of several heads, which sees no later character."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = n_heads, width // n_heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.output = nn.Linear(width, width), nn.Linear(width, width)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def forward(self, x: Tensor, future: Tensor) -> Tensor:
        """(N, T, D), future (T, T) that is true where a key is later -> (N, T, D)."""
        q, k, v = self._split(self.query(x)), self._split(self.key(x)), self._split(self.value(x))
        scores = q @ k.transpose(-1, -2) / self.head_dim**0.5  # (N, heads, T, T)
        mixed = scores.masked_fill(future, -1e4).softmax(-1) @ v
        return self.output(mixed.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Attention, then a perceptron, each of normalised inputs and added to them."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, n_heads)
        self.norm2 = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor, future: Tensor) -> Tensor:
        """(N, T, D) -> (N, T, D)."""
        x = x + self.dropout(self.attention(self.norm1(x), future))
        return x + self.dropout(self.down(F.gelu(self.up(self.norm2(x)))))


class Gpt(nn.Module):
    """Characters (N, T) -> logits of the next one at each place (N, T, V)."""

    def __init__(self, n_characters: int, width: int, n_layers: int, n_heads: int = 4) -> None:
        super().__init__()
        self.characters = nn.Embedding(n_characters, width)
        self.positions = nn.Embedding(LENGTH, width)
        self.layers = nn.ModuleList(Layer(width, n_heads) for _ in range(n_layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, n_characters)

    def forward(self, characters: Tensor) -> Tensor:
        """Characters (N, T), int64 -> logits (N, T, V)."""
        places = torch.arange(characters.shape[1], device=characters.device)
        future = places[None, :] > places[:, None]
        x = self.characters(characters) + self.positions(places)
        for layer in self.layers:
            x = layer(x, future)
        return self.head(self.norm(x))


def next_character_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats over all places: logits (N, T, V), targets (N, T)."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def next_character_accuracy(logits: Tensor, targets: Tensor) -> float:
    """Share of places whose likeliest character is the one that follows."""
    return float((logits.argmax(-1) == targets).double().mean())


def read_text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"The text must lie in {path}, but: {error.strerror}.",
            "Give the folder that holds text/tinyshakespeare as --data.",
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"The text {path} must be UTF-8, but: {error.reason}.") from error
    if len(text) < 40 * LENGTH:
        raise InputError(
            f"The text {path} must have {40 * LENGTH} characters or more, but has {len(text)}."
        )
    return text


def windows(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs (N, LENGTH) and what follows each of their characters; windows do not overlap."""
    n_windows = (len(ids) - 1) // LENGTH
    inputs = ids[: n_windows * LENGTH].view(n_windows, LENGTH)
    return inputs, ids[1 : n_windows * LENGTH + 1].view(n_windows, LENGTH)


def train(model: Gpt, ids: Tensor, n_steps: int) -> None:
    """AdamW with a warm-up on windows from anywhere in the text."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=n_steps, pct_start=0.1)
    model.train()
    with training_progress("a GPT on Shakespeare", n_steps) as advance:
        for _ in range(n_steps):
            starts = torch.randint(len(ids) - LENGTH, (32, 1))
            chosen = ids[starts + torch.arange(LENGTH + 1)]  # (32, LENGTH + 1)
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(chosen[:, :-1]).float()
            loss = next_character_loss(logits, chosen[:, 1:])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            rate.step()
            advance()


def task(data: Path, quick: bool = False, steps: int | None = None) -> Task:
    text = read_text(data / "text" / "tinyshakespeare" / "input.txt")
    # Three consecutive parts of the text: val and test were never used for training.
    ends = [len(text) * 8 // 10, len(text) * 9 // 10]
    alphabet = sorted(set(text[: ends[0]]))
    number = {character: i for i, character in enumerate(alphabet, start=UNKNOWN + 1)}
    ids = torch.tensor([number.get(character, UNKNOWN) for character in text])
    train_ids, val_ids, test_ids = ids.tensor_split(ends)
    width, n_layers, n_steps = (64, 2, 600) if quick else (128, 4, 4000)
    n_steps = n_steps if steps is None else steps
    torch.manual_seed(0)
    model = Gpt(len(alphabet) + 1, width, n_layers)
    train_data = TensorData(*windows(train_ids))
    content = f"{train_data.fingerprint()} {model} {n_steps} 1"
    digest = hashlib.sha256(content.encode()).hexdigest()
    load_or_train(model, "shakespeare-gpt", digest, lambda: train(model, train_ids, n_steps))
    return Task(
        model=model,
        train=train_data,
        val=windows(val_ids),
        test=windows(test_ids),
        name="shakespeare-gpt",
        loss=next_character_loss,
        metric=next_character_accuracy,
        metric_name="next-character accuracy",
        distill="mse",  # `kl` expects the classes in dimension 1; here it is the position
        batch_size=32,
        learning_rate=0.001,
        proxy_epochs=0.2,
    )
