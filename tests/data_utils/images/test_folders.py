"""Folders of images: both layouts, decoding by Pillow, and crops."""

import io
import sys

import numpy as np
import pytest
from hypothesis import given
from PIL import Image

from data_utils.errors import DataFileError
from data_utils.images.folders import (
    ImageFolder,
    _random_box,
    centre_crop,
    load_image_folders,
    random_resized_crop,
    read_image,
)

from ..common import damaged, fuzz, memory_below


def write_image(path, rng, size=(20, 16), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 256, (size[1], size[0], len(mode)), dtype=np.uint8)
    Image.fromarray(pixels.squeeze(), mode if mode == "CMYK" else None).save(path, **options)
    return pixels


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
    with pytest.raises(FileNotFoundError, match="must hold train and val"):
        load_image_folders(tmp_path / "nowhere")
    (tmp_path / "empty" / "train").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"no class folder in .*expected train/<class>/\*.JPEG"):
        load_image_folders(tmp_path / "empty")
    (imagenet / "val" / "n03").mkdir()
    with pytest.raises(FileNotFoundError, match="has 3 class folders .* train has 2; .*one of them: n03"):
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


# ---------------------------------------------------------------- one image


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK"])
def test_every_image_becomes_rgb(tmp_path, rng, mode):
    path = tmp_path / ("x.png" if mode == "RGBA" else "x.JPEG")
    write_image(path, rng, mode=mode)
    image = read_image(path)
    assert image.mode == "RGB" and image.size == (20, 16)


def test_an_image_of_16_bits_is_refused(tmp_path):
    Image.fromarray(np.arange(0, 64_000, 1000, dtype=np.uint16).reshape(8, 8)).save(tmp_path / "x.png")
    with pytest.raises(DataFileError, match=r"x.png: grey levels of 16 bits \(mode I.*expected 8 bits"):
        read_image(tmp_path / "x.png")


def test_a_png_named_jpeg_is_read_and_another_format_is_not(tmp_path, rng):
    pixels = write_image(tmp_path / "x.JPEG", rng, format="PNG")
    assert np.array_equal(np.asarray(read_image(tmp_path / "x.JPEG")), pixels)
    write_image(tmp_path / "y.JPEG", rng, format="BMP")
    with pytest.raises(DataFileError, match="y.JPEG: cannot be decoded .*expected a complete JPEG or PNG"):
        read_image(tmp_path / "y.JPEG")


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path):
    path = tmp_path / "bomb.png"
    Image.new("1", (2**13, 2**13 + 1)).save(path)
    with (
        memory_below(2**20),
        pytest.raises(DataFileError, match="67,117,056 pixels; expected at most 67,108,864"),
    ):
        read_image(path)


def png_and_jpeg():
    files = []
    for format in ("PNG", "JPEG"):
        buffer = io.BytesIO()
        pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, format)
        files.append(buffer.getvalue())
    return files


@fuzz
@given(damaged(png_and_jpeg()[0]) | damaged(png_and_jpeg()[1]))
def test_damaged_images_end_in_an_error_that_names_the_file(tmp_path, data):
    path = tmp_path / "image.JPEG"
    path.write_bytes(data)
    try:
        image = read_image(path)
    except DataFileError as error:
        assert str(error).startswith(f"{path}: ")
    else:
        assert image.mode == "RGB"


def test_without_pillow_the_remedy_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pip install 'minispike\[data\]'"):
        ImageFolder([], np.zeros(0), [])


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
