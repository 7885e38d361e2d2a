"""A folder of one's own pictures: what is found, how it is split and prepared, what is refused."""

import json

import numpy as np
import pytest

from data_utils import DataFileError
from data_utils.own.kinds import description
from data_utils.own.pictures import Pictures

Image = pytest.importorskip("PIL.Image")


def picture(path, side=(12, 20), colour=(200, 30, 60), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-20, 20, (*side, 1))
    Image.fromarray((np.array(colour) + noise).clip(0, 255).astype("uint8")).save(path)
    return path


def zoo(root, n=5, colours=((200, 30, 60), (20, 90, 200)), classes=("cat", "dog")):
    for name, colour in zip(classes, colours, strict=True):
        for i in range(n):
            picture(root / name / f"{i}.png", colour=colour, seed=i)
    return root


def look(root, **options):
    return Pictures.look_at(root, progress=False, **options)


def test_classes_are_split_alike_and_the_same_way_each_time(tmp_path):
    found = look(zoo(tmp_path, n=10))
    assert found.classes == ["cat", "dog"] and len(found.train) == 16 and len(found.test) == 4
    assert not found.train.keys() & found.test.keys()
    for part, n in (("train", 8), ("test", 2)):
        assert np.bincount(found.part(tmp_path, part).labels).tolist() == [n, n]
    assert look(tmp_path) == found and look(tmp_path, seed=1).test != found.test
    assert len(look(tmp_path, val_split=0.5).test) == 10
    assert len(look(zoo(tmp_path / "two", n=2), val_split=0.01).test) == 2  # at least one of each class


@pytest.mark.parametrize("name", ["val", "test"])
def test_a_folder_that_is_split_is_taken_as_it_is(tmp_path, name):
    zoo(tmp_path / "train", n=3)
    zoo(tmp_path / name, n=1)
    found = look(tmp_path)
    assert sorted(found.test) == [f"{name}/cat/0.png", f"{name}/dog/0.png"]
    assert len(found.train) == 6 and found.label("train/dog/2.png") == 1 == found.label(f"{name}/dog/0.png")


def test_what_systems_leave_behind_is_no_picture_and_no_class(tmp_path):
    zoo(tmp_path)
    before = look(tmp_path)
    (tmp_path / ".DS_Store").write_text("x")
    picture(tmp_path / "cat" / "._0.png")
    picture(tmp_path / "@eaDir" / "0.png")
    (tmp_path / "cat" / "folder.png").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("x")
    assert look(tmp_path) == before


def test_pictures_become_standardised_squares_of_the_median_side(tmp_path):
    found = look(zoo(tmp_path))  # 12×20: the shorter side is 12
    assert (found.size, found.channels) == (12, 3)
    train, _ = found.loaders(tmp_path, batch_size=8)
    x, labels = next(iter(train))
    assert x.shape == (8, 12, 12, 3) and x.dtype == "float32" and sorted(labels) == [0, 0, 0, 0, 1, 1, 1, 1]
    np.testing.assert_allclose(x.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(x.std((0, 1, 2)), 1, atol=1e-4)
    assert look(tmp_path, size=8).size == 8


def test_the_side_is_a_multiple_of_four_from_8_to_64(tmp_path):
    for side, expected in ((5, 8), (13, 12), (15, 16), (100, 64)):
        root = tmp_path / str(side)
        for name in "ab":
            for i in range(2):
                picture(root / name / f"{i}.png", side=(side, side + 7))
        assert look(root).size == expected


def test_grey_pictures_stay_grey(tmp_path):
    found = look(zoo(tmp_path, colours=((90, 90, 90), (180, 180, 180))))
    assert found.channels == 1 and found.squares([found.part(tmp_path, "train")[[0]][0]]).shape == (
        1,
        12,
        12,
        1,
    )
    picture(tmp_path / "cat" / "red.png")
    assert look(tmp_path).channels == 3


def test_unreadable_pictures_are_all_named_or_left_out(tmp_path):
    zoo(tmp_path)
    for name in ("cat/bad.png", "dog/worse.jpg"):
        (tmp_path / name).write_bytes(b"no picture")
    with pytest.raises(
        DataFileError, match="2 unreadable pictures: cat/bad.png, dog/worse.jpg; .* --skip-unreadable"
    ):
        look(tmp_path)
    found = look(tmp_path, skip_unreadable=True)
    assert found.skipped == ["cat/bad.png", "dog/worse.jpg"] and len(found.train) + len(found.test) == 10
    found.check(tmp_path)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda root: zoo(root, classes=("cat",), colours=((1, 2, 3),)), "one class folder, cat"),
        (lambda root: picture(root / "a.png"), "the picture a.png"),
        (lambda root: (zoo(root), (root / "cow").mkdir()), r"too few pictures \(.*/cow: 0\)"),
        (lambda root: (zoo(root), picture(root / "cow" / "1.png")), r"too few pictures \(.*/cow: 1\)"),
        (
            lambda root: (zoo(root / "train"), zoo(root / "val"), picture(root / "other.png")),
            "the picture other.png",
        ),
        (
            lambda root: (zoo(root / "train"), picture(root / "val" / "bird" / "1.png")),
            "the picture val/bird/1.png",
        ),
        (
            lambda root: (zoo(root / "train"), (root / "val").mkdir()),
            r"too few pictures \(val/cat: 0, val/dog: 0\)",
        ),
    ],
)
def test_what_is_no_set_of_classes_is_refused(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(DataFileError, match=message):
        look(tmp_path)


def test_a_description_goes_round_and_tells_what_has_changed(tmp_path):
    found = description(json.loads(look(zoo(tmp_path)).to_json()))
    assert found == look(tmp_path)
    found.check(tmp_path)
    picture(tmp_path / "cat" / "0.png", seed=9)
    picture(tmp_path / "dog" / "new.png")
    (tmp_path / "dog" / "1.png").unlink()
    with pytest.raises(DataFileError, match="gone: dog/1.png; new: dog/new.png; changed: cat/0.png"):
        found.check(tmp_path)


def test_training_pictures_are_augmented_and_mixed(tmp_path):
    found = look(zoo(tmp_path))
    options = dict(batch_size=8, shift=1.0, mixup=0.5)
    train, test = found.loaders(tmp_path, **options, mixup_until=1)
    images, targets = train(0)[0]
    assert targets.shape == (8, 2) and images.shape == (8, 12, 12, 3)
    assert train(1)[0][1].shape == (8,) and len(test) == 1
    np.testing.assert_array_equal(train(0)[0][0], images)
