"""What the tests of augmentation share."""

import numpy as np
import pytest


@pytest.fixture
def images(rng):
    """[40, 20, 32, 3] bytes: noise, dark noise, images with one level, with a few, and with two."""
    images = rng.integers(0, 256, (40, 20, 32, 3), dtype=np.uint8)
    images[10:20] //= 8
    images[20:25] = 7
    images[25:30] = images[25:30] // 64 * 20 + 3
    images[30:35, 1:] = 255
    return images
