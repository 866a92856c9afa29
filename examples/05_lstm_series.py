"""An LSTM that classifies nine speakers by a vowel: sequences of 7 to 29 steps (JapaneseVowels).

    autocompress search examples/05_lstm_series.py --data FOLDER --space recurrent --budget 30

FOLDER holds `timeseries/japanese_vowels.npz` (UCI; Kudo et al. 1999): zero-padded sequences
`x_train` (270, T, 12) and `x_test` (370, T, 12), their lengths `len_train` and `len_test`, speakers
`y_train` and `y_test`. The model is trained once, in half a minute; its weights are kept in the
cache folder. `--task-arg quick=true` trains a quarter as long.
"""

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autocompress import Task, TensorData
from autocompress.errors import InputError, first_line
from autocompress.tasks.base import Inputs
from autocompress.tasks.digits import training_progress
from autocompress.tasks.model_cache import load_or_train


class SpeakerNet(nn.Module):
    """The LSTM's state at the last step of a sequence -> logits (N, 9)."""

    def __init__(self, n_features: int, n_hidden: int, n_speakers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(n_features, n_hidden, num_layers=2, batch_first=True)
        self.hidden, self.head = nn.Linear(n_hidden, 64), nn.Linear(64, n_speakers)
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Zero-padded sequences (N, T, D) and their lengths (N,), int64 -> logits."""
        steps, _ = self.lstm(x)  # (N, T, H); padding after a sequence's end is not read
        # A gather exports to every runtime; pack_padded_sequence does not.
        last = (lengths - 1).view(-1, 1, 1).expand(-1, 1, steps.shape[2])
        remembered = steps.gather(1, last).squeeze(1)
        return self.head(F.relu(self.hidden(self.dropout(remembered))))


def read_vowels(path: Path) -> tuple[Inputs, Tensor, Inputs, Tensor]:
    """Inputs (sequences, lengths) and speakers of train, then of test; all of them equally long."""
    try:
        with np.load(path) as file:  # arrays only: pickles are refused
            arrays = {name: torch.from_numpy(file[name]) for name in file.files}
        x_train, x_test = arrays["x_train"].float(), arrays["x_test"].float()
        n_steps = max(x_train.shape[1], x_test.shape[1])
        splits = [
            (F.pad(x, (0, 0, 0, n_steps - x.shape[1])), arrays[f"len_{name}"].long())
            for name, x in (("train", x_train), ("test", x_test))
        ]
        return splits[0], arrays["y_train"].long(), splits[1], arrays["y_test"].long()
    except OSError as error:
        raise InputError(
            f"The sequences must lie in {path}, but: {error.strerror or first_line(error)}.",
            "Give the folder that holds timeseries/japanese_vowels.npz as --data.",
        ) from error
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} must hold the arrays x, len and y of train and test, but: {first_line(error)}."
        ) from error


def noisy(inputs: Inputs, generator: torch.Generator) -> Inputs:
    """Standardised sequences with a little noise on every step."""
    x, lengths = inputs
    return x + 0.1 * torch.randn(x.shape, generator=generator), lengths


def train(model: SpeakerNet, data: TensorData, n_epochs: int) -> None:
    """Adam with a warm-up."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    n_steps = n_epochs * -(-len(data) // 32)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=n_steps, pct_start=0.1)
    model.train()
    with training_progress("an LSTM on vowels", n_steps) as advance:
        for _ in range(n_epochs):
            for chosen in torch.randperm(len(data)).split(32):
                inputs, speakers = data.batch(chosen, lambda batch: noisy(batch, generator))
                loss = F.cross_entropy(model(*inputs), speakers, label_smoothing=0.1)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                rate.step()
                advance()


def task(data: Path, quick: bool = False) -> Task:
    path = data / "timeseries" / "japanese_vowels.npz"
    (x, lengths), speakers, (held_out, held_out_lengths), held_out_speakers = read_vowels(path)
    steps = torch.cat([sequence[:n] for sequence, n in zip(x, lengths, strict=True)])
    mean, std = steps.mean(0), steps.std(0)
    train_data = TensorData(((x - mean) / std, lengths), speakers)
    n_epochs = 25 if quick else 100
    torch.manual_seed(0)
    model = SpeakerNet(x.shape[2], 96, int(speakers.max()) + 1)
    content = f"{train_data.fingerprint()} {model} {n_epochs} 1"
    digest = hashlib.sha256(content.encode()).hexdigest()
    load_or_train(model, "vowels-lstm", digest, lambda: train(model, train_data, n_epochs))
    # 270 sequences are too few to split: the search uses one half of the held-out sequences,
    # `export` the other.
    order = torch.randperm(len(held_out), generator=torch.Generator().manual_seed(0))
    everything = TensorData(((held_out - mean) / std, held_out_lengths), held_out_speakers)
    return Task(
        model=model,
        train=train_data,
        val=everything.subset(order[::2]),
        test=everything.subset(order[1::2]),
        name="vowels-lstm",
        augment=noisy,
        batch_size=32,
        learning_rate=0.02,
        proxy_epochs=10,
    )
