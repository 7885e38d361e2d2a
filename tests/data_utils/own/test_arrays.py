"""An .npz file of images x and labels y: what is read, how it is split and prepared, what is refused."""

import json
import zipfile

import numpy as np
import pytest

from data_utils import DataFileError
from data_utils.own.arrays import Arrays
from data_utils.own.kinds import description


def images(n=20, side=12, channels=(), dtype="uint8"):
    x = np.random.default_rng(0).integers(0, 200, (n, side, side, *channels))
    x[n // 2 :] += 55
    return x.astype(dtype)


def write(path, x=None, y=None, **more):
    arrays = {"x": images() if x is None else x, "y": ["cat"] * 10 + ["dog"] * 10 if y is None else y}
    np.savez(path, **arrays, **more)
    return path


def look(path, **options):
    return Arrays.look_at(path, **options)


def test_classes_are_split_alike_and_the_same_way_each_time(tmp_path):
    path = write(tmp_path / "a.npz")
    found = look(path)
    assert found.classes == ["cat", "dog"] and (found.size, found.channels, found.of_bytes) == (12, 1, True)
    assert len(found.train) == 16 and len(found.test) == 4 and not found.train.keys() & found.test.keys()
    train, test = found.loaders(path, batch_size=4)
    assert np.bincount(train.labels).tolist() == [8, 8] and np.bincount(test.labels).tolist() == [2, 2]
    assert look(path) == found and look(path, seed=1).test != found.test
    assert len(look(path, val_split=0.5).test) == 10


def test_batches_hold_the_standardised_images_that_the_names_say(tmp_path):
    x = images(channels=(3,))
    path = write(tmp_path / "a.npz", x)
    found = look(path)
    _, test = found.loaders(path, batch_size=4)
    places = [int(name[2:-1]) for name in found.test]
    train = x[[int(name[2:-1]) for name in found.train]].astype("float64")
    expected = (x[places] - train.mean((0, 1, 2))) / train.std((0, 1, 2))
    np.testing.assert_allclose(next(iter(test))[0], expected, atol=1e-5)
    assert test.labels.tolist() == [int(place >= 10) for place in places]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_floats_are_taken_in_their_own_units(tmp_path, dtype):
    path = write(tmp_path / "a.npz", (images() / 100 - 1).astype(dtype))
    found = look(path)
    bytes_found = look(write(tmp_path / "b.npz"))
    one, other = (next(iter(d.loaders(p, batch_size=4)[1]))[0]
                  for d, p in ((found, path), (bytes_found, tmp_path / "b.npz")))  # fmt: skip
    assert not found.of_bytes and found.mean[0] == pytest.approx(bytes_found.mean[0] / 100 - 1, abs=1e-3)
    assert one.dtype == other.dtype == "float32"
    np.testing.assert_allclose(one, other, atol=5e-3 if dtype == "float16" else 1e-4)


def test_memory_in_the_order_of_fortran_is_the_same_array(tmp_path):
    x = images(channels=(3,))
    one, other = look(write(tmp_path / "a.npz", x)), look(write(tmp_path / "b.npz", np.asfortranarray(x)))
    assert one == other


def test_labels_are_numbers_or_names(tmp_path):
    for y, classes in (
        ([2] * 8 + [10] * 12, ["2", "10"]),  # in the order of numbers
        (["ü"] * 10 + ["b"] * 10, ["b", "ü"]),
        (np.array([b"b"] * 10 + [b"a"] * 10), ["a", "b"]),
        (np.arange(20) < 10, ["False", "True"]),
    ):
        assert look(write(tmp_path / "a.npz", y=y)).classes == classes


def test_other_sides_become_middle_squares(tmp_path):
    pytest.importorskip("PIL")
    x = np.zeros((20, 10, 30), "float32")
    x[:, :, 10:20] = 7.0  # the middle square
    path = write(tmp_path / "a.npz", x)
    found = look(path, size=12)
    assert found.size == 12 and found.mean == [7.0] and found.deviation == [1.0]
    (names, squares), *_ = found.inputs(path)
    assert names[0] == f"{path}[0]" and squares.shape == (20, 12, 12, 1) and np.allclose(squares, 0)
    assert look(path).size == 8 and look(path, multiple=16).size == 16  # 10 → 8; no smaller multiple of 16


def test_training_images_are_augmented_and_mixed(tmp_path):
    for x, policy in ((images(channels=(3,)), 1.0), (images(channels=(3,), dtype="float32"), 0.0)):
        path = write(tmp_path / "a.npz", x)
        train, _ = look(path).loaders(path, batch_size=8, mixup=0.5, mixup_until=1, policy=policy, shift=1.0)
        images_, targets = train(0)[0]
        assert images_.shape == (8, 12, 12, 3) and targets.shape == (8, 2) and train(1)[0][1].shape == (8,)
    with pytest.raises(ValueError, match="the policy's operations work on bytes"):
        look(path).loaders(path, batch_size=8, policy=0.5)


def test_a_changed_file_is_told_by_its_images(tmp_path):
    path = write(tmp_path / "a.npz")
    found = description(json.loads(look(path).to_json()))
    found.check(path)
    x = images()
    x[3, 0, 0] += 1
    write(path, x)
    with pytest.raises(DataFileError, match=r"a.npz: other images than the run began with; changed: x\[3\]"):
        found.check(path)
    write(path, y=["dog"] + ["cat"] * 9 + ["dog"] * 10)  # a label alone
    with pytest.raises(DataFileError, match=r"changed: x\[0\];"):
        found.check(path)
    write(path, images()[:19], ["cat"] * 10 + ["dog"] * 9)
    with pytest.raises(DataFileError, match=r"gone: x\[19\]; expected the same images"):
        found.check(path)


NAN = images(dtype="float32")
NAN[7, 3, 3] = np.nan


@pytest.mark.parametrize(
    "change, message",
    [
        ({"x": NAN}, r"x\[7\] holds NaN, Inf"),
        ({"x": images().astype("float64") * 1e300}, r"x\[0\] holds NaN, Inf or a number beyond float32"),
        ({"x": images(dtype="int64")}, r"x is int64; expected uint8 or floats"),
        ({"x": np.array([None] * 20)}, "x holds Python objects"),
        ({"x": np.zeros((20, 144), "uint8")}, r"x is \[20, 144\]; expected images"),
        ({"x": np.zeros((20, 3, 12, 12), "uint8")}, r"x is \[20, 3, 12, 12\]; .*channels last"),
        ({"x": np.zeros((0, 12, 12), "uint8")}, r"x is \[0, 12, 12\]"),
        ({"x": images(19)}, "19 images in x and 20 labels in y; expected as many of each"),
        ({"y": ["cat"] * 20}, "y holds one class, cat; expected two classes or more"),
        ({"y": ["cat"] * 19 + ["dog"]}, "one image of dog; expected two images or more of each class"),
        ({"y": np.zeros(20)}, r"y is float64 \[20\]; expected labels \[n\]"),
        ({"y": np.eye(2, dtype=int)[[0, 1] * 10]}, r"y is int64 \[20, 2\]"),
        ({"y": np.array(["cat", "dog"] * 10, object)}, "y holds Python objects"),
        ({"y": np.array([b"\xff", b"a"] * 10)}, "a name in y is no text"),
        ({"y": np.array(["\ud800", "a"] * 10)}, "a name in y is no text"),
        ({"y": np.array([2**31 - 1, 65] * 10, "<u4").view("<U1")}, "a name in y is no text"),
        ({"t": [0], "p": [1]}, "t, x, y and p, an event recording; expected images x and labels y"),
    ],
)
def test_what_is_no_labelled_set_of_images_is_refused(tmp_path, change, message):
    with pytest.raises(DataFileError, match=message):
        look(write(tmp_path / "a.npz", **change))


def test_missing_arrays_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", images=images(), y=[0])
    with pytest.raises(DataFileError, match="arrays images, y; expected arrays x and y; missing: x$"):
        look(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", x=images())
    with pytest.raises(DataFileError, match="missing: y$"):
        look(tmp_path / "a.npz")
    found = look(tmp_path / "a.npz", labelled=False)
    assert found.classes == [] and len(found.test) == 4
    assert found.loaders(tmp_path / "a.npz", batch_size=4)[0].labels.tolist() == [0] * 16


def test_a_small_file_takes_no_large_memory(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(10**8))
        archive.writestr("y.npy", b"")
    with pytest.raises(DataFileError, match="arrays that unpack to 100,000,00"):
        look(tmp_path / "a.npz")


def test_predictions_take_what_the_run_was_trained_on(tmp_path):
    found = look(write(tmp_path / "a.npz"))
    np.savez(tmp_path / "b.npz", x=images(70))  # no labels needed; more than one batch
    (first, x), (rest, _) = found.inputs(tmp_path / "b.npz")
    assert len(first) == 64 and rest[-1] == f"{tmp_path / 'b.npz'}[69]" and x.shape == (64, 12, 12, 1)
    for other, message in (
        (images(dtype="float32"), "x has 1 channels of floats; expected 1 channels of uint8"),
        (images(channels=(3,)), "x has 3 channels of uint8"),
    ):
        np.savez(tmp_path / "b.npz", x=other)
        with pytest.raises(DataFileError, match=message):
            next(found.inputs(tmp_path / "b.npz"))
