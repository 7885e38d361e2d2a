"""NumPy files as plain arrays: nothing is executed, and the size of a file bounds the memory it takes.

The arrays of an .npz are unpacked only if they take at most 100 times the size of the file + 1 MiB. Each
array must have exactly the bytes that its header claims. Python objects, which would be unpickled, are
refused.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .errors import DataFileError

UNPACKED = 100  # the arrays of an .npz may take this many times its size


def read_npz(path: Path, choose: Callable[[list[str]], list[str]]) -> dict[str, np.ndarray]:
    """Return some arrays of an .npz file, by their names.

    choose: (the names of all arrays) → the names of those to read. It may raise DataFileError.
    Raises DataFileError for a file that is damaged, has two arrays of one name, or unpacks to too much.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            counts = Counter(name.removesuffix(".npy") for name in archive.namelist())
            twice = [name for name, n in counts.items() if n > 1]
            if twice:
                raise DataFileError(path, None, f"two arrays named {twice[0]}", "one array of each name")
            wanted = choose([*members])
            _expect_unpackable(path, [members[name] for name in wanted])
            return {name: read_array(path, name, archive.read(members[name])) for name in wanted}
    except DataFileError:
        raise
    except Exception as error:  # zipfile raises errors of many kinds
        found = f"cannot be unpacked ({type(error).__name__}: {error})"
        raise DataFileError(path, None, found, "a complete .npz file, as np.savez writes it") from error


def _expect_unpackable(path: Path, members: list[zipfile.ZipInfo]) -> None:
    if any(info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for info in members):
        raise DataFileError(path, None, "another compression", "stored or deflated, as np.savez writes it")
    unpacked = sum(max(info.file_size, info.compress_size) for info in members)  # zipfile allocates either
    packed = path.stat().st_size
    if unpacked > UNPACKED * packed + (1 << 20):
        expected = f"at most {UNPACKED} × the file's {packed:,} bytes"
        raise DataFileError(path, None, f"arrays that unpack to {unpacked:,} bytes", expected)


def read_array(path: Path, name: str, data: bytes) -> np.ndarray:
    """Return the array that is the content of an .npy file; its header must fit the bytes that follow.

    path, name: the file and the array, for the message of DataFileError.
    """
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = headers[version](file)
    except Exception as error:  # NumPy's parser raises errors of many kinds
        found = f"{name} has a damaged header ({type(error).__name__}: {error})"
        raise DataFileError(path, None, found, "an array, as np.save writes it") from error
    if dtype.subdtype:  # an array in each place, which np.save writes as more axes
        raise DataFileError(path, None, f"{name} has the dtype {dtype}"[:200], "a dtype that np.save writes")
    if dtype.hasobject:
        raise DataFileError(path, None, f"{name} holds Python objects", "numbers")
    left = len(data) - file.tell()
    whole = min(shape, default=0) >= 0 and math.prod(shape) * dtype.itemsize == left
    if not dtype.itemsize or not whole or max(shape, default=0) > np.iinfo(np.intp).max:
        found = f"{name} has the shape {list(shape)} of {dtype} and {left} bytes"[:200]
        raise DataFileError(path, None, found, "the bytes for it")
    return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape, order="F" if fortran else "C")
