import json

import pytest

from autocompress.errors import InputError
from autocompress.tasks.huggingface.rows import Wanted, choose_column, read_splits, text_columns


def test_tab_separated_folder_is_read_with_its_quotes(sentences):
    splits = read_splits(str(sentences), Wanted())

    assert (len(splits.train), len(splits.val), splits.test) == (48, 12, None)
    assert splits.train[0] == {"label": 0, "sentence": 'the "film was bad'}


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_single_file_is_the_training_split(tmp_path, ending):
    import pandas as pd

    frame = pd.DataFrame({"text": ["a, b", "c"], "label": [0, 1]})
    path = tmp_path / f"rows.{ending}"
    if ending == "csv":
        frame.to_csv(path, index=False)
    elif ending == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in frame.to_dict("records")))
    else:
        frame.to_parquet(path)

    splits = read_splits(str(path), Wanted())

    assert splits.train["text"][:] == ["a, b", "c"]
    assert splits.val is None


def test_folder_of_save_to_disk_is_read(sentences, tmp_path):
    import datasets

    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    datasets.DatasetDict({"train": rows, "validation": rows}).save_to_disk(tmp_path / "kept")

    splits = read_splits(str(tmp_path / "kept"), Wanted())

    assert len(splits.train) == len(splits.val) == 2


def test_rows_are_random_but_always_the_same(sentences):
    first, again = (read_splits(str(sentences), Wanted(max_train=8)).train for _ in range(2))

    assert first["sentence"][:] == again["sentence"][:]
    assert first["label"][:] != [0, 1] * 4


def test_splits_are_taken_by_the_names_that_are_given(sentences):
    splits = read_splits(str(sentences), Wanted(train_split="validation", test_split="train"))
    assert (len(splits.train), len(splits.test)) == (12, 48)


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_only_split_is_for_training_alone(tmp_path, name):
    (tmp_path / f"{name}.csv").write_text("text,label\na,0\nb,1\n")

    splits = read_splits(str(tmp_path), Wanted())

    assert (len(splits.train), splits.val, splits.test) == (2, None, None)


def test_split_that_is_asked_for_plays_no_other_role(sentences):
    splits = read_splits(str(sentences), Wanted(test_split="validation"))
    assert (len(splits.train), splits.val, len(splits.test)) == (48, None, 12)


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        (
            {"val_split": "validation", "test_split": "validation"},
            "`test_split` must be another split than `val_split`, but both are 'validation'",
        ),
        (
            {"val_split": "train"},
            "must have a split `train` beside `val_split`, but has train, validation",
        ),
    ],
)
def test_split_of_two_roles_is_refused(sentences, asked, problem):
    with pytest.raises(InputError, match=problem):
        read_splits(str(sentences), Wanted(**asked))


def test_unknown_split_names_the_choices(sentences):
    with pytest.raises(InputError, match=r"Unknown split .* 'tests'") as e:
        read_splits(str(sentences), Wanted(test_split="tests"))
    assert "train, validation" in e.value.hint


@pytest.mark.parametrize(
    ("name", "problem"),
    [("empty", "must hold files"), ("missing/of/it", "must exist"), ("a.xyz", "ending")],
)
def test_data_that_is_none_is_refused(tmp_path, name, problem):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.xyz").write_text("a")
    with pytest.raises(InputError, match=problem):
        read_splits(str(tmp_path / name), Wanted())


def test_damaged_parquet_is_one_line(tmp_path):
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 and nothing else PAR1")
    with pytest.raises(InputError, match="could not be read") as e:
        read_splits(str(tmp_path / "rows.parquet"), Wanted())
    assert "\n" not in str(e.value)


def test_hub_data_while_offline_is_one_line():
    with pytest.raises(InputError, match="'owner/rows' could not be read") as e:
        read_splits("owner/rows", Wanted())
    assert "HF_HUB_OFFLINE is set" in e.value.hint
    assert "\n" not in str(e.value)


def test_limit_below_one_is_refused():
    with pytest.raises(InputError, match="`max_val` must be at least 1, but got 0"):
        Wanted(max_val=0)


def test_subset_of_a_file_is_refused(sentences):
    with pytest.raises(InputError, match=r"`subset` is a configuration .* 'sst2' for .*dev\.tsv"):
        read_splits(str(sentences / "dev.tsv"), Wanted(subset="sst2"))


def _rows(**columns):
    import datasets

    return datasets.Dataset.from_dict(columns)


def test_column_of_a_usual_name_is_taken():
    rows = _rows(id=["x"], Text=["a"], more=["b"])
    assert choose_column(rows, None, ("text",), "text", text_columns(rows)) == "Text"


def test_column_that_is_the_only_one_to_fit_is_taken():
    rows = _rows(words=["a"], label=[0])
    assert choose_column(rows, None, ("text",), "text", text_columns(rows)) == "words"


def test_columns_that_all_could_be_it_are_named():
    rows = _rows(one=["a"], two=["b"])
    with pytest.raises(InputError, match=r"one, two could be it") as e:
        choose_column(rows, None, ("text",), "text", text_columns(rows))
    assert e.value.hint == "Name it: `arguments.text=COLUMN`"


def test_column_that_is_not_there_names_the_others():
    with pytest.raises(InputError, match="'txt'") as e:
        choose_column(_rows(text=["a"]), "txt", (), "text", ())
    assert "Did you mean 'text'" in e.value.hint
