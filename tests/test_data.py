"""The digits and their batches: fixed, complete, reproducible."""

import numpy as np
import pytest

from data_utils.augment import shift
from data_utils.batches import Batches
from data_utils.digits import load_digits


def test_the_digits_are_split_once_and_for_all():
    (train, train_labels), (test, test_labels) = load_digits()
    assert train.shape == (1437, 8, 8, 1) and test.shape == (360, 8, 8, 1) and train.dtype == "float32"
    assert train_labels.dtype == "int64" and set(test_labels) == set(range(10))
    again = load_digits()[1][0]
    assert np.array_equal(test, again)
    shares = np.bincount(test_labels) / np.bincount(np.concatenate([train_labels, test_labels]))
    assert abs(shares - 0.2).max() < 0.005  # class by class
    assert abs(train.mean()) < 1e-5 and abs(train.std() - 1) < 1e-5
    assert not {x.tobytes() for x in train} & {x.tobytes() for x in test}  # nothing is in both


def test_the_splits_settings_count():
    assert len(load_digits(test_fraction=0.5)[1][0]) == 899
    assert not np.array_equal(load_digits(seed=1)[1][0], load_digits()[1][0])


def test_without_scikit_learn_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"pip install 'minispike\[lessons\]'"):
        load_digits()


def numbered(n=10, size=4, seed=0):
    return Batches(np.arange(n) * 1.0, np.arange(n), size, seed)


def test_an_epoch_is_every_sample_once_in_an_order_of_its_own():
    batches = numbered()
    orders = [np.concatenate([y for _, y in batches(epoch)]).tolist() for epoch in (0, 1, 0)]
    assert sorted(orders[0]) == list(range(10)) and orders[0] == orders[2] != orders[1]
    assert [len(y) for _, y in batches(0)] == [4, 4, 2] and len(batches) == len(batches(0)) == 3
    assert np.concatenate([y for _, y in batches]).tolist() == list(
        range(10)
    )  # plain iteration: as it stands
    other = np.concatenate([y for _, y in numbered(seed=1)(0)]).tolist()
    assert other != orders[0]
    assert all(np.array_equal(x, y) for x, y in batches(3))  # images and labels stay together


def test_batches_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="3 images, 2 labels"):
        Batches(np.ones(3), np.ones(2), 1)
    with pytest.raises(ValueError, match="batches of 0"):
        numbered(size=0)


def test_a_shift_moves_by_a_fraction_of_a_pixel():
    image = np.zeros((200, 5, 5, 1))
    image[:, 2, 2] = 1
    moved = shift(image, np.random.default_rng(0))
    np.testing.assert_allclose(moved.sum((1, 2, 3)), 1)  # what leaves one pixel enters the next
    assert moved[:, 2, 2].min() >= 0.25 and moved[:, 2, 2].max() > 0.9  # (1 − ½)² at the least
    rows = (moved.sum(2)[..., 0] * np.arange(5)).sum(1) - 2  # by how much the centre has moved
    assert -0.5 <= rows.min() < -0.45 and 0.45 < rows.max() <= 0.5
    np.testing.assert_allclose(
        shift(np.full((3, 4, 4, 1), 7.0), np.random.default_rng(0)), 7
    )  # borders repeat
    assert np.array_equal(shift(image, np.random.default_rng(0), pixels=0), image)
    with pytest.raises(ValueError, match="up to one pixel, got 2"):
        shift(image, np.random.default_rng(0), 2)


def test_batches_augment_an_epoch_and_nothing_else():
    images, labels = np.ones((6, 4, 4, 1)), np.arange(6)

    def noise(images, rng):
        return images + rng.standard_normal(images.shape)

    batches = Batches(images, labels, 4, augment=noise)
    epochs = [np.concatenate([x for x, _ in batches(epoch)]) for epoch in (0, 1, 0)]
    assert np.array_equal(epochs[0], epochs[2]) and not np.array_equal(epochs[0], epochs[1])
    assert all((x == 1).all() for x, _ in batches)
