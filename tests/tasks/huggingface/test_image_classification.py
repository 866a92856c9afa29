import io

import numpy as np
import pytest
import torch

from autocompress.errors import InputError
from autocompress.tasks.factory import load_task


@pytest.fixture
def load(saved_model, pictures):
    def of(name="vit", **arguments):
        return load_task(
            "hf", {"model": str(saved_model(name)), "dataset": str(pictures), **arguments}
        )

    return of


def test_images_are_kept_as_bytes_and_normalised_as_the_processor_does(load, saved_model, pictures):
    from PIL import Image
    from transformers import AutoImageProcessor

    task = load()
    path = pictures / "train" / "negative" / "0.png"
    processor = AutoImageProcessor.from_pretrained(saved_model("vit"), backend="pil")

    expected = processor(Image.open(path), return_tensors="pt")["pixel_values"]

    assert task.train.inputs[0].dtype == torch.uint8
    assert task.train.inputs[0].shape == (40, 3, 8, 8)
    (pixels,), _ = task.train.batch(slice(0, 1))
    torch.testing.assert_close(pixels, expected, atol=1e-5, rtol=0)


def test_folders_are_the_models_classes_and_val_is_carved(load):
    from autocompress.tasks.prepare import prepare_task

    task = load()

    assert task.train.targets.bincount().tolist() == [20, 20]
    brightness = task.train.inputs[0].float().mean((1, 2, 3))
    assert brightness[task.train.targets == 1].min() > brightness[task.train.targets == 0].max()
    assert len(task.test) == 8
    assert prepare_task(task).is_val_carved


def test_parquet_with_bytes_is_read(load, tmp_path):
    import datasets
    from PIL import Image

    def png(level):
        file = io.BytesIO()
        Image.fromarray(np.full((6, 6, 3), level, dtype=np.uint8)).save(file, "png")
        return {"bytes": file.getvalue(), "path": None}

    rows = datasets.Dataset.from_dict({"img": [png(0), png(255)], "label": [0, 1]})
    rows.to_parquet(tmp_path / "train.parquet")

    train = load(dataset=str(tmp_path)).train

    assert train.inputs[0].float().mean((1, 2, 3)).tolist() == [0.0, 255.0]


def test_class_that_is_none_of_the_models_is_refused(load, pictures, tmp_path):
    import shutil

    shutil.copytree(pictures / "train", tmp_path / "train")
    shutil.copytree(pictures / "train" / "negative", tmp_path / "train" / "third")
    with pytest.raises(
        InputError, match=r"must all be the model's classes.* 'label' holds 'third'"
    ):
        load(dataset=str(tmp_path))


@pytest.mark.parametrize(("arguments", "problem"), [({}, None), ({"test_split": "test"}, "test")])
def test_test_images_without_labels_are_none_unless_asked_for(
    load, pictures, tmp_path, arguments, problem
):
    import datasets
    from PIL import Image

    picture = Image.new("RGB", (8, 8))
    train = datasets.Dataset.from_dict({"image": [picture] * 4, "label": [0, 1, 0, 1]})
    test = datasets.Dataset.from_dict({"image": [picture] * 2})
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk(tmp_path / "kept")

    if problem is None:
        assert load(dataset=str(tmp_path / "kept")).test is None
    else:
        with pytest.raises(InputError, match="The test split must have labels, but has no column"):
            load(dataset=str(tmp_path / "kept"), **arguments)


def test_data_without_images_is_refused(load, sentences):
    with pytest.raises(InputError, match="one column of images, but none of its columns is"):
        load(dataset=str(sentences))
