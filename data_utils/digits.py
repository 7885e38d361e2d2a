"""scikit-learn's handwritten digits: 1,797 real 8×8 images that come with the package, no download."""

from __future__ import annotations

import numpy as np


def load_digits(test_fraction: float = 0.2, seed: int = 0):
    """Return (train_images, train_labels), (test_images, test_labels): one fixed split, class by class.

    images: float32 [n, 8, 8, 1], standardised with the training images' mean and deviation; labels: int64
    [n].
    """
    try:
        from sklearn.datasets import load_digits as load
    except ImportError as error:
        raise ImportError("the digits come with scikit-learn: pip install 'minispike[lessons]'") from error
    bunch = load()
    images, labels = bunch.images.astype("float32")[..., None] / 16, bunch.target.astype("int64")
    rng, is_test = np.random.default_rng(seed), np.zeros(len(labels), bool)
    for digit in range(10):
        where = rng.permutation(np.flatnonzero(labels == digit))
        is_test[where[: round(test_fraction * len(where))]] = True
    train = images[~is_test]
    images = (images - train.mean()) / train.std()
    return (images[~is_test], labels[~is_test]), (images[is_test], labels[is_test])
