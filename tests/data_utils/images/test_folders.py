"""Folders of images: both layouts, decoding by Pillow, and crops."""

import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from data_utils.errors import DataFileError
from data_utils.images.folders import (
    ImageFolder,
    _random_box,
    centre_crop,
    load_image_folders,
    random_resized_crop,
)

from .common import write_image


@pytest.fixture
def imagenet(tmp_path, rng):
    for part, count in (("train", 3), ("val", 2)):
        for name in ("n02", "n01"):
            for i in range(count):
                write_image(tmp_path / part / name / f"{name}_{i}.JPEG", rng)
    (tmp_path / "train" / "n01" / "notes.txt").write_text("no image")
    return tmp_path


@pytest.fixture
def tiny_imagenet(tmp_path, rng):
    for name in ("n02", "n01"):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "train" / name / f"{name}_boxes.txt").write_text("x\t0\t0\t1\t1\n")
        for i in range(2):
            write_image(tmp_path / "train" / name / "images" / f"{name}_{i}.JPEG", rng, (64, 64))
    lines = []
    for i, name in enumerate(["n02", "n01", "n02"]):
        write_image(tmp_path / "val" / "images" / f"val_{i}.JPEG", rng, (64, 64))
        lines.append(f"val_{i}.JPEG\t{name}\t0\t32\t44\t62\n")
    (tmp_path / "val" / "val_annotations.txt").write_text("".join(lines))
    return tmp_path


def test_imagenets_layout(imagenet):
    train, val = load_image_folders(imagenet)
    assert train.classes == val.classes == ["n01", "n02"]
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1] and val.labels.tolist() == [0, 0, 1, 1]
    assert train.labels.dtype == "int64" and len(train) == 6
    assert [path.name for path in train.paths[:3]] == ["n01_0.JPEG", "n01_1.JPEG", "n01_2.JPEG"]
    images = train[np.array([4, 0])]
    expected = Image.open(train.paths[4]).convert("RGB")
    assert np.array_equal(np.asarray(images[0]), np.asarray(expected)) and images[0].size == (20, 16)


def test_tiny_imagenets_layout(tiny_imagenet):
    train, val = load_image_folders(tiny_imagenet)
    assert train.labels.tolist() == [0, 0, 1, 1] and val.labels.tolist() == [1, 0, 1]
    assert [path.name for path in val.paths] == ["val_0.JPEG", "val_1.JPEG", "val_2.JPEG"]
    assert centre_crop(val[np.arange(3)], 64, share=1).shape == (3, 64, 64, 3)


def test_a_folder_is_decoded_when_it_is_asked_for(imagenet):
    train, _ = load_image_folders(imagenet)
    train.paths[5].write_bytes(b"not an image")
    assert len(train[np.array([0, 1, 2, 3, 4])]) == 5
    with pytest.raises(DataFileError, match=f"{train.paths[5]}: cannot be decoded"):
        train[np.array([5])]


def test_folders_say_what_is_missing_where(tmp_path, imagenet, rng):
    with pytest.raises(FileNotFoundError, match="must hold train and val. There is no such folder"):
        load_image_folders(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="must hold train and val. The folder holds: n01, n02"):
        load_image_folders(imagenet / "train")
    (tmp_path / "empty" / "train").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"no class folder in .*expected train/<class>/\*.JPEG"):
        load_image_folders(tmp_path / "empty")
    (imagenet / "val" / "n03").mkdir()
    with pytest.raises(FileNotFoundError, match="has 3 class folders .* train has 2 .*one of them: n03"):
        load_image_folders(imagenet)
    (imagenet / "train" / "n03").mkdir()
    with pytest.raises(FileNotFoundError, match="no image in .*n03; expected .jpeg, .jpg, .png"):
        load_image_folders(imagenet)
    with pytest.raises(ValueError, match="1 files and 2 labels"):
        ImageFolder([tmp_path], np.zeros(2), ["a"])


@pytest.mark.parametrize(
    "line, error, message",
    [
        ("val_9.JPEG\tn01\n", FileNotFoundError, "names 4 images; missing: .*val_9.JPEG"),
        ("val_0.JPEG\tn99\n", DataFileError, "byte 78: the line .*n99"),
        ("../val_0.JPEG\tn01\n", DataFileError, "byte 78: the line"),
        ("\tn01\n", DataFileError, "byte 78: the line"),
        (300 * "x" + "\tn01\n", DataFileError, "byte 78: the line"),
        ("no tabs\n", DataFileError, "expected a file name, a tab and one of train's classes"),
    ],
)
def test_annotations_that_do_not_fit_are_refused(tiny_imagenet, line, error, message):
    annotations = tiny_imagenet / "val" / "val_annotations.txt"
    good = annotations.read_text()
    annotations.write_text(good + line)
    with pytest.raises(error, match=message):
        load_image_folders(tiny_imagenet)
    annotations.write_text("")
    with pytest.raises(FileNotFoundError, match="names 0 images; missing: all"):
        load_image_folders(tiny_imagenet)


def test_without_pillow_the_remedy_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pip install 'minispike\[data\]'"):
        ImageFolder([], np.zeros(0), [])


# ---------------------------------------------------------------- what is no data, and what is doubtful

LEFT_BEHIND = (".DS_Store", "._n01_0.JPEG", "Thumbs.db", "desktop.ini", "$RECYCLE.BIN/1.png")
LEFT_BEHIND += ("@eaDir/n01_0.JPEG", "#recycle/old.png", ".ipynb_checkpoints/n01_0-checkpoint.JPEG")
LEFT_BEHIND += ("__MACOSX/n01/._n01_0.JPEG",)


def test_what_systems_leave_behind_is_no_class_and_no_image(imagenet):
    before = load_image_folders(imagenet)
    for folder in ("", "train", "val", "train/n01", "val/n02"):
        for name in LEFT_BEHIND:
            path = imagenet / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"no image")
    (imagenet / "train" / "n01" / "folder.jpg").mkdir()
    for one, two in zip(before, load_image_folders(imagenet), strict=True):
        assert one.paths == two.paths and one.classes == two.classes == ["n01", "n02"]
        assert np.array_equal(one.labels, two.labels)


def test_classes_and_images_are_in_the_order_of_their_names(tmp_path, rng):
    for part in ("train", "val"):
        for name in ("b", "B", "a b", "a"):  # Windows would sort Paths without regard to case
            for file in ("2.png", "10.png", "C.PNG", "deep/1.jpg", "c.png", "c.PNG"):
                write_image(tmp_path / part / name / file, rng)
    train, val = load_image_folders(tmp_path)
    assert train.classes == val.classes == ["B", "a", "a b", "b"]
    names = [path.relative_to(tmp_path / "train" / "B").as_posix() for path in train.paths[:6]]
    assert names == ["10.png", "2.png", "C.PNG", "c.PNG", "c.png", "deep/1.jpg"]
    assert np.array_equal(train.labels, np.repeat(np.arange(4), 6))


@pytest.mark.parametrize("place", ["train", "val"])
def test_an_image_outside_the_class_folders_is_refused(imagenet, rng, place):
    write_image(imagenet / place / "ILSVRC_1.JPEG", rng)
    write_image(imagenet / place / "ILSVRC_2.JPEG", rng)
    told = f"ILSVRC_1.JPEG: 2 images outside the class folders; expected each image in {place}/<class>"
    with pytest.raises(DataFileError, match=told):
        load_image_folders(imagenet)


def test_an_image_that_is_listed_twice_is_refused(tiny_imagenet):
    annotations = tiny_imagenet / "val" / "val_annotations.txt"
    annotations.write_text(annotations.read_text() + "val_0.JPEG\tn01\t0\t0\t1\t1\n")
    with pytest.raises(
        DataFileError, match="byte 78: val_0.JPEG for the second time; expected each file once"
    ):
        load_image_folders(tiny_imagenet)


def test_a_list_next_to_class_folders(tiny_imagenet, rng):
    """People sort Tiny-ImageNet's val into class folders and leave the list there."""
    val = tiny_imagenet / "val"
    for name in ("n01", "n02"):
        write_image(val / name / "images" / "0.JPEG", rng)
    with pytest.raises(
        DataFileError, match="val: val_annotations.txt with .*such as n01; expected one of the"
    ):
        load_image_folders(tiny_imagenet)
    shutil.rmtree(val / "images")
    assert load_image_folders(tiny_imagenet)[1].labels.tolist() == [0, 1]


def test_the_home_folder_is_found(imagenet, monkeypatch):
    monkeypatch.setenv("HOME", str(imagenet))
    monkeypatch.setenv("USERPROFILE", str(imagenet))  # Windows
    assert len(load_image_folders("~")[0]) == 6


# ---------------------------------------------------------------- crops


def gradient(width, height):
    """An image whose red is its column and green its row."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x, y, 0 * x], -1).astype(np.uint8))


def test_a_centre_crop_is_the_middle_square():
    crop = centre_crop([gradient(40, 60), gradient(60, 40)], 20, share=0.5)  # no scaling: 20 of 40
    assert crop.dtype == np.uint8 and crop.shape == (2, 20, 20, 3)
    assert np.array_equal(crop[0, 0, :, 0], np.arange(10, 30)) and crop[0, 0, 0, 1] == 20
    assert np.array_equal(crop[1, :, 0, 1], np.arange(10, 30)) and crop[1, 0, 0, 0] == 20
    # one step equals the usual two, resize and cut, to within rounding
    usual = gradient(200, 100).resize((512, 256), Image.Resampling.BICUBIC).crop((144, 16, 368, 240))
    ours = centre_crop([gradient(200, 100)], 224)[0]
    assert abs(ours.astype(int) - np.asarray(usual)).max() <= 1


def test_random_boxes_lie_inside_with_the_stated_areas_and_ratios(rng):
    boxes = np.array([_random_box(100, 80, rng) for _ in range(2000)])
    left, top, w, h = boxes.T
    assert (left >= 0).all() and (top >= 0).all() and (left + w <= 100).all() and (top + h <= 80).all()
    share, ratio = w * h / 8000, w / h
    assert 0.07 < share.min() < 0.1 and share.max() > 0.9
    assert 0.72 < ratio.min() < 0.78 and 1.28 < ratio.max() < 1.37
    assert len(np.unique(left)) > 40 and len(np.unique(top)) > 40
    strip = np.array([_random_box(200, 10, rng) for _ in range(50)])  # where whole boxes seldom fit
    assert (strip[:, 3] <= 10).all() and (strip[:, 2] <= 14).all() and (93, 0, 13, 10) in map(tuple, strip)


def test_a_random_box_is_sought_ten_times(rng):
    """In a 100×30 image about three boxes of four do not fit: 0.75 of all would fall back, 0.75¹⁰ do."""
    boxes = [_random_box(100, 30, rng) for _ in range(1000)]
    assert 20 < boxes.count((30, 0, 40, 30)) < 150


def test_a_random_crop_shows_its_box(rng):
    images = [gradient(200, 150), gradient(90, 120)]
    crops = random_resized_crop(images, np.random.default_rng(1), 16)
    again = random_resized_crop(images, np.random.default_rng(1), 16)
    assert crops.shape == (2, 16, 16, 3) and crops.dtype == np.uint8 and np.array_equal(crops, again)
    state = np.random.default_rng(1)
    for image, crop in zip(images, crops, strict=True):
        left, top, w, h = _random_box(*image.size, state)
        columns = left + (np.arange(16) + 0.5) * w / 16 - 0.5  # pixel centres, on a linear image
        assert abs(crop[8, 2:-2, 0] - columns[2:-2]).max() <= 1
        assert abs(crop[2:-2, 8, 1] - (top + (np.arange(16) + 0.5) * h / 16 - 0.5)[2:-2]).max() <= 1
