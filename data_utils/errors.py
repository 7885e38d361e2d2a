"""How a reader refuses a file and says what the file is instead, and how a writer names a full disk."""

from __future__ import annotations

import errno
import re
from collections import Counter
from contextlib import contextmanager
from pathlib import Path


class DataFileError(ValueError):
    """A data file is not what it claims to be.

    path: the file.
    offset: the byte where the fault is, counted in the unpacked file; None where the format hides the offset.
    found, expected: what the file has there, and what it should have.
    """

    def __init__(self, path: str | Path, offset: int | None, found: str, expected: str):
        place = f"{path}" if offset is None else f"{path}, byte {offset:,}"
        super().__init__(f"{place}: {found}; expected {expected}")


@contextmanager
def named_if_no_room(path: Path):
    """Let an error for a full disk, while a file is written inside, name this file and say what to do.

    The system's own error for a failed write names no file.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OSError(
            f"no room for {path} ({error.strerror}): make room and start again; what is complete is kept"
        ) from error


def unique_names(pairs: list[tuple[str, object]]) -> dict:
    """Return the object of a JSON file as a dict; json calls this with its names and values.

    Raises ValueError if two entries have one name, of which the last would win.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        name, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"two entries of one name, {name!r}")
    return found


KINDS = {  # how a file begins, as a regular expression: what the file is
    rb"\Z": "an empty file",
    rb"\x1f\x8b": "gzip data",
    rb".{257}ustar": "a tar archive",
    rb"PK\x03\x04": "a zip archive",
    rb"BZh": "bzip2 data",
    rb"\xfd7zXZ\0": "xz data",
    rb"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    rb"Rar!": "a RAR archive",
    rb"\x80[\x02-\x05]": "a pickle",
    rb"\x93NUMPY": "a NumPy array",
    rb"\xff\xd8\xff": "a JPEG picture",
    rb"\x89PNG": "a PNG picture",
    rb"GIF8": "a GIF picture",
    rb"BM": "a BMP picture",
    rb"II\*\0|MM\0\*": "a TIFF picture",
    rb"RIFF.{4}WEBP": "a WebP picture",
    rb".{4}ftyp(heic|heix|mif1|msf1)": "a HEIC picture",
    rb".{4}ftypavi[fs]": "an AVIF picture",
    rb"\s*<(!doctype html|html)": "a web page",
    rb"version https://git-lfs": "a pointer of Git LFS, without the data",
}


def kind_of(head: bytes) -> str | None:
    """Return what a file is, such as "a zip archive", judged by its first 512 bytes; None if it is unknown.

    Two or three bytes may agree by chance, so use the answer only in an error message.
    """
    found = (kind for begin, kind in KINDS.items() if re.match(begin, head, re.DOTALL | re.IGNORECASE))
    return next(found, None)
