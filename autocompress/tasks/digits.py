"""The embedded default task: scikit-learn's handwritten digits and a small residual network.

Nothing is downloaded. The network is trained on first use and kept in the user's cache folder
under a name that changes whenever its architecture, recipe, data or torch version does.
"""

import dataclasses
import hashlib
import json

import numpy as np
import torch
from torch import Tensor, nn

from autocompress.tasks.base import Task, TensorData
from autocompress.tasks.base_training import TrainingRecipe, own_torch_state, train_classifier
from autocompress.tasks.images import crop_and_flip, normalize
from autocompress.tasks.model_cache import load_or_train
from autocompress.tasks.residual_cnn import ResidualCnn

# Mean and standard deviation over the training images, on the [0, 1] scale.
_MEAN, _STD = 0.287, 0.354
_SPLIT_SEED = 0


def digits() -> Task:
    """The task behind `autocompress search` without arguments: 8×8 digits, ten classes."""
    return digits_task(TrainingRecipe())


def digits_task(recipe: TrainingRecipe, widths: tuple[int, int, int] = (32, 64, 96)) -> Task:
    """Make the digits task with a network trained by `recipe`, or taken from the cache.

    The caller's random state, thread count and gradient mode are left as they were.

    Args:
        recipe: How to train.
        widths: Channels of the network's three stages.
    """
    train, val, test = digits_splits()
    augment = crop_and_flip(1, flip=False)
    with own_torch_state(recipe.n_threads):
        model = ResidualCnn(widths).float()
        load_or_train(
            model,
            name="digits",
            content=_content(model, recipe, train),
            train=lambda: train_classifier(model, train, augment, recipe, "digits"),
        )
    return Task(
        model=model,
        train=train,
        val=val,
        test=test,
        name="digits",
        augment=augment,
        batch_size=64,
        learning_rate=0.02,
        proxy_epochs=5,
    )


def digits_splits() -> tuple[TensorData, TensorData, TensorData]:
    """Split the 1,797 digits into train, val and test: 60/20/20 %, stratified, always the same.

    Returns:
        Images of shape (N, 1, 8, 8) in uint8, and labels of shape (N,).
    """
    # Here, not above: scikit-learn takes a second to import, and not every task needs it.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    # Grey levels 0-16 spread over 0-240, without loss, so that they are ordinary uint8 images.
    images = torch.from_numpy((pixels * 15).astype(np.uint8)).view(-1, 1, 8, 8)
    order = np.arange(len(labels))
    rest, test = train_test_split(order, test_size=0.2, stratify=labels, random_state=_SPLIT_SEED)
    train, val = train_test_split(
        rest, test_size=0.25, stratify=labels[rest], random_state=_SPLIT_SEED
    )
    targets = torch.from_numpy(labels.astype(np.int64))
    standardize = normalize(_MEAN, _STD)

    def split(indices: np.ndarray[tuple[int], np.dtype[np.int64]]) -> TensorData:
        chosen: Tensor = torch.from_numpy(np.sort(indices))
        return TensorData((images[chosen],), targets[chosen], standardize)

    return split(train), split(val), split(test)


def _content(model: nn.Module, recipe: TrainingRecipe, train: TensorData) -> str:
    """Hash of everything the trained weights depend on."""
    major, minor = torch.__version__.split(".")[:2]
    parts = {
        "architecture": str(model),
        "recipe": dataclasses.asdict(recipe),
        "data": train.fingerprint(),
        "normalization": [_MEAN, _STD],
        "torch": f"{major}.{minor}",
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
