from types import SimpleNamespace

from tests.needs import need_extra

need_extra("hf")
import datasets
import pytest

from autocompress.errors import InputError
from autocompress.tasks.huggingface.labels import check_single_label, label_column, read_labels

CONFIG = SimpleNamespace(id2label={0: "NEGATIVE", 1: "POSITIVE"}, num_labels=2, problem_type=None)


def _rows(values, names=None):
    rows = datasets.Dataset.from_dict({"label": values})
    if names is None:
        return rows
    return rows.cast_column("label", datasets.ClassLabel(names=names))


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([1, 0, 1], None),
        ([True, False, True], None),
        (["positive", "Negative", "POSITIVE"], None),
        (["1", "0", "1"], None),
        ([0, 1, 0], ["positive", "negative"]),  # by name, not by number
        ([1, 0, 1], ["bad", "good"]),  # no names of the model's: by number
        ([0, 1, 0], ["positive", "negative", "mixed"]),  # no row is of the one that is not there
    ],
)
def test_labels_are_the_models_numbers(values, names):
    labels, kept = read_labels(_rows(values, names), "label", CONFIG, "train")
    assert labels.tolist() == [1, 0, 1]
    assert kept == [0, 1, 2]


def test_labels_that_are_kept_back_are_left_out():
    labels, kept = read_labels(_rows([0, -1, None, 1]), "label", CONFIG, "test")
    assert (labels.tolist(), kept) == ([0, 1], [0, 3])


@pytest.mark.parametrize(
    ("values", "problem"),
    [([0, 2], r"\[0, 1\].*holds 2"), (["good"], "holds 'good'"), ([0.5], "holds '0.5'")],
)
def test_labels_that_are_none_of_the_models_are_refused(values, problem):
    with pytest.raises(InputError, match=problem):
        read_labels(_rows(values), "label", CONFIG, "train")


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([0, 1, 2], ["positive", "mixed", "negative"]),
        ([0, 1], ["1", "negative"]),
        ([0], ["mixed", "negative"]),
        (["positive", "1"], None),
    ],
)
def test_names_that_are_only_in_part_the_models_are_refused(values, names):
    with pytest.raises(InputError, match="must all be the model's classes, as some are") as e:
        read_labels(_rows(values, names), "label", CONFIG, "train")
    assert f"holds '{1 if '1' in (names or values) else 'mixed'}'." in e.value.message
    assert e.value.hint == "The model's id2label has: negative, positive."


def test_data_without_labels_is_refused():
    rows = datasets.Dataset.from_dict({"text": ["a"], "stars": [3]})
    with pytest.raises(InputError, match=r"one column of labels.*columns: text, stars") as e:
        label_column(rows, None)
    assert e.value.hint == "Name it: `arguments.label=COLUMN`"


@pytest.mark.parametrize(
    ("n_labels", "problem"), [(1, None), (3, "multi_label_classification"), (1, "regression")]
)
def test_other_outputs_than_one_class_are_refused(n_labels, problem):
    with pytest.raises(InputError, match="one class among several"):
        check_single_label(SimpleNamespace(num_labels=n_labels, problem_type=problem))
