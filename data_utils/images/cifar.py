"""CIFAR-10 and CIFAR-100 in their binary version: 50,000 + 10,000 colour images of 32×32 pixels.

A file consists of records of one length. A record is the label, one byte, then 1,024 bytes of red, 1,024 of
green and 1,024 of blue, row-major. CIFAR-100 has two label bytes, a coarse label and a fine one. The "python
version" of the same data consists of pickles, which can execute anything when opened, so it is not read.
"""

from __future__ import annotations

import gzip
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from ..download import contents, fetch
from ..errors import DataFileError, kind_of
from .augment import normalise
from .folders import SUFFIXES

URL = "https://www.cs.toronto.edu/~kriz/"
PIXELS = 3 * 32 * 32  # bytes of pixels in a record


@dataclass(frozen=True)
class Layout:
    """The files of a data set.

    labels: for each label byte of a record, how many values the byte can take.
    train_records, test_records: how many records each training file has, and the test file.
    """

    name: str
    folder: str
    archive: str
    md5: str
    labels: tuple[int, ...]
    train: tuple[str, ...]
    train_records: int
    test: str
    test_records: int = 10_000

    def sizes(self) -> dict[str, int]:
        """Return {file name: length in bytes}."""
        record = len(self.labels) + PIXELS
        sizes = dict.fromkeys(self.train, self.train_records * record)
        sizes[self.test] = self.test_records * record
        return sizes


CIFAR10 = Layout(
    "CIFAR-10",
    "cifar-10-batches-bin",
    "cifar-10-binary.tar.gz",
    "c32a1d4ab5d03f1284b67883e8d87530",
    labels=(10,),
    train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    train_records=10_000,
    test="test_batch.bin",
)
CIFAR100 = Layout(
    "CIFAR-100",
    "cifar-100-binary",
    "cifar-100-binary.tar.gz",
    "03b5dce01913d631647c71ecec9e9cb8",
    labels=(20, 100),
    train=("train.bin",),
    train_records=50_000,
    test="test.bin",
)

Split = tuple[np.ndarray, np.ndarray]  # images, labels


def load_cifar10(root: str | Path | None = None) -> tuple[Split, Split]:
    """Return (training images, labels), (test images, labels): uint8 [n, 32, 32, 3], int64 [n].

    root: the folder of the binary version; or the folder that holds that folder or its archive; or the
        archive itself, .tar.gz or .tar. If there are several of these, the first in this order that has all
        files is read. An archive is read without extracting it to disk. "~" is the home folder. Without root,
        the archive comes from the cache, else from a download of 170 MB.
    The images stay bytes, because the training policy works on bytes and floats are four times as large.
    `prepare_cifar` standardises them.
    Raises DataFileError for a file of wrong size or with a wrong label, for an archive that holds a file
    twice, and for what is not this version: the Python version, CIFAR-100, a folder of pictures. Raises
    FileNotFoundError or DownloadError if there are no files.
    """
    return _load(CIFAR10, root)


def load_cifar100(root: str | Path | None = None) -> tuple[Split, Split]:
    """Return CIFAR-100, with the 100 fine labels, as load_cifar10 returns CIFAR-10."""
    return _load(CIFAR100, root)


# ---------------------------------------------------------------- preparation

# Of CIFAR-10's channels red, green and blue. We use these numbers for CIFAR-100 too; this choice is ours.
MEAN = (0.4914, 0.4822, 0.4465)
DEVIATION = (0.2470, 0.2435, 0.2616)


def prepare_cifar(images: np.ndarray) -> np.ndarray:
    """Return bytes [n, 32, 32, 3] as standardised float32; test images need no other preparation."""
    return normalise(images, MEAN, DEVIATION)


# ---------------------------------------------------------------- files


def read_records(data: bytes, path: str | Path, labels: tuple[int, ...]) -> Split:
    """Return images uint8 [n, 32, 32, 3] and labels int64 [n], the last label of each record.

    data: the bytes of a file.    path: the file, for error messages.
    labels: as in Layout.
    Raises DataFileError if the last record is cut off, or if a label is too large.
    """
    length = len(labels) + PIXELS
    if len(data) % length:
        raise DataFileError(path, len(data), "the file ends within a record", f"records of {length:,} bytes")
    records = np.frombuffer(data, np.uint8).reshape(-1, length)
    for column, count in enumerate(labels):
        wrong = records[:, column] >= count
        if wrong.any():
            first = int(wrong.argmax())
            found = f"label {records[first, column]}"
            raise DataFileError(path, first * length + column, found, f"0 to {count - 1}")
    planes = records[:, len(labels) :].reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, len(labels) - 1].astype("int64")


def _load(layout: Layout, root: str | Path | None) -> tuple[Split, Split]:
    if root is None:
        call = f"load_{layout.name.replace('-', '').lower()}"
        root = fetch(layout.folder, URL, {layout.archive: layout.md5}, call)
    place = _find(layout, Path(root).expanduser())
    read = _read_folder if place.is_dir() else _read_archive
    files = {name: read_records(data, place / name, layout.labels) for name, data in read(layout, place)}
    images = np.concatenate([files[name][0] for name in layout.train])
    labels = np.concatenate([files[name][1] for name in layout.train])
    return (images, labels), files[layout.test]


def _find(layout: Layout, root: Path) -> Path:
    """Return the folder that holds the files, or the archive's path."""
    if root.is_file():
        return root
    folders = (root, root / layout.folder)
    archives = (root / layout.archive, root / layout.archive.removesuffix(".gz"))
    for place in (*folders, *archives):
        if place.is_file() or _has(place, layout, all):
            return place
    for folder in folders:  # reading this folder will name the file that is missing
        if _has(folder, layout, any):
            return folder
    raise _no_such_files(layout, root)


def _has(folder: Path, layout: Layout, enough) -> bool:
    """Return whether a folder has all files of a layout, or any; enough: the function all or any."""
    return enough((folder / name).is_file() for name in layout.sizes())


def _no_such_files(layout: Layout, root: Path) -> Exception:
    """Return the error that says what root has instead of the files."""
    python = layout.folder.split("-b")[0]  # cifar-10, cifar-100
    names = (f"{python}-batches-py", f"{python}-python", f"{python}-python.tar.gz")
    pickle = root / layout.test.removesuffix(".bin")
    for path in (pickle, *(root / name for name in names)):
        if path.is_file() or (path != pickle and path.exists()):  # a folder called test is no pickle
            return _python_version(layout, path)
    for other in (CIFAR10, CIFAR100):
        for folder in (root, root / other.folder):
            if other.name != layout.name and _has(folder, other, all):
                return _other_set(layout, other, folder)
    expected = (
        f"expected the files {', '.join(layout.sizes())}, or the folder {layout.folder} that holds them, "
        f"or {layout.archive} from {URL}{layout.archive}"
    )
    if not root.exists():
        return FileNotFoundError(f"no {layout.name} in {root}: there is no such folder; {expected}")
    picture = _a_picture(root)
    if picture:
        found = f"pictures, such as {picture.relative_to(root)}, in the place of {layout.name}'s binary files"
        other_reader = "load_image_folders reads pictures, and so does --data FOLDER on the command line"
        return DataFileError(
            root, None, found, f"{layout.archive} from {URL}{layout.archive}. {other_reader}"
        )
    return FileNotFoundError(f"no {layout.name} in {root}: {expected}. {contents(root)}")


def _a_picture(root: Path) -> Path | None:
    """Return a picture in root or in class folders below it, if there is one."""
    found = (path for pattern in ("*", "*/*", "*/*/*") for path in root.glob(pattern))
    return next((path for path in found if path.suffix.lower() in SUFFIXES), None)


def _python_version(layout: Layout, path: Path) -> DataFileError:
    where = f"the binary version, {URL}{layout.archive}"
    return DataFileError(path, None, f"{layout.name}'s Python version: pickles, which are not read", where)


def _other_set(layout: Layout, other: Layout, path: Path) -> DataFileError:
    function = f"load_{other.name.replace('-', '').lower()}"
    return DataFileError(path, None, f"this is {other.name}, which {function} reads", layout.name)


def _read_folder(layout: Layout, folder: Path):
    """Yield (name, bytes) of each file."""
    for name, size in layout.sizes().items():
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(f"{layout.name} lacks {path}; needed: {', '.join(layout.sizes())}")
        found = path.stat().st_size
        if found != size:
            raise DataFileError(path, min(found, size), f"a file of {found:,} bytes", f"{size:,}")
        yield name, path.read_bytes()


# ---------------------------------------------------------------- the archive


def _read_archive(layout: Layout, path: Path):
    """Yield (name, bytes) of each file in a .tar.gz archive, or in a .tar archive, which has no checksum.

    The files are read into memory, so the names in a hostile archive cannot write anywhere on the disk.
    """
    sizes = layout.sizes()
    missing = set(sizes)
    limit = sum(sizes.values()) + 2**20  # 2**20: for the tar headers and a page of text
    with path.open("rb") as file:
        stream = _Limited(_unpacked(layout, path, file), limit, path)
        try:
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    name = _wanted(layout, member.name, path)
                    if name is None:
                        continue
                    if not (member.isreg() and member.size == sizes[name]):
                        kind = "" if member.isreg() else ", no plain file"
                        found = f"{member.name}{kind} of {member.size:,} bytes"
                        raise DataFileError(path, member.offset, found, f"a file of {sizes[name]:,}")
                    if name not in missing:
                        found = f"the file {member.name} for the second time"
                        raise DataFileError(path, member.offset, found, "each file once")
                    missing.remove(name)
                    yield name, archive.extractfile(member).read()
            while stream.read(2**20):  # up to the end, where gzip's checksum is
                pass
        except DataFileError:
            raise
        except Exception as error:  # gzip, zlib and tarfile raise errors of many kinds
            found = f"a damaged archive ({type(error).__name__}: {error})"
            raise DataFileError(path, stream.position, found, layout.archive) from error
    if missing:
        found = f"the archive ends without {', '.join(name for name in sizes if name in missing)}"
        raise DataFileError(path, stream.position, found, ", ".join(sizes))


def _unpacked(layout: Layout, path: Path, file: BinaryIO) -> BinaryIO:
    """Return the stream of a tar archive, which may be gzipped; refuse what is no archive."""
    kind = kind_of(file.read(512))
    file.seek(0)
    if kind == "gzip data":
        return gzip.GzipFile(fileobj=file)
    if kind == "a tar archive":
        return file
    if kind == "a pickle":
        raise _python_version(layout, path)
    if path.name in layout.sizes():
        kind = f"one of {layout.name}'s {len(layout.sizes())} files"
    raise DataFileError(path, 0, kind or "no archive", f"{layout.archive}, or the folder with all files")


def _wanted(layout: Layout, member: str, path: Path) -> str | None:
    """Return which of the files a member of the archive is, by its name; None for other members.

    Some programs write names with "./" before them, or leave out the folder.
    """
    *folders, name = PurePosixPath(member).parts or [""]
    if any(folder.endswith(("-batches-py", "-python")) for folder in folders):
        raise _python_version(layout, path)
    for other in (CIFAR10, CIFAR100):
        if other.name != layout.name and folders == [other.folder]:
            raise _other_set(layout, other, path)
    return name if folders in ([], [layout.folder]) and name in layout.sizes() else None


class _Limited:
    """A stream that refuses to unpack more than `limit` bytes.

    A gzip stream can unpack to a thousand times its size.
    """

    def __init__(self, file, limit: int, path: Path):
        self.file = file
        self.limit = limit
        self.path = path
        self.position = 0

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        self.position += len(data)
        if self.position > self.limit:
            raise DataFileError(self.path, self.limit, "the archive goes on", f"{self.limit:,} bytes at most")
        return data
