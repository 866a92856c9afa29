import numpy as np
import pytest


@pytest.fixture
def cifar_arrays():
    """Per batch name: images (3, 3072) uint8 and labels (3,), for a CIFAR-10 of 18 images."""
    generator = np.random.default_rng(0)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    return {
        name: (
            generator.integers(0, 256, (3, 3072), dtype=np.uint8),
            generator.integers(0, 10, 3, dtype=np.int64),
        )
        for name in names
    }
