"""One's own images as a data set in one .npz file, as np.savez("mine.npz", x=x, y=y) writes it.

    x    [n, H, W] or [n, H, W, C], bytes (uint8) or floats
    y    [n], whole numbers or names: the class of each image

For pre-training, which needs no labels, y may be left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np

from ..errors import DataFileError
from ..images.folders import pillow, scaled
from ..images.pipeline import Pipeline, image_loaders
from ..loader import Loader, Until
from ..npz import read_npz
from .description import Description, can_standardise, several, split
from .pictures import chosen_side

LEAST = 4  # pixels of a side; below this the axes are probably in another order
BATCH = 64  # images that are prepared at a time


@dataclass(frozen=True)
class Arrays(Description):
    """The description of an .npz file of images x and labels y. The samples are called x[0], x[1], ….

    mean, deviation: of each channel, over the training images, in the units of x.
    of_bytes: whether x is uint8; otherwise it is floats.
    """

    mean: list[float]
    deviation: list[float]
    of_bytes: bool

    kind = "arrays"
    one = "image"
    suffixes = frozenset({".npz"})

    @classmethod
    def look_at(
        cls, path: str | Path, *, val_split: float = 0.2, seed: int = 0, size: int = 0, multiple: int = 4,
        labelled: bool = True,
    ) -> Arrays:  # fmt: skip
        """Read the arrays of a file and return their description.

        val_split: the share of each class that is kept for the test, at least one image.
        size: the side; 0 for the shorter side of x, rounded to a multiple of `multiple` in 8 … 64.
        labelled: whether y is needed. If not, and if it is missing, all images are one group.
        Raises DataFileError for arrays that are missing, of another shape or dtype, not finite or of unequal
        lengths, for Python objects, for one class, and for a class of one image.
        """
        path = Path(path).expanduser()
        x, names = _read(path, labelled=labelled)
        classes = _in_order(names) if names else []
        of_class = {name: [] for name in classes or [""]}
        for i, name in enumerate(names or [""] * len(x)):
            of_class[name].append(f"x[{i}]")
        if labelled and len(classes) < 2:
            raise DataFileError(path, None, f"y holds one class, {classes[0]}", "two classes or more")
        few = [name for name, members in of_class.items() if len(members) < 2]
        if few:
            raise DataFileError(
                path, None, f"one image of {several(few)}", "two images or more of each class"
            )
        train, test = split(of_class, val_split, seed)
        numbers = _checksums(x, names)
        parts = ({name: numbers[name] for name in part} for part in (train, test))
        size = size or chosen_side(min(x.shape[1:3]), multiple)
        mean, deviation = _mean_and_deviation(_squares(x[_places(train)], size))
        return cls(classes, *parts, size, x.shape[-1], [], mean, deviation, bool(x.dtype == np.uint8))

    def impossible(self) -> list[str]:
        fine = can_standardise(self.mean, self.deviation, self.channels)
        return super().impossible() + ([] if fine else ["mean or deviation"])

    def checksums(self, root: Path) -> dict[str, int]:
        return _checksums(*_read(root, labelled=bool(self.classes)))

    def prepare(self, images: np.ndarray) -> np.ndarray:
        """Return squares as float32 [n, size, size, C], standardised."""
        return ((images - np.float32(self.mean)) / np.float32(self.deviation)).astype("float32", copy=False)

    def loaders(
        self, root: str | Path, *, batch_size: int, seed: int = 0, mixup_until: int = 0, **changes
    ) -> tuple[Loader | Until, Loader]:
        x, names = _read(Path(root), labelled=bool(self.classes))
        strange = sorted({*(names or ())} ^ {*self.classes}) if self.classes else []
        if strange:
            found = f"other classes than the run began with ({several(strange)})"
            raise DataFileError(root, None, found, f"classes {several(self.classes)}")
        label = {name: i for i, name in enumerate(self.classes)}
        labels = np.array([label[name] for name in names] if self.classes else [0] * len(x))
        squares = _squares(x, self.size)
        if self.of_bytes:
            pipeline = Pipeline(len(self.classes), standardise=self.prepare, **changes)
        else:  # standardised at once, because only bytes have levels that a policy can change
            pipeline = Pipeline(len(self.classes), **changes)
            squares = self.prepare(squares)
        parts = ((squares[at], labels[at]) for at in (_places(self.train), _places(self.test)))
        sizes = {"batch_size": batch_size, "seed": seed, "mixup_until": mixup_until}
        return image_loaders(*parts, pipeline, self.prepare if self.of_bytes else None, **sizes)

    def inputs(self, path: Path) -> Iterator[tuple[list[str], np.ndarray]]:
        x, _ = _read(path, labelled=False, labels=False)
        came, takes = (x.shape[-1], x.dtype == np.uint8), (self.channels, self.of_bytes)
        if came != takes:
            came, takes = (
                f"{C} channels of {'uint8' if of_bytes else 'floats'}" for C, of_bytes in (came, takes)
            )
            raise DataFileError(path, None, f"x has {came}", f"{takes}, as the run was trained on")
        for start in range(0, len(x), BATCH):
            images = self.prepare(_squares(x[start : start + BATCH], self.size))
            yield [f"{path}[{start + i}]" for i in range(len(images))], images

    def words(self) -> str:
        return f"{self.size}×{self.size}, channels: {self.channels}"


# ---------------------------------------------------------------- reading


def _read(path: Path, labelled: bool, labels: bool = True) -> tuple[np.ndarray, list[str] | None]:
    """Return x [n, H, W, C] of uint8 or float32, and the name of each image's class, None without y.

    labelled: whether y must be there.    labels: whether it is read if it is there.
    """

    def choose(names: list[str]) -> list[str]:
        if {*"txyp"} <= {*names}:
            advice = "images x and labels y; recordings belong into a folder per class"
            raise DataFileError(path, None, "t, x, y and p, an event recording", advice)
        missing = [name for name in ("x", "y")[: 1 + labelled] if name not in names]
        if missing:
            there = f"arrays {several(names)}" if names else "no array"
            raise DataFileError(path, None, there, f"arrays x and y; missing: {', '.join(missing)}")
        return [name for name in ("x", "y")[: 1 + labels] if name in names]

    arrays = read_npz(path, choose)
    x = _images(path, arrays["x"])
    if "y" not in arrays:
        return x, None
    names = _class_names(path, arrays["y"])
    if len(names) != len(x):
        found = f"{len(x)} images in x and {len(names)} labels in y"
        raise DataFileError(path, None, found, "as many of each")
    return x, names


def _images(path: Path, x: np.ndarray) -> np.ndarray:
    if not (x.dtype == np.uint8 or x.dtype.kind == "f"):
        advice = "uint8 or floats; x.astype('float32') makes floats of other numbers"
        raise DataFileError(path, None, f"x is {x.dtype}", advice)
    if x.ndim not in (3, 4) or 0 in x.shape or min(x.shape[1:3]) < LEAST:
        expected = f"images [n, H, W] or [n, H, W, C] with sides of {LEAST} pixels or more, channels last"
        raise DataFileError(path, None, f"x is {list(x.shape)}", expected)
    x = np.ascontiguousarray(x if x.ndim == 4 else x[..., None])
    if x.dtype == np.uint8:
        return x
    with np.errstate(over="ignore"):
        x = x.astype("float32")
    finite = np.isfinite(x).all((1, 2, 3))
    if not finite.all():
        found = f"x[{int(finite.argmin())}] holds NaN, Inf or a number beyond float32"
        raise DataFileError(path, None, found, "finite numbers")
    return x


def _class_names(path: Path, y: np.ndarray) -> list[str]:
    if y.ndim != 1 or y.dtype.kind not in "biuUS":
        found = f"y is {y.dtype} {list(y.shape)}"
        raise DataFileError(path, None, found, "labels [n]: whole numbers, or names as text")
    try:
        names = [name.decode() if isinstance(name, bytes) else str(name) for name in y.tolist()]
        for name in {*names}:
            name.encode()  # half of a surrogate pair cannot be written to any file
        return names
    except (ValueError, SystemError) as error:  # NumPy raises SystemError for a number that is no character
        raise DataFileError(path, None, f"a name in y is no text ({error})", "names in UTF-8") from error


def _in_order(names: list[str]) -> list[str]:
    """Return each class once: numbers by their value, names by the alphabet."""
    found = sorted(set(names))
    try:
        return sorted(found, key=int)
    except ValueError:
        return found


def _checksums(x: np.ndarray, names: list[str] | None) -> dict[str, int]:
    """Return {name: checksum} of every image together with its class."""
    return {
        f"x[{i}]": crc32(image.tobytes() + (name or "").encode())
        for i, (image, name) in enumerate(zip(x, names or [None] * len(x), strict=True))
    }


def _places(names) -> np.ndarray:
    return np.array([int(name[2:-1]) for name in names], int)


# ---------------------------------------------------------------- squares


def _squares(x: np.ndarray, size: int) -> np.ndarray:
    """Return the middle squares of images [n, H, W, C], scaled: [n, size, size, C] in x's dtype."""
    n, H, W, C = x.shape
    side = min(H, W)
    top, left = (H - side) // 2, (W - side) // 2
    x = x[:, top : top + side, left : left + side]
    if side == size:
        return x
    image_of = pillow().fromarray
    result = np.empty((n, size, size, C), x.dtype)
    for i in range(n):
        for c in range(C):
            result[i, ..., c] = scaled(image_of(np.ascontiguousarray(x[i, ..., c])), size, 0, 0, side, side)
    return result


def _mean_and_deviation(squares: np.ndarray) -> tuple[list[float], list[float]]:
    """Return mean and deviation [C] of all pixels. The deviation of a constant channel is taken as 1."""
    mean = squares.mean((0, 1, 2), dtype="float64")
    deviation = squares.std((0, 1, 2), dtype="float64")
    return mean.tolist(), np.where(deviation > 0, deviation, 1.0).tolist()
