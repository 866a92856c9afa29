import pytest
import torch

from autocompress.errors import InputError
from autocompress.tasks.factory import load_task


@pytest.fixture
def load(saved_model, sentences):
    def of(name="bert", **arguments):
        return load_task(
            "hf", {"model": str(saved_model(name)), "dataset": str(sentences), **arguments}
        )

    return of


def test_length_is_the_least_that_holds_the_texts(load):
    tokens, mask = load().train.inputs
    assert tokens.shape == mask.shape == (48, 16)
    assert mask.sum(dim=1).min() < 16
    assert torch.equal(tokens == 0, mask == 0)


def test_texts_are_cut_at_the_length_that_is_asked(load):
    tokens, mask = load(length="4").train.inputs
    assert tokens.shape == (48, 4)
    assert bool((mask == 1).all())


def test_padding_changes_nothing(load):
    short, long = load(length="12"), load(length="20")
    with torch.no_grad():
        outputs = [t.model(*t.val.batch(slice(0, 5))[0]) for t in (short, long)]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)


def test_pairs_know_which_sentence_is_which(load, tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text(
        "premise,hypothesis,label\nthe film,was good,positive\na plot,was dull,negative\n"
    )

    train = load(dataset=str(path)).train

    tokens, _, types = train.inputs
    assert types[0][: int((tokens[0] != 0).sum())].tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert train.targets.tolist() == [1, 0]


def test_pair_may_have_columns_of_any_name(load, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"one": "the film", "two": "was good", "label": 1}\n' * 2)
    train = load("distilbert", dataset=str(path), text="one", pair="two").train
    assert len(train.inputs) == 2  # DistilBERT has no types
    assert train.inputs[1][0].sum() == 7


_UNLABELLED = [
    ("label\tsentence\n-1\tthe film\n", "all of them are kept back"),
    ("sentence\nthe film\n", r"has no column of them .columns: sentence."),
]


@pytest.fixture
def with_test(sentences, tmp_path):
    def write(text):
        for name in ("train", "dev"):
            (tmp_path / f"{name}.tsv").write_text((sentences / f"{name}.tsv").read_text())
        (tmp_path / "test.tsv").write_text(text)
        return str(tmp_path)

    return write


@pytest.mark.parametrize("text", [text for text, _ in _UNLABELLED])
@pytest.mark.parametrize("arguments", [{}, {"label": "label"}])
def test_test_split_without_labels_is_none(load, with_test, text, arguments):
    task = load(dataset=with_test(text), **arguments)
    assert task.test is None
    assert len(task.val) == 12


@pytest.mark.parametrize(("text", "problem"), _UNLABELLED)
@pytest.mark.parametrize("split", ["val", "test"])
def test_split_that_is_asked_for_must_have_labels(load, with_test, text, problem, split):
    with pytest.raises(InputError, match=f"The {split} split must have labels, but {problem}"):
        load(dataset=with_test(text), **{f"{split}_split": "test"})


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"length": "64"}, "`length` must be at most the model's 32 tokens, but got 64"),
        ({"text": "words"}, "Unknown column given by `text`: 'words'"),
        ({"label": "sentence"}, "must be the model's, but column 'sentence' holds"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(load, arguments, problem):
    with pytest.raises(InputError, match=problem):
        load(**arguments)


def test_data_without_a_text_is_refused(load, tmp_path):
    (tmp_path / "rows.csv").write_text("number,label\n1,0\n2,1\n")
    with pytest.raises(InputError, match="one column of texts, but none of its columns is"):
        load(dataset=str(tmp_path / "rows.csv"))
