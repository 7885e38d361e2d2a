"""MNIST and Fashion-MNIST: padded, standardised, and refused if the files do not fit."""

import gzip

import numpy as np
import pytest

from data_utils.errors import DataFileError
from data_utils.images import mnist
from data_utils.images.idx import read_idx
from data_utils.images.mnist import FILES, load_fashion_mnist, load_mnist

from ..common import idx, write_mnist


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("load", [load_fashion_mnist, load_mnist])
def test_mnist_is_padded_with_black_and_standardised(tmp_path, rng, load, suffix):
    write_mnist(tmp_path, rng, suffix=suffix)
    (train, train_labels), (test, test_labels) = load(tmp_path)
    assert train.shape == (6, 32, 32, 1) and test.shape == (4, 32, 32, 1)
    assert train.dtype == test.dtype == "float32" and train_labels.dtype == test_labels.dtype == "int64"
    raw = read_idx(tmp_path / f"{FILES[0]}{suffix}", 3) / 255
    inner = train[:, 2:-2, 2:-2, 0]
    np.testing.assert_allclose(inner, (raw - raw.mean()) / raw.std(), atol=1e-6)
    black = np.float32(-raw.mean() / raw.std())
    border = np.ones((32, 32), bool)
    border[2:-2, 2:-2] = False
    np.testing.assert_allclose(train[:, border], black, rtol=1e-6)
    raw_test = read_idx(tmp_path / f"{FILES[2]}{suffix}", 3) / 255
    expected = (raw_test - raw.mean()) / raw.std()  # with the training images' statistics
    np.testing.assert_allclose(test[:, 2:-2, 2:-2, 0], expected, atol=1e-6)
    assert np.array_equal(test_labels, read_idx(tmp_path / f"{FILES[3]}{suffix}", 1))


def test_mnist_refuses_files_that_do_not_belong_together(tmp_path, rng):
    write_mnist(tmp_path, rng)
    images, labels = tmp_path / FILES[0], tmp_path / FILES[1]
    good = labels.read_bytes()
    labels.write_bytes(idx(np.zeros(5, "u1")))
    with pytest.raises(DataFileError, match=f"{FILES[1]}, byte 4: 5 labels; expected 6, one per image"):
        load_mnist(tmp_path)
    labels.write_bytes(idx(np.array([0, 1, 10, 3, 11, 5], "u1")))
    with pytest.raises(DataFileError, match=f"{FILES[1]}, byte 10: label 10; expected 0 to 9"):
        load_mnist(tmp_path)
    labels.write_bytes(good)
    for shape in ((6, 28, 27), (0, 28, 28)):
        images.write_bytes(idx(np.zeros(shape, "u1")))
        with pytest.raises(DataFileError, match=r"images of shape .*expected \[n, 28, 28\], n > 0"):
            load_mnist(tmp_path)
    images.write_bytes(idx(np.full((6, 28, 28), 7, "u1")))
    with pytest.raises(DataFileError, match="all pixels have the same value"):
        load_mnist(tmp_path)


def test_label_ten_alone_is_refused(tmp_path, rng):
    write_mnist(tmp_path, rng)
    (tmp_path / FILES[1]).write_bytes(idx(np.array([0, 1, 9, 3, 10, 5], "u1")))
    with pytest.raises(DataFileError, match=f"{FILES[1]}, byte 12: label 10; expected 0 to 9"):
        load_mnist(tmp_path)


def test_missing_mnist_files_are_named(tmp_path, rng):
    write_mnist(tmp_path, rng)
    (tmp_path / FILES[1]).unlink()
    with pytest.raises(
        FileNotFoundError, match=f"load_mnist needs in {tmp_path}: .*missing: {FILES[1]}. The folder"
    ):
        load_mnist(tmp_path)


def test_debians_folder_is_the_first_place_to_look(tmp_path, rng, monkeypatch):
    write_mnist(tmp_path, rng, suffix=".gz")
    monkeypatch.setattr(mnist, "DEBIAN", tmp_path)
    assert len(load_fashion_mnist()[0][0]) == 6


# ---------------------------------------------------------------- the names that people have


def renamed(root, name_of):
    """Move each of the four files in root to name_of(its name)."""
    for name in FILES:
        data = (root / name).read_bytes()
        (root / name).unlink()
        (root / name_of(name)).parent.mkdir(parents=True, exist_ok=True)
        (root / name_of(name)).write_bytes(data)


@pytest.mark.parametrize(
    "name_of",
    [
        lambda name: name.replace("-idx", ".idx"),
        lambda name: f"{name}/{name}",
        lambda name: f"{name.replace('-idx', '.idx')}/{name.replace('-idx', '.idx')}",
        lambda name: f"{name}/{name.replace('-idx', '.idx')}",
        lambda name: f"raw/{name}",
        lambda name: f"MNIST/raw/{name}",
    ],
    ids=["dots", "folder", "folder with dots", "folder, dots inside", "raw", "torchvision"],
)
def test_mnist_is_found_under_the_names_people_have(tmp_path, rng, name_of):
    write_mnist(tmp_path, rng)
    expected = load_mnist(tmp_path)
    renamed(tmp_path, name_of)
    for one, two in zip(expected, load_mnist(tmp_path), strict=True):
        assert np.array_equal(one[0], two[0]) and np.array_equal(one[1], two[1])


def test_each_set_has_its_own_folder_of_torchvisions(tmp_path, rng):
    for name, n in (("MNIST", (6, 4)), ("FashionMNIST", (7, 5))):
        (tmp_path / name / "raw").mkdir(parents=True)
        write_mnist(tmp_path / name / "raw", rng, n)
    assert len(load_mnist(tmp_path)[0][0]) == 6 and len(load_fashion_mnist(tmp_path)[0][0]) == 7


def test_the_home_folder_is_found(tmp_path, rng, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # Windows
    (tmp_path / "data").mkdir()
    write_mnist(tmp_path / "data", rng)
    assert len(load_mnist("~/data")[0][0]) == 6


def test_copies_of_a_file_must_hold_the_same(tmp_path, rng):
    write_mnist(tmp_path, rng)
    expected = load_mnist(tmp_path)
    name = FILES[2]
    data = (tmp_path / name).read_bytes()
    other = tmp_path / f"{name}.gz"
    other.write_bytes(gzip.compress(data))  # torchvision keeps both
    assert np.array_equal(load_mnist(tmp_path)[1][0], expected[1][0])
    other.write_bytes(gzip.compress(data[:-1] + b"\7"))
    with pytest.raises(DataFileError, match=f"{name}: other data than in {other}; .*remove one of the two"):
        load_mnist(tmp_path)


def test_a_set_is_never_completed_from_another_folder(tmp_path, rng):
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "MNIST" / "raw"):
        write_mnist(folder, rng)
        (folder / FILES[0 if folder == tmp_path else 1]).unlink()
    with pytest.raises(FileNotFoundError, match=f"missing: {FILES[0]}. The folder holds: MNIST, t10k"):
        load_mnist(tmp_path)
