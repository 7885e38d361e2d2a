"""Fashion-MNIST and MNIST: 60,000 + 10,000 grey images of ten classes, 28×28 pixels, padded here to 32×32."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..download import fetch, require
from ..errors import DataFileError
from .augment import normalise
from .idx import read_idx

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
FASHION_MD5 = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of Debian's package dataset-fashion-mnist

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"  # a mirror: the author's page is often closed
MNIST_MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}

Split = tuple[np.ndarray, np.ndarray]  # images, labels


def load_fashion_mnist(root: str | Path | None = None) -> tuple[Split, Split]:
    """Return (training images, labels), (test images, labels): float32 [n, 32, 32, 1], int64 [n].

    root: a folder that holds the four IDX files, gzipped or not; or torchvision's folder, in which they are
        in FashionMNIST/raw or in raw. "~" is the home folder. Without root, the files come from Debian's
        folder (the package dataset-fashion-mnist), else from the cache, else from a download.
    The images are padded with black, which is the colour of their background. Then they are standardised by
    the mean and standard deviation of the 28×28 training pixels (0.2860 and 0.3530).
    A file may be called train-images-idx3-ubyte or train-images.idx3-ubyte, and it may be in a folder of such
    a name, as Kaggle has it. If it is there more than once, all copies must hold the same data.
    Raises FileNotFoundError if files are missing, DownloadError, and DataFileError for a damaged file, for
    copies that differ, and for images and labels that do not belong together.
    """
    return _pad_and_standardise(*read_fashion_mnist(root, "load_fashion_mnist"))


def read_fashion_mnist(
    root: str | Path | None = None, call: str = "read_fashion_mnist"
) -> tuple[Split, Split]:
    """Return the images as they are in the files: uint8 [n, 28, 28], where 0 is black; and labels int64 [n].

    root: as for load_fashion_mnist.
    call: the name of the function that an error message should advise to call.
    """
    if root is None:
        has_package = DEBIAN.is_dir()
        root = DEBIAN if has_package else fetch("fashion-mnist", FASHION_URL, FASHION_MD5, call)
    return _read(root, "FashionMNIST", call)


def load_mnist(root: str | Path | None = None) -> tuple[Split, Split]:
    """Return MNIST's handwritten digits as load_fashion_mnist does (mean 0.1307, deviation 0.3081).

    root: as for load_fashion_mnist; torchvision's folders are MNIST/raw and raw. Without root, the files come
        from the cache, else from a download.
    """
    call = "load_mnist"
    if root is None:
        root = fetch("mnist", MNIST_URL, MNIST_MD5, call)
    return _pad_and_standardise(*_read(root, "MNIST", call))


def _read(root: str | Path, torchvision: str, call: str) -> tuple[Split, Split]:
    """Return (training images, labels), (test images, labels) from root or torchvision's folder in it."""
    root = Path(root).expanduser()
    places = [root, root / "raw", root / torchvision / "raw"]
    paths = require(places, [_names(file) for file in FILES], call)
    return _read_pair(*paths[:2]), _read_pair(*paths[2:])


def _names(file: str) -> tuple[str, ...]:
    """Return all the names under which people have this file."""
    spellings = (file, file.replace("-idx", ".idx"))
    nested = tuple(f"{folder}/{name}" for folder in spellings for name in spellings)
    return *spellings, *nested, *(f"{name}.gz" for name in spellings)


def _read_copies(paths: list[Path], ndim: int) -> np.ndarray:
    """Return the array of an IDX file that may be there several times."""
    array = read_idx(paths[0], ndim)
    for path in paths[1:]:
        if not np.array_equal(array, read_idx(path, ndim)):
            raise DataFileError(
                paths[0], None, f"other data than in {path}", "the same: remove one of the two"
            )
    return array


def _pad_and_standardise(train_split: Split, test_split: Split) -> tuple[Split, Split]:
    (train, train_labels), (test, test_labels) = train_split, test_split
    # Counting the 256 levels is exact, and needs no copy of the images in floats.
    counts = sum(np.bincount(image.reshape(-1), minlength=256) for image in train)
    levels = np.arange(256) / 255
    mean = (counts * levels).sum() / counts.sum()
    deviation = ((counts * (levels - mean) ** 2).sum() / counts.sum()) ** 0.5
    train, test = (
        normalise(np.pad(images, ((0, 0), (2, 2), (2, 2)))[..., None], mean, deviation)  # [n, 32, 32, 1]
        for images in (train, test)
    )
    return (train, train_labels), (test, test_labels)


def _read_pair(images_paths: list[Path], labels_paths: list[Path]) -> Split:
    """Return uint8 [n, 28, 28] and int64 [n]; n is as large as the files say."""
    images, labels = _read_copies(images_paths, 3), _read_copies(labels_paths, 1)
    images_path, labels_path = images_paths[0], labels_paths[0]
    if images.shape[1:] != (28, 28) or not len(images):
        raise DataFileError(images_path, 4, f"images of shape {list(images.shape)}", "[n, 28, 28], n > 0")
    if images.min() == images.max():
        raise DataFileError(images_path, 16, "all pixels have the same value", "images")
    if len(labels) != len(images):
        raise DataFileError(labels_path, 4, f"{len(labels)} labels", f"{len(images)}, one per image")
    if labels.max() > 9:
        first = int((labels > 9).argmax())
        raise DataFileError(labels_path, 8 + first, f"label {labels[first]}", "0 to 9")
    return images, labels.astype("int64")
