"""Fashion-MNIST in small, and Fashion-DVS made from it."""

import numpy as np
import pytest

from data_utils.events.fashion_dvs import make_fashion_dvs

from ..common import idx
from .recordings import QUICK


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Fashion-MNIST's four files with 3 + 2 images of each class: a bright block, each in its own place."""
    root, rng = tmp_path_factory.mktemp("fashion-mnist"), np.random.default_rng(0)
    for part, each in (("train", 3), ("t10k", 2)):
        labels = rng.permutation(np.repeat(np.arange(10), each)).astype("u1")
        images = np.zeros((len(labels), 28, 28), "u1")
        for image, label in zip(images, labels, strict=True):
            y, x = rng.integers(2, 10, 2)
            image[y : y + 5 + label, x : x + 14 - label] = rng.integers(100, 256)
        (root / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (root / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    return root


@pytest.fixture(scope="module")
def made(source, tmp_path_factory):
    root = tmp_path_factory.mktemp("sets") / "fashion-dvs"
    make_fashion_dvs(root, **QUICK, source=source)
    return root
