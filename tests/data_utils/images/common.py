"""What the tests of augmentation share."""

import numpy as np

FILL = (125, 123, 114)


def seeded(seed=0):
    return np.random.default_rng(seed)
