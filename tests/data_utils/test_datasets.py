"""Every data set by its name: what is refused, and what reaches the loaders."""

import numpy as np
import pytest

from data_utils.datasets import NAMES, open_data
from data_utils.events.sets import SETS
from data_utils.loader import Loader, Until

from .common import write_mnist


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=f"no data set 'minst'; there are {', '.join(NAMES)}$"):
        open_data("minst", batch_size=4)


def test_the_digits_take_no_folder(tmp_path):
    with pytest.raises(ValueError, match=f"come with scikit-learn: there is nothing to read in {tmp_path}"):
        open_data("digits", str(tmp_path), batch_size=4)


@pytest.mark.parametrize("name", SETS)
def test_event_sets_refuse_changes_of_images(name):
    with pytest.raises(ValueError, match="event frames have their own changes, and no flip, erase$"):
        open_data(name, batch_size=4, flip=0.5, shift=0.0, erase=0.1)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_images_become_batches(tmp_path, rng, name):
    write_mnist(tmp_path, rng)  # 6 images to train on, 4 to test on
    train, test, classes = open_data(name, str(tmp_path), batch_size=4, seed=3, shift=0.5, mixup=0.2)
    assert classes == 10 and len(train) == 2 and len(test) == 1 and isinstance(train, Loader)
    assert (train.seed, train.augment.shift, train.augment.mixup) == (3, 0.5, 0.2)
    images, targets = train(0)[0]
    assert images.shape == (4, 32, 32, 1) and targets.shape == (4, 10)
    assert [labels.shape for _, labels in test] == [(4,)]
    until, _, _ = open_data(name, str(tmp_path), batch_size=4, mixup=0.2, mixup_until=1)
    assert isinstance(until, Until) and (until.first.augment.mixup, until.then.augment.mixup) == (0.2, 0)


def test_a_batch_larger_than_the_set_holds_all_of_it(tmp_path, rng):
    write_mnist(tmp_path, rng)
    train, test, _ = open_data("mnist", str(tmp_path), batch_size=1000)
    assert (train.size, len(train), test.size, len(test)) == (6, 1, 4, 1)
    assert np.array_equal(np.sort(train(0)[0][1]), np.sort(train.labels))


@pytest.mark.parametrize(
    "options, told",
    [({"flip": 2.0}, "flip must be between 0 and 1"), ({"mixup": -1.0}, "mixup must be a finite number"),
     ({"mixup": 0.5, "mixup_until": -1}, "epoch -1"), ({"policy": 0.5}, "operations work on bytes")],
)  # fmt: skip
def test_wrong_numbers_are_refused_before_the_first_batch(tmp_path, rng, options, told):
    write_mnist(tmp_path, rng)
    with pytest.raises(ValueError, match=told):
        open_data("mnist", str(tmp_path), batch_size=4, **options)
