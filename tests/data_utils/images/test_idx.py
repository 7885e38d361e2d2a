"""IDX files: arrays come back as written, and no damaged file gets past the reader."""

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given

from data_utils.errors import DataFileError
from data_utils.images.idx import read_idx

from ..common import changed, damaged, fuzz, idx, memory_below


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
        (b"", "byte 0: starts with nothing: an empty file; expected 00 00 08 03"),
        (b"\0\0\x08\x01\0\0\0\1", "byte 0: starts with 00 00 08 01: an IDX file of labels; expected"),
        (b"PK\x03\x04" + bytes(20), "byte 0: starts with 50 4b 03 04: a zip archive; expected 00 00 08 03"),
        (b"\n<!DOCTYPE HTML><html>", "byte 0: starts with 0a 3c 21 44: a web page; expected"),
        (gzip.compress(gzip.compress(b"twice")), "byte 0: starts with 1f 8b 08 00: gzip data; expected"),
        (b"\0\0\x0d\x03", "byte 0: starts with 00 00 0d 03"),  # floats
        (b"\0\0\x08\x03\0\0\0\1\0", "byte 9: the file ends in its header; expected 3 sizes of 4 bytes"),
        (idx(np.zeros((2, 3, 4), "u1")) + b"x", "byte 40: more bytes follow; expected 24 bytes"),
        (
            struct.pack(">4I", 0x803, 2**32 - 1, 2**32 - 1, 2**32 - 1),
            r"byte 4: sizes \[4294967295, 4294967295, 4294967295\]; expected at most 16 bytes",
        ),
    ],
    ids=["empty", "labels", "zip", "page", "twice", "floats", "header", "longer", "terabytes"],
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
