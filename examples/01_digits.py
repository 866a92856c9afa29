"""The embedded digits task, spelled out: what a task file looks like for images.

    autocompress search examples/01_digits.py --budget 50

The network is trained on first use, in about ten seconds. Any trained image classifier becomes a
task in the same way.
"""

from autocompress.tasks.base import Task
from autocompress.tasks.digits import digits, digits_splits
from autocompress.tasks.images import crop_and_flip


def task() -> Task:
    model = digits().model
    # Each split is TensorData((images,), labels, transform): uint8, int64, a normalisation.
    # Candidates are judged on `val`; `test` is read only when a point is exported.
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
