"""Readers: what they return on files written here byte by byte, and that no damaged file gets past them."""

import gzip
import io
import os
import struct
import sys
import tarfile
import tracemalloc
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_utils.errors import DataFileError
from data_utils.images import cifar, mnist
from data_utils.images.cifar import CIFAR10, CIFAR100, read_records
from data_utils.images.folders import (
    ImageFolder,
    _random_box,
    centre_crop,
    load_image_folders,
    random_resized_crop,
    read_image,
)
from data_utils.images.idx import read_idx
from data_utils.images.mnist import FILES, load_fashion_mnist, load_mnist

fuzz = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@contextmanager
def memory_below(limit):
    """Fail if more than `limit` bytes are allocated at any moment inside."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def damaged(good: bytes) -> st.SearchStrategy[bytes]:
    """Truncated, lengthened, with some bytes changed, or all random."""
    change = st.tuples(st.integers(0, len(good) - 1), st.integers(0, 255))
    return st.one_of(
        st.integers(0, len(good) - 1).map(lambda n: good[:n]),
        st.binary(min_size=1, max_size=20).map(lambda more: good + more),
        st.lists(change, min_size=1, max_size=4).map(lambda changes: changed(good, changes)),
        st.binary(max_size=60),
    )


def changed(data: bytes, changes) -> bytes:
    data = bytearray(data)
    for place, value in changes:
        data[place] = value
    return bytes(data)


# ---------------------------------------------------------------- IDX


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("shape", [(7,), (4, 3, 5), (0, 3, 5)], ids=str)
def test_an_idx_file_comes_back_whatever_its_name(tmp_path, rng, shape, pack):
    array = rng.integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path / "file"
    path.write_bytes(pack(idx(array)))
    back = read_idx(path, len(shape))
    assert np.array_equal(back, array) and back.dtype == np.uint8 and back.shape == shape
    assert back.flags.writeable


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "byte 0: starts with nothing; expected 00 00 08 03"),
        (b"\0\0\x08\x01\0\0\0\1", "byte 0: starts with 00 00 08 01; expected 00 00 08 03"),
        (b"\0\0\x0d\x03", "byte 0: starts with 00 00 0d 03"),  # floats
        (b"\0\0\x08\x03\0\0\0\1\0", "byte 9: the file ends in its header; expected 3 sizes of 4 bytes"),
        (idx(np.zeros((2, 3, 4), "u1")) + b"x", "byte 40: more bytes follow; expected 24 bytes"),
        (
            struct.pack(">4I", 0x803, 2**32 - 1, 2**32 - 1, 2**32 - 1),
            r"byte 4: sizes \[4294967295, 4294967295, 4294967295\]; expected at most 16 bytes",
        ),
    ],
    ids=["empty", "labels", "floats", "header", "longer", "terabytes"],
)
def test_a_bad_idx_file_is_refused_with_its_place(tmp_path, data, message):
    path = tmp_path / "images"
    path.write_bytes(data)
    with pytest.raises(DataFileError, match=f"^{path}, {message}"):
        read_idx(path, 3)


def test_a_truncated_idx_file_is_refused_with_its_place(tmp_path):
    path = tmp_path / "images.gz"
    data = idx(np.zeros((2, 3, 4), "u1"))[:-1]
    path.write_bytes(gzip.compress(data))
    with pytest.raises(DataFileError, match="byte 39: the file ends; expected 24 bytes"):
        read_idx(path, 3)
    path.write_bytes(gzip.compress(idx(np.zeros((2, 3, 4), "u1")))[:-9])
    with pytest.raises(DataFileError, match="damaged gzip data .* expected a complete gzip stream"):
        read_idx(path, 3)


def test_gzips_checksum_is_checked(tmp_path):
    path = tmp_path / "labels.gz"
    good = gzip.compress(idx(np.arange(9, dtype="u1")), compresslevel=0)  # stored: a change stays readable
    path.write_bytes(good)
    assert len(read_idx(path, 1)) == 9
    path.write_bytes(changed(good, [(-9, 99)]))
    with pytest.raises(DataFileError, match="CRC check failed"):
        read_idx(path, 1)


def test_a_gzip_bomb_is_not_unpacked_beyond_its_header(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(idx(np.zeros(10, "u1")) + bytes(64 * 2**20)))
    with memory_below(2**20), pytest.raises(DataFileError, match="byte 18: more bytes follow"):
        read_idx(path, 1)
    # a header that announces more than a gzip of this size can hold, and one that is just possible
    for count, message in ((2**32 - 1, "byte 4: sizes"), (2**20, "byte 8: the file ends")):
        path.write_bytes(gzip.compress(struct.pack(">2I", 0x801, count)) + bytes(1100))
        with memory_below(2**20), pytest.raises(DataFileError, match=message):
            read_idx(path, 1)


IDX_FILE = idx(np.arange(24, dtype="u1").reshape(2, 3, 4))


@fuzz
@given(damaged(IDX_FILE) | damaged(gzip.compress(IDX_FILE, mtime=0)))
def test_damaged_idx_files_end_in_an_error_or_an_array(tmp_path, data):
    path = tmp_path / "file"
    path.write_bytes(data)
    with memory_below(4 * 2**20):
        try:
            array = read_idx(path, 3)
        except DataFileError as error:
            assert str(error).startswith(str(path))
        else:  # changed pixels, or sizes that happen to fit
            assert array.dtype == np.uint8 and array.ndim == 3 and (array.size == 24 or data != IDX_FILE)


# ---------------------------------------------------------------- MNIST and Fashion-MNIST


def write_mnist(folder, rng, n=(6, 4), suffix=""):
    for name, count in zip(FILES, (n[0], n[0], n[1], n[1]), strict=True):
        shape = (count, 28, 28) if "images" in name else (count,)
        data = idx(rng.integers(0, 256 if "images" in name else 10, shape, dtype=np.uint8))
        (folder / f"{name}{suffix}").write_bytes(gzip.compress(data) if suffix else data)


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
    with pytest.raises(DataFileError, match=f"{FILES[1]}, byte 4: 5 labels; expected 6, one an image"):
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
    with pytest.raises(DataFileError, match="all pixels alike"):
        load_mnist(tmp_path)


def test_missing_mnist_files_are_named(tmp_path, rng):
    write_mnist(tmp_path, rng)
    (tmp_path / FILES[1]).unlink()
    with pytest.raises(FileNotFoundError, match=f"load_mnist needs in {tmp_path}: .*missing: {FILES[1]} or"):
        load_mnist(tmp_path)


def test_debians_folder_is_the_first_place_to_look(tmp_path, rng, monkeypatch):
    write_mnist(tmp_path, rng, suffix=".gz")
    monkeypatch.setattr(mnist, "DEBIAN", tmp_path)
    assert len(load_fashion_mnist()[0][0]) == 6


# ---------------------------------------------------------------- CIFAR

SMALL10 = replace(CIFAR10, train_records=3, test_records=4)
SMALL100 = replace(CIFAR100, train_records=15, test_records=4)
BOTH = pytest.mark.parametrize("layout", [SMALL10, SMALL100], ids=["cifar10", "cifar100"])


def cifar_files(layout, rng) -> dict[str, bytes]:
    files = {}
    for name, size in layout.sizes().items():
        n = size // (len(layout.labels) + 3072)
        labels = [rng.integers(0, count, (n, 1)) for count in layout.labels]
        files[name] = np.hstack([*labels, rng.integers(0, 256, (n, 3072))]).astype(np.uint8).tobytes()
    return files


def write_cifar(folder, files):
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def tar(members: dict[str, bytes], kind=tarfile.REGTYPE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.type = len(data), kind
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def archived(layout, files) -> bytes:
    return gzip.compress(tar({f"{layout.folder}/{name}": data for name, data in files.items()}), 1)


@BOTH
def test_cifar_is_read_pixel_by_pixel_from_folder_and_archive(tmp_path, rng, layout):
    files = cifar_files(layout, rng)
    write_cifar(tmp_path / layout.folder, files)
    (tmp_path / "archive").mkdir()
    archive = tmp_path / "archive" / layout.archive
    archive.write_bytes(archived(layout, files))
    loaded = [
        cifar._load(layout, root)
        for root in (tmp_path, tmp_path / layout.folder, tmp_path / "archive", archive)
    ]
    (images, labels), (test, test_labels) = loaded[0]
    assert images.shape == (15, 32, 32, 3) and images.dtype == np.uint8 and labels.dtype == "int64"
    assert test.shape == (4, 32, 32, 3) and test_labels.shape == (4,)
    skip = len(layout.labels)
    data = b"".join(files[name] for name in layout.train)  # naive: byte by byte, as the format says
    for i, row, column, channel in ((0, 0, 0, 0), (7, 3, 31, 1), (14, 31, 5, 2)):
        start = i * (skip + 3072)
        assert images[i, row, column, channel] == data[start + skip + 1024 * channel + 32 * row + column]
        assert labels[i] == data[start + skip - 1]  # CIFAR-100: the fine label
    for other in loaded[1:]:
        for one, two in zip(loaded[0], other, strict=True):
            assert np.array_equal(one[0], two[0]) and np.array_equal(one[1], two[1])
    assert sorted(os.listdir(tmp_path / "archive")) == [layout.archive]  # nothing was extracted


def test_the_real_layouts_have_the_published_sizes():
    assert set(CIFAR10.sizes().values()) == {30_730_000} and len(CIFAR10.sizes()) == 6
    assert CIFAR100.sizes() == {"train.bin": 153_700_000, "test.bin": 30_740_000}


@BOTH
def test_a_cifar_file_of_another_size_or_label_is_refused(tmp_path, rng, layout):
    files = cifar_files(layout, rng)
    write_cifar(tmp_path, files)
    first, record = layout.train[0], len(layout.labels) + 3072
    (tmp_path / first).write_bytes(files[first][:-1])
    size = len(files[first])
    with pytest.raises(DataFileError, match=f"{first}, byte .*a file of .* bytes; expected {size:,}"):
        cifar._load(layout, tmp_path)
    place = record + len(layout.labels) - 1  # the second record's label
    (tmp_path / first).write_bytes(changed(files[first], [(place, 200)]))
    top = layout.labels[-1] - 1
    with pytest.raises(DataFileError, match=f"{first}, byte {place:,}: label 200; expected 0 to {top}"):
        cifar._load(layout, tmp_path)
    (tmp_path / first).unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks .*{first}; needed: {first}"):
        cifar._load(layout, tmp_path)


def test_a_cifar_file_that_ends_in_a_record_is_refused():
    with pytest.raises(DataFileError, match="byte 3,000: the file ends within a record"):
        read_records(bytes(3000), "some.bin", (10,))


def test_cifars_python_version_is_refused_with_the_place_of_the_binary_one(tmp_path, rng):
    remedy = (
        "Python version: pickles, which are not read; expected the binary version, https://.*binary.tar.gz"
    )
    for layout, name in ((SMALL10, "cifar-10-batches-py"), (SMALL100, "cifar-100-python")):
        (tmp_path / name).mkdir()
        with pytest.raises(DataFileError, match=remedy):
            cifar._load(layout, tmp_path)
        (tmp_path / name).rmdir()
        archive = tmp_path / f"{name.replace('batches-py', 'python')}.tar.gz"
        archive.write_bytes(gzip.compress(tar({f"{name}/data": b"\x80\x02."})))
        for root in (tmp_path, archive):
            with pytest.raises(DataFileError, match=remedy):
                cifar._load(layout, root)
        archive.unlink()
        (tmp_path / layout.test.removesuffix(".bin")).write_bytes(b"\x80\x02.")
        with pytest.raises(DataFileError, match=remedy):
            cifar._load(layout, tmp_path)


def test_missing_cifar_says_what_goes_where(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="data_batch_1.bin.*test_batch.bin, or the folder.*cifar-10-b"
    ):
        cifar.load_cifar10(tmp_path)
    with pytest.raises(FileNotFoundError, match="train.bin, test.bin, or the folder cifar-100-binary"):
        cifar.load_cifar100(tmp_path)


def test_a_hostile_archive_writes_nothing_and_stays_small(tmp_path, rng):
    files = cifar_files(SMALL10, rng)
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    path = inside / SMALL10.archive
    before = sorted(tmp_path.rglob("*"))
    named = {f"{SMALL10.folder}/{name}": data for name, data in files.items()}
    members = {"../../escaped": b"x", f"{tmp_path}/absolute": b"x"} | named
    path.write_bytes(gzip.compress(tar(members)))
    assert len(cifar._load(SMALL10, path)[0][0]) == 15  # the strange names are passed over
    path.unlink()
    assert sorted(tmp_path.rglob("*")) == before

    path.write_bytes(gzip.compress(tar(named | {"bomb": bytes(64 * 2**20)}), 1))
    with (
        memory_below(4 * 2**20),
        pytest.raises(DataFileError, match="the archive goes on; expected 1,1.* most"),
    ):
        cifar._load(SMALL10, path)
    path.write_bytes(gzip.compress(tar(named | {f"{SMALL10.folder}/test_batch.bin": b"short"})))
    with pytest.raises(DataFileError, match="test_batch.bin of 5 bytes; expected a file of 12,292"):
        cifar._load(SMALL10, path)
    path.write_bytes(gzip.compress(tar(named, tarfile.SYMTYPE)))
    with pytest.raises(
        DataFileError, match="data_batch_1.bin, no plain file of 9,219 bytes; expected a file of"
    ):
        cifar._load(SMALL10, path)
    path.write_bytes(gzip.compress(tar(dict(list(named.items())[:-1]))))
    with pytest.raises(DataFileError, match="the archive ends without test_batch.bin"):
        cifar._load(SMALL10, path)
    good = archived(SMALL10, files)
    path.write_bytes(changed(good, [(len(good) - 6, good[-6] ^ 1)]))
    with pytest.raises(DataFileError, match="CRC check failed"):
        cifar._load(SMALL10, path)
    path.write_bytes(files["data_batch_1.bin"])
    with pytest.raises(DataFileError, match="Not a gzipped file.*expected cifar-10-binary.tar.gz"):
        cifar._load(SMALL10, path)


TINY = replace(CIFAR10, train=("data_batch_1.bin",), train_records=1, test_records=1)
TINY_FILES = cifar_files(TINY, np.random.default_rng(0))
TINY_TAR = tar({f"{TINY.folder}/{name}": data for name, data in TINY_FILES.items()})


@fuzz
@given(
    damaged(gzip.compress(TINY_TAR, mtime=0)) | damaged(TINY_TAR[:600]).map(gzip.compress) | damaged(TINY_TAR)
)
def test_damaged_archives_end_in_an_error_or_in_images(tmp_path, data):
    path = tmp_path / TINY.archive
    path.write_bytes(data)
    with memory_below(8 * 2**20):
        try:
            (images, labels), _ = cifar._load(TINY, path)
        except DataFileError as error:
            assert str(error).startswith(str(path))
        else:
            assert images.shape == (1, 32, 32, 3) and 0 <= labels[0] < 10


@fuzz
@given(st.integers(0, 6144).map(lambda n: bytes(n)) | st.binary(max_size=99).map(lambda b: b * 62))
def test_records_are_whole_or_refused(data):
    try:
        images, labels = read_records(data, "some.bin", (20, 100))
    except DataFileError as error:
        assert str(error).startswith("some.bin, byte ")
    else:
        assert len(images) == len(labels) == len(data) // 3074 and (labels < 100).all()


# ---------------------------------------------------------------- folders of images


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
    with pytest.raises(DataFileError, match=f"{train.paths[5]}: not decoded"):
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
    with pytest.raises(DataFileError, match="y.JPEG: not decoded .*expected a complete JPEG or PNG"):
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


def test_cifar_100s_coarse_labels_are_checked_too():
    with pytest.raises(DataFileError, match="byte 3,074: label 20; expected 0 to 19"):
        read_records(changed(bytes(2 * 3074), [(3074, 20)]), "some.bin", (20, 100))


def test_a_random_box_is_sought_ten_times(rng):
    """In a 100×30 image about three boxes of four do not fit: 0.75 of all would fall back, 0.75¹⁰ do."""
    boxes = [_random_box(100, 30, rng) for _ in range(1000)]
    assert 20 < boxes.count((30, 0, 40, 30)) < 150


def test_label_ten_alone_is_refused(tmp_path, rng):
    write_mnist(tmp_path, rng)
    (tmp_path / FILES[1]).write_bytes(idx(np.array([0, 1, 9, 3, 10, 5], "u1")))
    with pytest.raises(DataFileError, match=f"{FILES[1]}, byte 12: label 10; expected 0 to 9"):
        load_mnist(tmp_path)
