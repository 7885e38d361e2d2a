"""The digits and their batches: fixed, complete, reproducible."""

import numpy as np
import pytest

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
