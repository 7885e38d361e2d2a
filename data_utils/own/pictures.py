"""A folder of one's own pictures as a data set: one folder per class, pictures of any size.

    root/<class>/**/*.jpg                       split by `seed` into pictures to train on and to test on
    root/train/<class>/**, root/val/<class>/**  taken as they are; without val, test takes its place

For pre-training, which needs no labels, the pictures may also lie anywhere below root.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from tqdm import tqdm

from ..errors import DataFileError
from ..images.augment import normalise
from ..images.folders import SUFFIXES, ImageFolder, centre_crop, read_image
from ..images.pipeline import Pipeline, image_loaders
from ..listing import files, folders
from ..loader import Loader, Until
from .description import Description, can_standardise, checksums, name_of, several, split

TEST_FOLDERS = ("val", "test")
SIDES = (8, 64)  # the smallest and the largest side that is chosen for pictures


@dataclass(frozen=True)
class Pictures(Description):
    """The description of a folder of pictures.

    channels: 1 if all pictures are grey, else 3.
    mean, deviation: of each channel, over the training pictures, as shares of 255.
    """

    mean: list[float]
    deviation: list[float]

    kind = "pictures"
    one = "picture"
    suffixes = SUFFIXES

    @classmethod
    def look_at(
        cls, root: str | Path, *, val_split: float = 0.2, seed: int = 0, size: int = 0, channels: int = 0,
        multiple: int = 4, labelled: bool = True, skip_unreadable: bool = False, progress: bool = True,
    ) -> Pictures:  # fmt: skip
        """Open every picture below root once and return the description of all.

        val_split: the share of each class that is kept for the test, at least one picture. It is not used
        where the folder is split already.
        size: the side; 0 for the median of the shorter sides, rounded to a multiple of `multiple` in 8 … 64.
        channels: 1 or 3; 0 for 1 if all pictures are grey, else 3.
        labelled: whether classes are needed. If not, a folder without class folders is one group.
        skip_unreadable: leave out pictures that cannot be decoded; otherwise an error names them all.
        Raises DataFileError if there are no classes, one class, or a class without enough pictures.
        """
        root = Path(root).expanduser()
        if channels not in (0, 1, 3):
            raise ValueError(f"pictures have 1 or 3 channels, not {channels}")
        sides, grey, unreadable = _open_all(root, progress)
        if unreadable and not skip_unreadable:
            advice = "readable pictures; --skip-unreadable 1 leaves these out"
            found = f"{len(unreadable)} unreadable pictures: {several(unreadable)}"
            raise DataFileError(root, None, found, advice)
        classes, train, test = _split(root, sorted(sides), val_split, seed, labelled)
        size = size or chosen_side(median(sides.values()), multiple)
        channels = channels or (1 if grey else 3)
        parts = (checksums(root, names) for names in (train, test))
        bare = cls(classes, *parts, size, channels, unreadable, [0.0] * channels, [1.0] * channels)
        mean, deviation = _mean_and_deviation(bare, bare.part(root, "train"))
        return replace(bare, mean=mean.tolist(), deviation=deviation.tolist())

    def impossible(self) -> list[str]:
        good = {
            "mean or deviation": can_standardise(self.mean, self.deviation, self.channels),
            "channels": self.channels in (1, 3),
            "train": not self.classes or {*map(_class_of, self.train)} <= {*self.classes},
            "test": not self.classes or {*map(_class_of, self.test)} <= {*self.classes},
        }
        return super().impossible() + [name for name, fine in good.items() if not fine]

    def label(self, file: str) -> int:
        """Return a file's class, a place in `classes`; 0 in a set without classes."""
        return self.classes.index(_class_of(file)) if self.classes else 0

    def part(self, root: str | Path, part: str) -> ImageFolder:
        """Return the pictures of a part, "train" or "test", with their labels."""
        names = list(getattr(self, part))
        return ImageFolder(
            [Path(root, name) for name in names], [self.label(name) for name in names], self.classes
        )

    def prepare(self, images: list) -> np.ndarray:
        """Return pictures as float32 [n, size, size, channels], standardised."""
        return normalise(self.squares(images), self.mean, self.deviation)

    def squares(self, images: list) -> np.ndarray:
        """Return the middle squares of pictures, scaled: uint8 [n, size, size, channels]."""
        return _grey(centre_crop(images, self.size, share=1.0), self.channels)

    def checksums(self, root: Path) -> dict[str, int]:
        return checksums(root, [name_of(path, root) for path in files(root, SUFFIXES)])

    def loaders(
        self, root: str | Path, *, batch_size: int, seed: int = 0, mixup_until: int = 0, **changes
    ) -> tuple[Loader | Until, Loader]:
        train, test = (self.part(root, part) for part in ("train", "test"))
        standardise = partial(normalise, mean=self.mean, deviation=self.deviation)

        def cut(images, rng):
            return self.squares(images)

        pipeline = Pipeline(len(self.classes), cut=cut, standardise=standardise, **changes)
        sizes = {"batch_size": batch_size, "seed": seed, "mixup_until": mixup_until}
        return image_loaders((train, train.labels), (test, test.labels), pipeline, self.prepare, **sizes)

    def inputs(self, path: Path) -> Iterator[tuple[list[str], np.ndarray]]:
        yield [str(path)], self.prepare([read_image(path)])

    def words(self) -> str:
        return f"{self.size}×{self.size} {'grey' if self.channels == 1 else 'colour'}"


def chosen_side(side: float, multiple: int) -> int:
    """Return the multiple that is nearest to a side, in 8 … 64 or as near to that as multiples are."""
    return max(multiple, round(min(max(side, SIDES[0]), SIDES[1]) / multiple) * multiple)


def _open_all(root: Path, progress: bool) -> tuple[dict[str, int], bool, list[str]]:
    """Return {name: shorter side} of all pictures, whether all are grey, and which cannot be read."""
    sides, grey, unreadable = {}, True, []
    for path in tqdm(files(root, SUFFIXES), desc="opening pictures", disable=not progress, leave=False):
        try:
            image = read_image(path)
        except DataFileError:
            unreadable.append(name_of(path, root))
            continue
        sides[name_of(path, root)] = min(image.size)
        pixels = np.asarray(image)
        grey = grey and bool((pixels == pixels[..., :1]).all())
    return sides, grey, unreadable


def _class_of(file: str) -> str:
    """Return the name of a file's class: the folder that holds it, below train and val if there are such."""
    parts = file.split("/")
    return parts[1] if parts[0] in ("train", *TEST_FOLDERS) and len(parts) > 2 else parts[0]


# ---------------------------------------------------------------- which files, and how they are split


def _split(
    root: Path, names: list[str], val_split: float, seed: int, labelled: bool
) -> tuple[list[str], list[str], list[str]]:
    """Return the classes, the files to train on and the files to test on."""
    loose = any("/" not in name for name in names)
    if not labelled and len(names) > 1 and (loose or len(folders(root)) < 2):
        return [], *split({"": names}, val_split, seed)
    test = next((name for name in TEST_FOLDERS if (root / name).is_dir()), None)
    split_already = (root / "train").is_dir() and test is not None
    places = [root / "train", root / test] if split_already else [root]
    classes = [path.name for path in folders(places[0])]
    of_class = {place: {name: [] for name in classes} for place in places}
    for name in names:
        place = next((each for each in places if each in Path(root, name).parents), None)
        label = Path(root, name).relative_to(place).parts[0] if place else None
        if label not in classes or Path(root, name).parent == place:
            raise DataFileError(root, None, f"the picture {name}", "each picture in the folder of a class")
        of_class[place][label].append(name)
    _check_classes(root, classes, of_class, least=1 if split_already else 2)
    if split_already:
        parts = ([name for names in of_class[place].values() for name in names] for place in places)
        return classes, *parts
    return classes, *split(of_class[root], val_split, seed)


def _check_classes(root: Path, classes: list[str], of_class: dict, least: int) -> None:
    if len(classes) < 2:
        found = f"one class folder, {classes[0]}" if classes else "no class folder"
        raise DataFileError(root, None, found, "a folder of pictures for each of two classes or more")
    few = [f"{place.name}/{name}: {len(members)}" for place, members_of in of_class.items()
           for name, members in members_of.items() if len(members) < least]  # fmt: skip
    if few:
        expected = f"{least} readable pictures or more in each class"
        raise DataFileError(root, None, f"classes with too few pictures ({several(few)})", expected)


# ---------------------------------------------------------------- small things


def _grey(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Return uint8 RGB pixels [..., 3] with so many channels; one is their weighted mean (ITU-R 601)."""
    if channels == 3:
        return pixels
    return np.rint(pixels @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)[..., None]


def _mean_and_deviation(pictures: Pictures, part: ImageFolder) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and deviation [C] of all pictures' pixels, as shares of 255, a few pictures at a time."""
    sums, squares, n = 0.0, 0.0, 0
    for start in range(0, len(part), 64):
        pixels = pictures.squares(part[np.arange(start, min(start + 64, len(part)))]) / 255
        pixels = pixels.reshape(-1, pictures.channels)
        sums, squares, n = sums + pixels.sum(0), squares + (pixels**2).sum(0), n + len(pixels)
    mean = sums / n
    return mean, np.sqrt(np.maximum(squares / n - mean**2, (1 / 255) ** 2))
