"""The error of all readers, and what a file is by its first bytes."""

import bz2
import gzip
import io
import lzma
import pickle
import zipfile

import numpy as np
import pytest

from data_utils import DataFileError
from data_utils.errors import kind_of

from .common import tar


def saved(write) -> bytes:
    """Return what write puts into a file."""
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def zipped(file) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", "b")


def test_an_error_names_the_place_what_is_there_and_what_should_be():
    assert issubclass(DataFileError, ValueError)
    told = str(DataFileError("a.bin", 12_345, "label 11", "0 to 9"))
    assert told == "a.bin, byte 12,345: label 11; expected 0 to 9"
    assert str(DataFileError("a.bin", None, "a", "b")) == "a.bin: a; expected b"


@pytest.mark.parametrize(
    "data, kind",
    [
        (b"", "an empty file"),
        (gzip.compress(b"a", mtime=0), "gzip data"),
        (bz2.compress(b"a"), "bzip2 data"),
        (lzma.compress(b"a"), "xz data"),
        (saved(zipped), "a zip archive"),
        (tar({"a": b"b"}), "a tar archive"),
        (saved(lambda file: np.save(file, np.zeros(1))), "a NumPy array"),
        *[(pickle.dumps({}, version), "a pickle") for version in (2, 3, 4, 5)],
        (b"\r\n <HTML>", "a web page"),
        (b"1,2,3", None),
        (bytes(600), None),
    ],
)
def test_a_file_is_known_by_its_first_bytes(data, kind):
    assert kind_of(data[:512]) == kind


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WebP"])
def test_a_picture_is_known_by_its_first_bytes(format):
    image = pytest.importorskip("PIL.Image").new("RGB", (8, 8))
    assert kind_of(saved(lambda file: image.save(file, format))[:512]) == f"a {format} picture"
