"""What the tests of data readers share: files written byte by byte, and ways to damage a file."""

import gzip
import io
import struct
import tarfile
import tracemalloc
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from data_utils.images.cifar import CIFAR10, CIFAR100
from data_utils.images.mnist import FILES

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


# ---------------------------------------------------------------- files of MNIST and CIFAR


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder, rng, n=(6, 4), suffix=""):
    for name, count in zip(FILES, (n[0], n[0], n[1], n[1]), strict=True):
        shape = (count, 28, 28) if "images" in name else (count,)
        data = idx(rng.integers(0, 256 if "images" in name else 10, shape, dtype=np.uint8))
        (folder / f"{name}{suffix}").write_bytes(gzip.compress(data) if suffix else data)


SMALL10 = replace(CIFAR10, train_records=3, test_records=4)


SMALL100 = replace(CIFAR100, train_records=15, test_records=4)


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
