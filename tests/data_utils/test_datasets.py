"""Every data set by its name: what is refused, and what reaches the loaders."""

import numpy as np
import pytest

from data_utils import datasets
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


def test_a_share_of_the_training_samples_takes_the_place_of_the_test(tmp_path, rng):
    write_mnist(tmp_path, rng, n=(60, 4))
    whole, _, _ = open_data("mnist", str(tmp_path), batch_size=6)
    train, test, _ = open_data("mnist", str(tmp_path), batch_size=6, val_split=0.5, shift=0.5)
    assert train.n_samples + test.n_samples == 60 and train.augment.shift == 0.5 and test.augment is None
    parts = [np.concatenate([images for images, _ in each]) for each in (train, test, whole)]
    rows = [{images.tobytes() for images in part} for part in parts]
    assert rows[0] | rows[1] == rows[2] and not rows[0] & rows[1]


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


def test_digits_by_name():
    train, test, classes = open_data("digits", batch_size=32, shift=0.3)
    images, labels = train(0)[1]
    assert (
        images.shape == (32, 8, 8, 1)
        and images.dtype == "float32"
        and labels.shape == (32,)
        and classes == 10
    )
    assert len(train) == 45 and sum(len(labels) for _, labels in test) == 360
    plain = open_data("digits", batch_size=32)[0](0)[1][0]
    assert not np.array_equal(images, plain) and np.array_equal(images, train(0)[1][0])


def test_mixup_ends_when_the_recipe_says():
    train, _, _ = open_data("digits", batch_size=32, mixup=0.5, mixup_until=2)
    assert isinstance(train, Until) and len(train) == 45
    assert [train(epoch)[0][1].ndim for epoch in range(4)] == [2, 2, 1, 1]
    mixed, plain = (open_data("digits", batch_size=32, mixup=mixup)[0] for mixup in (0.5, 0))
    for epoch, loader in ((1, mixed), (2, plain)):
        whole = list(loader(epoch))
        for a, b in zip(train(epoch, 3), whole[3:], strict=True):  # from a step on, as well
            assert np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1])
    assert open_data("digits", batch_size=32, mixup=0.5)[0](99)[0][1].ndim == 2  # 0: to the end


def test_image_folders_by_name(tmp_path, rng):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    for part in ("train", "val"):
        for name in ("cat", "dog", "eel"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(2):
                pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
                image.fromarray(pixels).save(tmp_path / part / name / f"{i}.png")
    train, test, classes = open_data(
        "tiny-imagenet", str(tmp_path), batch_size=4, size=32, flip=0.5, policy=0.5
    )
    assert train(0)[0][0].shape == next(iter(test))[0].shape == (4, 32, 32, 3) and classes == 3
    assert next(iter(train))[0].shape == (4, 32, 32, 3)
    with pytest.raises(FileNotFoundError, match="say where its folders train and val are"):
        open_data("imagenet", batch_size=4)


@pytest.mark.parametrize(
    "name, told",
    [
        ("mnist", "load_mnist needs in"),
        ("fashion-mnist", "load_fashion_mnist needs in"),
        ("cifar10", "no CIFAR-10 in"),
        ("cifar100", "no CIFAR-100 in"),
    ],
)
def test_a_name_opens_its_own_set_in_the_root(tmp_path, name, told):
    with pytest.raises(FileNotFoundError, match=f"^{told} {tmp_path}"):
        open_data(name, str(tmp_path), batch_size=1)


def test_cifars_classes_and_filling_are_its_own(monkeypatch):
    pair = np.zeros((2, 32, 32, 3), np.uint8), np.arange(2)
    for name, (_, classes) in list(datasets.CIFAR.items()):
        monkeypatch.setitem(datasets.CIFAR, name, (lambda root: (pair, pair), classes))
        train, _, found = open_data(name, batch_size=2)
        assert found == classes and train.augment.fill.tolist() == [125, 123, 114]  # 255 · the mean


def test_image_folders_are_standardised_by_imagenets_numbers(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    for part in ("train", "val"):
        (tmp_path / part / "cat").mkdir(parents=True)
        image.new("RGB", (40, 50), (255, 255, 255)).save(tmp_path / part / "cat" / "0.png")
    train, test, _ = open_data("tiny-imagenet", str(tmp_path), batch_size=1, size=32)
    white = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    for images, _ in (train(0)[0], next(iter(train)), next(iter(test))):
        np.testing.assert_allclose(images, np.broadcast_to(white, (1, 32, 32, 3)), rtol=1e-5)
    assert train.augment.fill.tolist() == [124, 116, 104]
