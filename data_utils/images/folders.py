"""Folders of images, decoded by Pillow one batch at a time.

Two layouts are known. The first is ImageNet's; use it for images of your own:

    root/train/<class>/**/*.JPEG
    root/val/<class>/**/*.JPEG

The second is Tiny-ImageNet's:

    root/train/<class>/images/*.JPEG
    root/val/images/*.JPEG
    root/val/val_annotations.txt        the class of each of these images

Images may have various sizes. `centre_crop` and `random_resized_crop` turn a list of images into an array:

    train, test = load_image_folders(root)

    def augment(images, labels, rng):
        return normalise(random_resized_crop(images, rng, 224), MEAN, DEVIATION), labels

    batches = Loader(train, train.labels, 128, augment=augment)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import DataFileError

SUFFIXES = {".jpeg", ".jpg", ".png"}
# The most pixels that an image may have. ImageNet's largest has 61 million. A file that claims more than this
# may be a decompression bomb.
MOST_PIXELS = 2**26
# The usual numbers for ImageNet's channels red, green and blue.
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


class ImageFolder:
    """Image files with labels; folder[indices] decodes these files into a list of RGB Pillow images.

    paths: the files.    labels: int64 [n], places in classes.    classes: the names of the classes.
    The images keep their own sizes.
    Raises ImportError if Pillow is missing, ValueError if paths and labels differ in length, and, when images
    are asked for, DataFileError for a file that cannot be decoded.
    """

    def __init__(self, paths: list[Path], labels: np.ndarray, classes: list[str]):
        _pillow()
        if len(paths) != len(labels):
            raise ValueError(f"ImageFolder got {len(paths)} files and {len(labels)} labels")
        self.paths = paths
        self.labels = np.asarray(labels, "int64")
        self.classes = classes

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, indices: np.ndarray) -> list:
        return [read_image(self.paths[index]) for index in indices]


def load_image_folders(root: str | Path) -> tuple[ImageFolder, ImageFolder]:
    """Return the training images and the test images: the folders train and val of root.

    The classes are the folders of train, ordered by name. val may have either of the two layouts above.
    Raises FileNotFoundError, which says what is missing and where, and DataFileError for a wrong line in
    val_annotations.txt.
    """
    root = Path(root)
    classes = [path.name for path in _inside(root / "train", root) if path.is_dir()]
    if not classes:
        raise FileNotFoundError(f"no class folder in {root / 'train'}; expected train/<class>/*.JPEG")
    train = _by_class(root / "train", classes)
    annotations = root / "val" / "val_annotations.txt"
    if annotations.is_file():
        return train, _annotated(annotations, classes)
    found = [path.name for path in _inside(root / "val", root) if path.is_dir()]
    if found != classes:
        odd = sorted(set(found) ^ set(classes))[:5]
        raise FileNotFoundError(
            f"{root / 'val'} has {len(found)} class folders and no val_annotations.txt, train has "
            f"{len(classes)}; expected the same. Only in one of them: {', '.join(odd)}"
        )
    return train, _by_class(root / "val", classes)


def _inside(folder: Path, root: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; {root} must hold train and val")
    return sorted(folder.iterdir())


def _by_class(folder: Path, classes: list[str]) -> ImageFolder:
    paths, labels = [], []
    for label, name in enumerate(classes):
        files = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in SUFFIXES)
        if not files:
            raise FileNotFoundError(f"no image in {folder / name}; expected {', '.join(sorted(SUFFIXES))}")
        paths += files
        labels += [label] * len(files)
    return ImageFolder(paths, np.array(labels), classes)


def _annotated(annotations: Path, classes: list[str]) -> ImageFolder:
    """Read Tiny-ImageNet's lines `file <tab> class <tab> box …`; the folder images is next to this file."""
    label_of = {name: label for label, name in enumerate(classes)}
    paths, labels = [], []
    offset = 0  # of the line, for error messages
    for line in annotations.read_bytes().splitlines(keepends=True):
        file, name, *_ = [*line.decode("utf-8", "replace").rstrip().split("\t"), ""]
        if not file or Path(file).name != file or name not in label_of:
            expected = "a file name, a tab and one of train's classes"
            raise DataFileError(annotations, offset, f"the line {line[:60]!r}", expected)
        paths.append(annotations.parent / "images" / file)
        labels.append(label_of[name])
        offset += len(line)
    missing = next((path for path in paths if not path.is_file()), None)
    if missing or not paths:
        raise FileNotFoundError(f"{annotations} names {len(paths)} images; missing: {missing or 'all'}")
    return ImageFolder(paths, np.array(labels), classes)


# ---------------------------------------------------------------- one image


def read_image(path: Path):
    """Return a file as an RGB Pillow image, decoded in full; grey, palette and CMYK images become RGB.

    Grey levels of 16 bits are refused, because Pillow would turn all but the darkest levels into white.
    Raises DataFileError for these, for an image with too many pixels, and for a file that cannot be decoded.
    """
    image_module = _pillow()
    try:
        with image_module.open(path, formats=("JPEG", "PNG")) as image:  # of any name: the content decides
            pixels = image.width * image.height
            if pixels > MOST_PIXELS:
                raise DataFileError(path, None, f"an image of {pixels:,} pixels", f"at most {MOST_PIXELS:,}")
            if image.mode.startswith("I"):
                raise DataFileError(path, None, f"grey levels of 16 bits (mode {image.mode})", "8 bits")
            return image.convert("RGB")
    except (DataFileError, FileNotFoundError):
        raise
    except Exception as error:  # Pillow's decoders raise errors of many kinds
        found = f"cannot be decoded ({type(error).__name__}: {error})"
        raise DataFileError(path, None, found, "a complete JPEG or PNG image") from error


def _pillow():
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("image folders need Pillow: pip install 'minispike[data]'") from error
    return Image


# ---------------------------------------------------------------- images of various sizes → one array


def centre_crop(images: list, size: int, share: float = 0.875) -> np.ndarray:
    """Return uint8 [n, size, size, 3]: the middle square of each image, scaled.

    share: the side of the square, as a share of the image's shorter side. The default is 224 / 256 = 0.875:
        with size = 224, this is the usual "resize to 256, crop 224" in one step, with the cubic filter.
    """
    result = np.empty((len(images), size, size, 3), np.uint8)
    for i, image in enumerate(images):
        side = share * min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        result[i] = _scaled(image, size, left, top, side, side)
    return result


AREA = (0.08, 1.0)  # the smallest and the largest share of the image's area
RATIO = (3 / 4, 4 / 3)  # the smallest and the largest ratio of width to height
TRIES = 10  # how many boxes are drawn, until one fits


def random_resized_crop(images: list, rng: np.random.Generator, size: int) -> np.ndarray:
    """Return uint8 [n, size, size, 3]: a random box of each image, scaled (arXiv 1409.4842, §6).

    The area of the box is 8 to 100 % of the image's area. Its ratio of width to height is 3:4 to 4:3,
    log-uniform. If none of ten boxes fits into the image, the box is the whole image, or as much of its
    middle as these ratios allow.
    """
    result = np.empty((len(images), size, size, 3), np.uint8)
    for i, image in enumerate(images):
        result[i] = _scaled(image, size, *_random_box(image.width, image.height, rng))
    return result


def _random_box(width: int, height: int, rng: np.random.Generator) -> tuple[float, ...]:
    """Return (left, top, width, height) of a random box in an image of width × height pixels."""
    for _ in range(TRIES):
        area = rng.uniform(*AREA) * width * height
        ratio = np.exp(rng.uniform(*np.log(RATIO)))
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.integers((width - w, height - h), endpoint=True)
            return left, top, w, h
    w = min(width, round(height * RATIO[1]))
    h = min(height, round(width / RATIO[0]))
    return (width - w) // 2, (height - h) // 2, w, h


def _scaled(image, size: int, left: float, top: float, width: float, height: float) -> np.ndarray:
    box = (left, top, left + width, top + height)
    return np.asarray(image.resize((size, size), _pillow().Resampling.BICUBIC, box))
