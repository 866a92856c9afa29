import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from autocompress.errors import InputError
from autocompress.tasks import splits
from autocompress.tasks.base import Task, TensorData
from autocompress.tasks.prepare import prepare_task
from autocompress.tasks.splits import as_examples
from autocompress.tasks.streamed import StreamedData
from autocompress.train.batches import Batches


class Rows(Dataset):
    """Counts how often a row is read."""

    def __init__(self, n_rows=40):
        generator = torch.Generator().manual_seed(0)
        self.x, self.y = torch.randn(n_rows, 4, generator=generator), torch.arange(n_rows) % 3
        self.n_read = 0

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        self.n_read += 1
        return self.x[index].numpy(), int(self.y[index])


def _doubled(inputs):
    return (inputs[0] * 2,)


def _batches(data, n_workers=0):
    task = Task(
        model=nn.Linear(4, 3),
        train=data,
        val=(torch.randn(4, 4), torch.arange(4) % 3),
        augment=lambda inputs, generator: (
            inputs[0] + torch.rand(inputs[0].shape, generator=generator),
        ),
    )
    batches = Batches(prepare_task(task), 8, torch.Generator().manual_seed(3))
    return [batches.draw() for _ in range(7)]  # more than one pass


@pytest.mark.parametrize("n_workers", [0, 2])
def test_streamed_batches_are_those_of_data_in_memory(n_workers):
    rows = Rows()
    in_memory = TensorData((rows.x,), rows.y, _doubled)
    streamed = StreamedData(dataset=rows, transform=_doubled, n_workers=n_workers)
    for (a, ya, ia), (b, yb, ib) in zip(_batches(in_memory), _batches(streamed), strict=True):
        assert torch.equal(a[0], b[0])
        assert torch.equal(ya, yb)
        assert torch.equal(ia, ib)


def test_streamed_data_is_read_as_it_is_needed():
    rows = Rows()
    data = StreamedData(dataset=rows)
    data.batch(torch.tensor([3, 5]))
    assert rows.n_read == 2
    next(data.batches([slice(0, 4), slice(4, 8)]))
    assert rows.n_read == 6
    assert torch.equal(data.targets, rows.y)
    assert torch.equal(data.targets, rows.y)
    assert rows.n_read == 6 + 40  # read once, then known


def test_subsets_of_subsets_hold_the_rows_they_should():
    rows = Rows()
    data = StreamedData(dataset=rows, known_targets=rows.y)
    part = data.subset(slice(10, 20)).subset(torch.tensor([1, 3]))
    assert len(part) == 2
    assert torch.equal(part.batch(slice(None))[0][0], rows.x[[11, 13]])
    assert torch.equal(part.targets, rows.y[[11, 13]])
    assert data.subset(slice(0, 20)).subset(torch.arange(20) % 2 == 0).targets.shape == (10,)


def test_fingerprint_follows_content_and_length():
    one, other, shorter = Rows(), Rows(), Rows(39)
    prints = [StreamedData(dataset=rows).fingerprint() for rows in (one, other, shorter)]
    assert prints[0] == prints[1] != prints[2]
    other.x[0] += 1
    assert StreamedData(dataset=other).fingerprint() != prints[0]


def test_data_that_would_fill_the_memory_is_streamed(monkeypatch):
    assert isinstance(as_examples(Rows(), "train")[0], TensorData)
    monkeypatch.setattr(splits, "_MEMORY_SHARE", 1e-12)
    assert isinstance(as_examples(Rows(), "train")[0], StreamedData)


def test_a_loader_brings_its_collate_and_its_workers(monkeypatch):
    def collate(rows):
        x, y = zip(*rows, strict=True)
        return torch.tensor(np.stack(x)) + 1, torch.tensor(y)

    loader = DataLoader(Rows(), batch_size=4, num_workers=2, collate_fn=collate)
    data, _ = as_examples(loader, "train")
    assert torch.equal(data.inputs[0], Rows().x + 1)
    monkeypatch.setattr(splits, "_MEMORY_SHARE", 1e-12)
    assert as_examples(loader, "train")[0].n_workers == 2


def test_a_plain_loader_is_taken_as_its_data_set():
    data, _ = as_examples(DataLoader(Rows(), batch_size=4, shuffle=True), "train")
    assert torch.equal(data.inputs[0], Rows().x)


def _taken(**options):
    data, _ = as_examples(DataLoader(Rows(), **options), "train")
    return data.inputs[0]


@pytest.mark.parametrize("chosen", [[3, 1, 7], torch.tensor([3, 1, 7])])
def test_rows_that_a_sampler_leaves_out_are_left_out(chosen):
    sampler = SubsetRandomSampler(chosen)
    assert torch.equal(_taken(batch_size=2, sampler=sampler), Rows().x[[3, 1, 7]])
    batches = BatchSampler(sampler, 2, drop_last=True)
    assert torch.equal(_taken(batch_sampler=batches), Rows().x[[3, 1, 7]])
    assert torch.equal(_taken(sampler=SequentialSampler(range(10))), Rows().x[:10])
    assert torch.equal(_taken(sampler=RandomSampler(Rows(), num_samples=5)), Rows().x)


class _Evens(Sampler):
    def __iter__(self):
        return iter(range(0, 40, 2))


@pytest.mark.parametrize(
    ("options", "name", "hint"),
    [
        (
            {"sampler": WeightedRandomSampler([1.0] * 40, 40)},
            "WeightedRandomSampler",
            "Give the data set itself, and weight rare classes in `Task.loss`.",
        ),
        ({"sampler": _Evens()}, "_Evens", "give `torch.utils.data.Subset(dataset, indices)`"),
        ({"sampler": [0, 2]}, "list", "give `torch.utils.data.Subset(dataset, indices)`"),
        ({"batch_sampler": [[0, 2]]}, "list", "give `torch.utils.data.Subset(dataset, indices)`"),
        ({"batch_sampler": BatchSampler(_Evens(), 2, False)}, "_Evens", "Subset"),
    ],
)
def test_a_sampler_that_would_be_lost_is_refused(options, name, hint):
    with pytest.raises(InputError) as caught:
        as_examples(DataLoader(Rows(), **options), "val")
    assert "All rows of the val split must be drawn equally often" in caught.value.message
    assert f"a sampler of its own, {name}." in caught.value.message
    assert hint in caught.value.hint


class _Random(Rows):
    def __getitem__(self, index):
        return torch.randn(4), 0


class _Stream(IterableDataset):
    def __iter__(self):
        return iter([])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_Random(), "The val split must give the same example each time"),
        (_Stream(), "must be a map-style data set, whose rows can be drawn in any order"),
        (StreamedData(dataset=Rows(0)), "The val split must hold at least one example"),
        (StreamedData(dataset=Rows(), collate=lambda rows: 1 / 0), "ZeroDivisionError"),
        (
            StreamedData(dataset=Rows(), collate=lambda rows: (torch.zeros(1), torch.zeros(1))),
            "with a row for each example",
        ),
        (DataLoader(_Stream()), "but got an IterableDataset"),
        (DataLoader(Rows(), batch_size=None), "but its DataLoader has batch_size=None"),
    ],
)
def test_what_cannot_be_drawn_from_is_refused(data, message):
    with pytest.raises(InputError) as caught:
        as_examples(data, "val")
    assert message in caught.value.message


class _Ragged(Rows):
    def __getitem__(self, index):
        return torch.ones(index + 1), torch.zeros(index + 1)


class _Widening(Rows):
    def __getitem__(self, index):
        return torch.ones(4 if index < 256 else 5), 0


def _padded(rows):
    inputs, targets = zip(*rows, strict=True)
    return nn.utils.rnn.pad_sequence(inputs, True), torch.tensor([len(t) for t in targets])


def _targets_padded(rows):
    inputs, targets = zip(*rows, strict=True)
    return torch.tensor([len(x) for x in inputs]), nn.utils.rnn.pad_sequence(targets, True)


@pytest.mark.parametrize("collate", [_padded, _targets_padded])
@pytest.mark.parametrize("n_rows", [40, 300])  # fewer and more than are read at once
def test_a_collate_that_pads_batches_to_different_lengths_is_refused(collate, n_rows):
    with pytest.raises(InputError) as caught:
        as_examples(_Ragged(n_rows), "train", collate)
    assert caught.value.message == (
        "`collate` must pad every batch to the same length, but of the train split it made rows "
        f"of shapes (2,) and ({min(n_rows, 256)},)."
    )
    assert caught.value.hint == (
        "Pad to a fixed length, such as that of the longest example of all splits."
    )


def test_rows_of_two_shapes_are_refused_wherever_the_second_begins():
    with pytest.raises(InputError) as caught:
        as_examples(_Widening(300), "val")
    assert "but has rows of shapes (4,) and (5,)" in caught.value.message
    assert "Task.collate" in caught.value.hint


def test_unlabelled_inputs_need_training_data_in_memory():
    task = Task(
        model=nn.Linear(4, 3), train=StreamedData(dataset=Rows()), unlabelled=torch.randn(4, 4)
    )
    with pytest.raises(InputError, match="`train` is streamed"):
        prepare_task(task)


def test_labels_of_streamed_data_are_looked_at_without_reading_all_of_them():
    rows = Rows(500)
    rows.y[:] = 3
    with pytest.raises(InputError, match=r"must lie in \[0, 2\]"):
        prepare_task(Task(model=nn.Linear(4, 3), train=StreamedData(dataset=rows)))
    assert rows.n_read < 150
