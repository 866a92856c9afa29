"""The embedded digits task, spelled out: what a task file looks like for images.

    autocompress search examples/01_digits.py --budget 50

The network has been trained before (on first use, in about ten seconds); what follows is how any
trained image classifier is handed over.
"""

from autocompress.tasks.base import Task
from autocompress.tasks.digits import digits, digits_splits
from autocompress.tasks.images import crop_and_flip


def task() -> Task:
    model = digits().model
    # uint8 images, int64 labels and a normalisation each: TensorData((images,), labels, transform).
    # `val` judges the candidates; `test` is read only when a point is exported.
    train, val, test = digits_splits()
    return Task(
        model=model,
        train=train,
        val=val,
        test=test,
        name="digits",
        augment=crop_and_flip(pad=1, flip=False),
        batch_size=64,
        learning_rate=0.02,
        proxy_epochs=5,
    )
