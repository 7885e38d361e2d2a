"""The training batches of the recorded runs: complete, reproducible, and from the same random numbers."""

import tracemalloc

import numpy as np
import pytest

from data_utils.images.augment import shift
from data_utils.loader import Loader, Prefetch
from lessons.common import Batches


def numbered(n=10, size=4, seed=0):
    return Batches(np.arange(n) * 1.0, np.arange(n), size, seed)


def test_an_epoch_is_every_sample_once_in_an_order_of_its_own():
    batches = numbered()
    orders = [np.concatenate([y for _, y in batches(epoch)]).tolist() for epoch in (0, 1, 0)]
    assert sorted(orders[0]) == list(range(10)) and orders[0] == orders[2] != orders[1]
    assert [len(y) for _, y in batches(0)] == [4, 4, 2] and len(batches) == len(batches(0)) == 3
    as_it_stands = [y for _, y in batches]  # plain iteration
    assert np.concatenate(as_it_stands).tolist() == list(range(10))
    other = np.concatenate([y for _, y in numbered(seed=1)(0)]).tolist()
    assert other != orders[0]
    assert all(np.array_equal(x, y) for x, y in batches(3))  # images and labels stay together


def test_batches_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="3 images, 2 labels"):
        Batches(np.ones(3), np.ones(2), 1)
    with pytest.raises(ValueError, match="batches of 0"):
        numbered(size=0)


def test_batches_augment_an_epoch_and_nothing_else():
    images, labels = np.ones((6, 4, 4, 1)), np.arange(6)

    def noise(images, rng):
        return images + rng.standard_normal(images.shape)

    batches = Batches(images, labels, 4, augment=noise)
    epochs = [np.concatenate([x for x, _ in batches(epoch)]) for epoch in (0, 1, 0)]
    assert np.array_equal(epochs[0], epochs[2]) and not np.array_equal(epochs[0], epochs[1])
    assert all((x == 1).all() for x, _ in batches)


def test_batches_of_recorded_runs_stay_as_they_were():
    images, labels = np.arange(24.0).reshape(6, 2, 2, 1), np.arange(6)
    rng = np.random.default_rng((7, 3))  # one stream an epoch: the order, then the augmentation of all images
    order = rng.permutation(6)
    expected = shift(images[order], rng, 0.5)
    batches = list(Batches(images, labels, 4, seed=7, augment=shift)(3))
    assert np.array_equal(np.concatenate([x for x, _ in batches]), expected)
    assert np.array_equal(np.concatenate([y for _, y in batches]), order)


# ---------------------------------------------------------------- next to a Loader


def test_a_loader_shuffles_in_the_same_order():
    loader = Loader(np.arange(10) * 1.0, np.arange(10), 4)
    for epoch in (0, 1):
        for (_, one), (_, other) in zip(numbered()(epoch), loader(epoch), strict=True):
            assert np.array_equal(one, other)


def test_an_epoch_is_copied_as_a_whole():
    images, labels = np.zeros((64, 100, 100, 1), "float32"), np.arange(64)  # 2.56 MB
    tracemalloc.start()
    for x, _ in Batches(images, labels, 2)(0):
        assert x.shape == (2, 100, 100, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak > 2_000_000  # a Loader stays below 400,000, see tests/data_utils/test_loader.py


@pytest.mark.parametrize("depth", [1, 3, 50])
def test_prefetching_changes_nothing(depth):
    plain = numbered(size=3)
    ahead = Prefetch(plain, depth)
    assert len(ahead) == len(ahead(0)) == 4
    for one, two in ((plain, ahead), (plain(2), ahead(2))):
        for _ in range(2):  # again from the beginning
            for (x, labels), (y, others) in zip(one, two, strict=True):
                assert np.array_equal(x, y) and np.array_equal(labels, others)
