"""IDX, the file format of MNIST and similar sets: a header of sizes, then bytes in row-major order.

    2 bytes of zero | 0x08 for unsigned bytes | number of dimensions d | d sizes, big-endian u4 | the bytes

The files are published gzipped, and a gzip stream can unpack to a thousand times its size. So the reader
unpacks at most one byte more than the header announces. Memory grows with the bytes that were read, not with
the number that was announced.
"""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import DataFileError, kind_of

CHUNK = 2**16  # bytes read at a time
MAGIC = {  # the first four bytes of an IDX file, where images and labels are confused
    b"\0\0\x08\x01": "an IDX file of labels",
    b"\0\0\x08\x03": "an IDX file of images",
}
GZIP_RATIO = 1032  # one byte of a deflate stream unpacks to at most this many bytes


def read_idx(path: str | Path, ndim: int) -> np.ndarray:
    """Return the uint8 array of an IDX file, plain or gzipped.

    ndim: how many dimensions the array must have: 3 for images [n, rows, columns], 1 for labels [n].
    Raises DataFileError if the file is of another kind or has another ndim, if bytes are missing or left
    over, and if gzipped data is damaged. A plain file has no checksum, so changed pixels in it are not
    noticed.
    """
    path = Path(path).expanduser()
    size = path.stat().st_size
    with path.open("rb") as file:
        zipped = file.peek(2)[:2] == b"\x1f\x8b"
        if not zipped:
            return _read(file, path, ndim, most=size)
        with gzip.GzipFile(fileobj=file) as unpacked:
            try:
                return _read(unpacked, path, ndim, most=size * GZIP_RATIO)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                found = f"damaged gzip data ({error})"
                raise DataFileError(path, unpacked.tell(), found, "a complete gzip stream") from error


def _read(file: BinaryIO, path: Path, ndim: int, most: int) -> np.ndarray:
    """Read the header and the bytes; `most` is the largest number of bytes that the file can hold."""
    magic = file.read(4)
    expected = bytes([0, 0, 8, ndim])
    if magic != expected:
        kind = MAGIC.get(magic) or kind_of(magic + file.read(508))
        found = f"starts with {magic.hex(' ') or 'nothing'}" + (f": {kind}" if kind else "")
        raise DataFileError(path, 0, found, expected.hex(" "))
    header = file.read(4 * ndim)
    if len(header) < 4 * ndim:
        raise DataFileError(path, 4 + len(header), "the file ends in its header", f"{ndim} sizes of 4 bytes")
    shape = np.frombuffer(header, ">u4").tolist()
    start = 4 + 4 * ndim
    length = prod(shape)
    if start + length > most:
        raise DataFileError(path, 4, f"sizes {shape}", f"at most {most:,} bytes, all that the file can hold")
    data = bytearray()
    while len(data) <= length:
        piece = file.read1(min(CHUNK, length + 1 - len(data)))
        if not piece:
            break
        data += piece
    if len(data) < length:
        raise DataFileError(path, start + len(data), "the file ends", f"{length:,} bytes for {shape}")
    if len(data) > length:
        raise DataFileError(path, start + length, "more bytes follow", f"{length:,} bytes for {shape}")
    return np.frombuffer(data, np.uint8).reshape(shape)
