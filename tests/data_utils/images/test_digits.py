"""The digits: one fixed split, complete and standardised."""

import sys

import numpy as np
import pytest

from data_utils.images.digits import load_digits


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
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"pip install 'minispike\[lessons\]'"):
        load_digits()
