"""CIFAR-10 and CIFAR-100: every byte is in its place; damaged and hostile files are refused."""

import gzip
import os
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_utils.errors import DataFileError
from data_utils.images import cifar
from data_utils.images.cifar import CIFAR10, CIFAR100, prepare_cifar, read_records

from ..common import (
    SMALL10,
    SMALL100,
    archived,
    changed,
    cifar_files,
    damaged,
    fuzz,
    memory_below,
    tar,
    write_cifar,
)

BOTH = pytest.mark.parametrize("layout", [SMALL10, SMALL100], ids=["cifar10", "cifar100"])


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


def test_cifar_100s_coarse_labels_are_checked_too():
    with pytest.raises(DataFileError, match="byte 3,074: label 20; expected 0 to 19"):
        read_records(changed(bytes(2 * 3074), [(3074, 20)]), "some.bin", (20, 100))


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


def test_cifar_is_standardised_by_the_published_numbers():
    white = prepare_cifar(np.full((1, 1, 1, 3), 255, np.uint8))[0, 0, 0]
    expected = [(1 - 0.4914) / 0.2470, (1 - 0.4822) / 0.2435, (1 - 0.4465) / 0.2616]
    np.testing.assert_allclose(white, expected, rtol=1e-6)


# ---------------------------------------------------------------- right files in other shapes


def same(one, two):
    return all(
        np.array_equal(a, b) for pair in zip(one, two, strict=True) for a, b in zip(*pair, strict=True)
    )


@BOTH
@pytest.mark.parametrize("prefix", ["{folder}/", "./{folder}/", "./", ""])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["tar", "tar.gz"])
def test_archives_are_read_gzipped_or_not_with_any_prefix(tmp_path, rng, layout, prefix, pack):
    files = cifar_files(layout, rng)
    write_cifar(tmp_path / layout.folder, files)
    expected = cifar._load(layout, tmp_path)
    prefix = prefix.format(folder=layout.folder)
    members = {f"{prefix}{name}": data for name, data in files.items()}
    members = {f"{prefix}._{layout.test}": b"of macOS", "__MACOSX/x": b""} | members
    (tmp_path / "archive").mkdir()
    path = tmp_path / "archive" / layout.archive.removesuffix("" if pack is gzip.compress else ".gz")
    path.write_bytes(pack(tar(members)))
    for root in (path, path.parent):
        assert same(cifar._load(layout, root), expected)


def test_a_complete_folder_is_read_before_an_archive_and_an_archive_before_an_incomplete_folder(
    tmp_path, rng
):
    one, two = cifar_files(SMALL10, rng), cifar_files(SMALL10, rng)
    write_cifar(tmp_path / SMALL10.folder, one)
    (tmp_path / SMALL10.archive).write_bytes(archived(SMALL10, two))
    folder = cifar._load(SMALL10, tmp_path / SMALL10.folder)
    archive = cifar._load(SMALL10, tmp_path / SMALL10.archive)
    assert same(cifar._load(SMALL10, tmp_path), folder) and not same(folder, archive)
    (tmp_path / SMALL10.folder / SMALL10.test).unlink()
    assert same(cifar._load(SMALL10, tmp_path), archive)
    (tmp_path / SMALL10.archive).unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks .*{SMALL10.test}; needed: data_batch_1.bin"):
        cifar._load(SMALL10, tmp_path)


def test_the_home_folder_is_found(tmp_path, rng, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # Windows
    write_cifar(tmp_path / SMALL10.folder, cifar_files(SMALL10, rng))
    assert len(cifar._load(SMALL10, "~")[0][0]) == 15


def test_a_file_that_is_in_an_archive_twice_is_refused(tmp_path, rng):
    files = cifar_files(SMALL10, rng)
    members = {f"{SMALL10.folder}/{name}": data for name, data in files.items()}
    members[f"./{SMALL10.folder}/data_batch_2.bin"] = files["data_batch_3.bin"]
    path = tmp_path / SMALL10.archive
    path.write_bytes(gzip.compress(tar(members)))
    with pytest.raises(DataFileError, match="data_batch_2.bin for the second time; expected each file once"):
        cifar._load(SMALL10, path)


# ---------------------------------------------------------------- other things in the place of CIFAR


@pytest.mark.parametrize(
    "name, data, told",
    [
        (
            "x.zip",
            b"PK\x03\x04....",
            "byte 0: a zip archive; expected cifar-100-binary.tar.gz, or the folder",
        ),
        ("x.tar.gz", b"<html>", "byte 0: a web page; expected cifar-100-binary.tar.gz"),
        ("x.png", b"\x89PNG", "byte 0: a PNG picture; expected"),
        (
            "train.bin",
            b"\7\7\7\7",
            "byte 0: one of CIFAR-100's 2 files; expected .* the folder with all files",
        ),
        ("train", b"\x80\x02}", "CIFAR-100's Python version: pickles, which are not read"),
        ("x.tar.gz", b"", "byte 0: an empty file; expected"),
    ],
)
def test_a_file_that_is_no_archive_is_called_what_it_is(tmp_path, name, data, told):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataFileError, match=f"{name}(, |: ){told}"):
        cifar.load_cifar100(tmp_path / name)


@pytest.mark.parametrize("name", ["train/apple/1.png", "apple/1.JPG", "1.jpeg"])
def test_a_folder_of_pictures_is_called_so(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
    (tmp_path / "test").mkdir(exist_ok=True)  # a folder of this name is no pickle
    told = f"pictures, such as {name}, in the place of CIFAR-100's binary files; .*load_image_folders"
    with pytest.raises(DataFileError, match=told):
        cifar.load_cifar100(tmp_path)


@pytest.mark.parametrize("packed", [False, True])
def test_the_other_cifar_is_called_so(tmp_path, rng, packed):
    for layout, other in ((SMALL10, SMALL100), (SMALL100, SMALL10)):
        root = tmp_path / layout.folder
        files = cifar_files(other, rng)
        write_cifar(root, files)
        if packed:
            root = tmp_path / layout.archive
            root.write_bytes(archived(other, files))
        told = f"this is {other.name}, which load_{other.name.replace('-', '').lower()} reads; expected "
        with pytest.raises(DataFileError, match=told + layout.name):
            cifar._load(layout, root)


def test_an_empty_and_a_missing_folder_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"^no CIFAR-10 in {tmp_path}: .*The folder holds: nothing"):
        cifar.load_cifar10(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"^no CIFAR-10 in {tmp_path}/x: there is no such folder"):
        cifar.load_cifar10(tmp_path / "x")


# ---------------------------------------------------------------- hostile files


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
    with pytest.raises(
        DataFileError, match="byte 0: no archive; expected cifar-10-binary.tar.gz, or the folder"
    ):
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
