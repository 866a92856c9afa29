"""Image classification: any `AutoModelForImageClassification` on folders, parquet or hub data.

Images are resized and cropped once, by the model's own image processor, and kept in uint8;
rescaling and normalisation happen batch by batch. Dimension key: `N` images, `C` channels, `H`
rows, `W` columns.
"""

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autocompress.errors import InputError, first_line
from autocompress.tasks.base import Inputs, Task, TensorData
from autocompress.tasks.huggingface.extra import datasets
from autocompress.tasks.huggingface.labels import check_single_label, labelled_rows
from autocompress.tasks.huggingface.pretrained import read_image_processor, read_model
from autocompress.tasks.huggingface.request import Request
from autocompress.tasks.huggingface.rows import Splits, choose_column
from autocompress.tasks.huggingface.tensor_model import ImageClassifier

_USUAL = ("image", "img", "images", "pixel_values", "picture", "jpg", "png")
_CHUNK = 256  # images that are decoded at a time
_BATCH_SIZE, _LEARNING_RATE = 64, 0.002


def image_classification(request: Request, splits: Splits) -> Task:
    """Make the task; see `factory.hf`.

    Raises:
        InputError: If model, processor or data cannot be used.
    """
    check_single_label(request.config)
    processor = read_image_processor(request.model)
    model = ImageClassifier(
        read_model("AutoModelForImageClassification", request.model, request.config)
    )
    parts: dict[str, TensorData | None] = {}
    for split in ("train", "val", "test"):
        rows = getattr(splits, split)
        parts[split] = None if rows is None else _read(rows, request, processor, split)
    assert parts["train"] is not None
    return Task(
        model=model,
        train=parts["train"],
        val=parts["val"],
        test=parts["test"],
        name=request.task_name,
        batch_size=request.batch_size or _BATCH_SIZE,
        learning_rate=request.learning_rate or _LEARNING_RATE,
        proxy_epochs=request.proxy_epochs,
    )


def _read(rows: Any, request: Request, processor: Any, split: str) -> TensorData | None:
    column = choose_column(rows, request.image, _USUAL, "image", _image_columns(rows))
    found = labelled_rows(rows, request, split)
    if found is None:
        return None
    rows, labels = found
    rows = rows.cast_column(column, datasets().Image(mode=_mode(request.config)))
    chunks = []
    for start in range(0, len(rows), _CHUNK):
        chunks.append(_resized(rows[start : start + _CHUNK][column], processor, split))
    return TensorData((torch.cat(chunks),), labels, _transform(processor))


def _image_columns(rows: Any) -> list[str]:
    is_image = datasets().Image
    return [name for name, feature in rows.features.items() if isinstance(feature, is_image)]


def _mode(config: Any) -> str:
    return "L" if getattr(config, "num_channels", 3) == 1 else "RGB"


def _resized(images: list[Any], processor: Any, split: str) -> Tensor:
    """Images of any size -> uint8 (N, C, H, W)."""
    arrays = [np.asarray(image) for image in images]
    arrays = [array if array.ndim == 3 else array[:, :, None] for array in arrays]
    try:
        pixels = processor(
            arrays,
            do_rescale=False,
            do_normalize=False,
            input_data_format="channels_last",
            return_tensors="pt",
        )["pixel_values"]
    except Exception as error:  # of whichever processor the model has
        raise InputError(
            f"The model's image processor must take the {split} images, but raised "
            f"{type(error).__name__}: {first_line(error)}."
        ) from error
    if pixels.ndim != 4:
        raise InputError(
            "The model's image processor must return images (N, C, H, W), but returned "
            f"{tuple(pixels.shape)}."
        )
    rounded: Tensor = pixels.round().clamp(0, 255) if pixels.is_floating_point() else pixels
    return rounded.to(torch.uint8)


def _transform(processor: Any) -> Any:
    """What the processor does after resizing, for whole batches."""
    factor = processor.rescale_factor if processor.do_rescale else 1.0
    offset = -1.0 if getattr(processor, "rescale_offset", False) else 0.0
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else (0, 1)
    return functools.partial(
        _normalized,
        factor=factor,
        offset=offset,
        mean=torch.as_tensor(mean, dtype=torch.float32).reshape(-1, 1, 1),
        std=torch.as_tensor(std, dtype=torch.float32).reshape(-1, 1, 1),
    )


def _normalized(
    inputs: Inputs, *, factor: float, offset: float, mean: Tensor, std: Tensor
) -> Inputs:
    return ((inputs[0].float() * factor + offset - mean) / std,)
