"""Folders of images, decoded by Pillow one batch at a time.

Two layouts are known. The first is ImageNet's; use it for images of your own:

    root/train/<class>/**/*.JPEG
    root/val/<class>/**/*.JPEG

The second is Tiny-ImageNet's:

    root/train/<class>/images/*.JPEG
    root/val/images/*.JPEG
    root/val/val_annotations.txt        the class of each of these images

The classes are the class folders, in the order of their names. Files and folders that systems and programs
leave among the images are passed over, and so are files of other formats (../listing.py).

Images may have various sizes. `centre_crop` and `random_resized_crop` turn a list of images into an array:

    train, test = load_image_folders(root)

    def augment(images, labels, rng):
        return normalise(random_resized_crop(images, rng, 224), MEAN, DEVIATION), labels

    batches = Loader(train, train.labels, 128, augment=augment)
"""

from __future__ import annotations

from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np

from ..download import contents
from ..errors import DataFileError, kind_of
from ..listing import files, folders, is_file_name, is_left_behind

SUFFIXES = {".jpeg", ".jpg", ".png"}
# The most pixels that an image may have. ImageNet's largest has 61 million. A file that claims more than this
# may be a decompression bomb.
MOST_PIXELS = 2**26
# The most that one byte of a file can hold: 8 pixels of 1 bit each in a byte, and deflate's best ratio, 1032.
# JPEG holds less. A small file that claims more is damaged, and would take much memory and time.
PIXELS_PER_BYTE = 8 * 1032
ORIENTATION = 0x0112  # the number of this field in EXIF
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
        pillow()
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

    root: the folder; "~" is the home folder.
    The classes are the folders of train, ordered by name. val may have either of the two layouts above, and
    it must have the same classes.
    Raises FileNotFoundError, which says what is missing and where. Raises DataFileError for an image outside
    the class folders, for a wrong line in val_annotations.txt, and if val has both layouts.
    """
    root = Path(root).expanduser()
    classes = _classes(root / "train", root)
    if not classes:
        raise FileNotFoundError(f"no class folder in {root / 'train'}; expected train/<class>/*.JPEG")
    train = _by_class(root / "train", classes)
    val = root / "val"
    found = _classes(val, root)
    annotations = val / "val_annotations.txt"
    if annotations.is_file() and (val / "images").is_dir():
        more = [name for name in found if name != "images"]
        if more:
            both = f"val_annotations.txt with the folder images, and class folders such as {more[0]}"
            raise DataFileError(val, None, both, "one of the two layouts")
        return train, _annotated(annotations, classes)
    if found != classes:
        odd = sorted(set(found) ^ set(classes))[:5]
        raise FileNotFoundError(
            f"{val} has {len(found)} class folders and no val_annotations.txt with a folder images, train "
            f"has {len(classes)} class folders; expected the same. Only in one of them: {', '.join(odd)}"
        )
    return train, _by_class(val, classes)


def _classes(folder: Path, root: Path) -> list[str]:
    """Return the names of the class folders; refuse images next to them."""
    if not folder.is_dir():
        there = contents(root) if root.is_dir() else "There is no such folder"
        raise FileNotFoundError(f"no folder {folder}; {root} must hold train and val. {there}")
    loose = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()]
    loose = [path for path in loose if not is_left_behind(path.name)]
    if loose:
        found = f"{len(loose)} images outside the class folders"
        raise DataFileError(min(loose), None, found, f"each image in {folder.name}/<class>")
    return [path.name for path in folders(folder)]


def _by_class(folder: Path, classes: list[str]) -> ImageFolder:
    paths, labels = [], []
    for label, name in enumerate(classes):
        found = files(folder / name, SUFFIXES)
        if not found:
            raise FileNotFoundError(f"no image in {folder / name}; expected {', '.join(sorted(SUFFIXES))}")
        paths += found
        labels += [label] * len(found)
    return ImageFolder(paths, np.array(labels), classes)


def _annotated(annotations: Path, classes: list[str]) -> ImageFolder:
    """Read Tiny-ImageNet's lines `file <tab> class <tab> box …`; the folder images is next to this file."""
    label_of = {name: label for label, name in enumerate(classes)}
    listed: dict[str, int] = {}  # file: label
    offset = 0  # of the line, for error messages
    for line in annotations.read_bytes().splitlines(keepends=True):
        file, name, *_ = [*line.decode("utf-8", "replace").rstrip().split("\t"), ""]
        if not is_file_name(file) or name not in label_of:
            expected = "a file name, a tab and one of train's classes"
            raise DataFileError(annotations, offset, f"the line {line[:60]!r}", expected)
        if file in listed:
            raise DataFileError(annotations, offset, f"{file} for the second time", "each file once")
        listed[file] = label_of[name]
        offset += len(line)
    paths = [annotations.parent / "images" / file for file in listed]
    missing = next((path for path in paths if not path.is_file()), None)
    if missing or not paths:
        raise FileNotFoundError(f"{annotations} names {len(paths)} images; missing: {missing or 'all'}")
    return ImageFolder(paths, np.array(list(listed.values())), classes)


# ---------------------------------------------------------------- one image


def read_image(path: Path):
    """Return a file as an RGB Pillow image, decoded in full: as a person sees it on a white page.

    - The orientation that a camera wrote (EXIF) is applied. EXIF data that cannot be read is ignored.
    - Transparent pixels are laid over white. (If a PNG file marks one level as transparent, Pillow does not
      find this level among greys of 2 or 4 bits and colours of 16 bits: these pixels keep their colour.)
    - Grey, palette and CMYK images become RGB.
    - Levels of 16 bits, grey or colour, are divided by 256 and cut off to whole numbers.
    - Of several frames, the first is taken.

    Raises DataFileError for an image with too many pixels, at all or for the bytes of its file, and for a
    file that is no JPEG or PNG image or cannot be decoded. The content decides, not the file's name.
    """
    image_module, path = pillow(), Path(path).expanduser()
    try:
        with (
            path.open("rb") as file,
            mmap(file.fileno(), 0, access=ACCESS_READ) as mapped,  # a file's read(n) would first allocate n
            image_module.open(mapped, formats=("JPEG", "PNG")) as image,
        ):
            pixels = image.width * image.height
            most = min(MOST_PIXELS, PIXELS_PER_BYTE * path.stat().st_size)
            if pixels > most:
                raise DataFileError(path, None, f"an image of {pixels:,} pixels", f"at most {most:,}")
            turn = _turn(image)
            rgb = _rgb(image)
            return rgb if turn is None else rgb.transpose(turn)
    except (DataFileError, FileNotFoundError):
        raise
    except Exception as error:  # Pillow's decoders raise errors of many kinds
        found = f"cannot be decoded ({_kind(path) or f'{type(error).__name__}: {error}'})"
        raise DataFileError(path, None, found, "a complete JPEG or PNG image") from error


def _kind(path: Path) -> str | None:
    """Return what a file is that is named like an image; None if it is an image, or unknown."""
    if path.is_dir():
        return "a folder"
    with path.open("rb") as file:
        kind = kind_of(file.read(512))
    return None if kind in ("a JPEG picture", "a PNG picture") else kind


def _turn(image):
    """Return the turn or mirroring that shows an image upright; None if it is upright."""
    transpose = pillow().Transpose
    turns = {
        2: transpose.FLIP_LEFT_RIGHT,
        3: transpose.ROTATE_180,
        4: transpose.FLIP_TOP_BOTTOM,
        5: transpose.TRANSPOSE,
        6: transpose.ROTATE_270,  # counter-clockwise
        7: transpose.TRANSVERSE,
        8: transpose.ROTATE_90,
    }
    try:
        return turns.get(image.getexif().get(ORIENTATION))
    except Exception:  # damaged EXIF data: the pixels may be whole, and nothing else of EXIF is needed
        return None


def _rgb(image):
    image_module = pillow()
    transparent = image.info.get("transparency")
    if image.mode.startswith("I"):  # grey levels of 16 bits
        levels = np.asarray(image)
        image = image_module.fromarray((levels >> 8).astype(np.uint8))
        if transparent is not None:  # one level is transparent
            image.putalpha(image_module.fromarray(np.where(levels == transparent, 0, 255).astype(np.uint8)))
    if transparent is not None or image.mode.endswith("A"):
        image = image.convert("RGBA")
        image = image_module.alpha_composite(image_module.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def pillow():
    """Return Pillow's module Image. ImportError, with the remedy, if Pillow is missing."""
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
        result[i] = scaled(image, size, left, top, side, side)
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
        result[i] = scaled(image, size, *_random_box(image.width, image.height, rng))
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


def scaled(image, size: int, left: float, top: float, width: float, height: float) -> np.ndarray:
    """Return a box of a Pillow image, scaled to [size, size] pixels, [size, size, 3] for colours."""
    box = (left, top, left + width, top + height)
    return np.asarray(image.resize((size, size), pillow().Resampling.BICUBIC, box))
