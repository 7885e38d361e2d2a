"""A folder of one's own pictures as a data set: one folder per class, pictures of any size.

    root/<class>/**/*.jpg                       split by `seed` into pictures to train on and to test on
    root/train/<class>/**, root/val/<class>/**  taken as they are; without val, test takes its place

`look_at(root)` opens every picture once and returns a description, `Pictures`: which files there are, how
they are split, and the size, channels, mean and deviation that `prepare` uses. A training stores the
description. So it can tell later which files have changed, and it never splits again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from statistics import median
from zlib import crc32

import numpy as np
from tqdm import tqdm

from ..errors import DataFileError, unique_names
from ..listing import files, folders
from ..loader import Loader, Until
from .augment import normalise
from .folders import SUFFIXES, ImageFolder, centre_crop, read_image
from .pipeline import Pipeline

TEST_FOLDERS = ("val", "test")
SIDES = (8, 64)  # the smallest and the largest side that is chosen for pictures
MULTIPLE = 4  # of which the side is a multiple: the stem halves it twice
SEVERAL = 10  # how many files an error names


@dataclass(frozen=True)
class Pictures:
    """The description of a folder of pictures. Plain data, which JSON can hold.

    classes: their names, in order.    train, test: {file: checksum}, paths from the folder, with "/".
    size: the side of the squares that pictures become.    channels: 1 if all pictures are grey, else 3.
    mean, deviation: of each channel, over the training pictures, as shares of 255.
    skipped: the files that could not be read.
    """

    classes: list[str]
    train: dict[str, int]
    test: dict[str, int]
    size: int
    channels: int
    mean: list[float]
    deviation: list[float]
    skipped: list[str]

    def to_json(self) -> str:
        """Return all fields as JSON."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Pictures:
        """Return what `to_json` wrote. ValueError for a text that cannot be that."""
        found = json.loads(text, object_pairs_hook=unique_names)
        names = [entry.name for entry in fields(cls)]
        if not isinstance(found, dict) or sorted(found) != sorted(names):
            raise ValueError(f"a description of pictures has the entries {', '.join(names)} and no others")
        pictures = cls(**found)
        _check_plain(pictures)
        return pictures

    def label(self, file: str) -> int:
        """Return a file's class, a place in `classes`."""
        return self.classes.index(self.class_name(file))

    def class_name(self, file: str) -> str:
        """Return the name of a file's class: the folder that holds it, below train and val if any."""
        parts = file.split("/")
        return parts[1] if parts[0] in ("train", *TEST_FOLDERS) and len(parts) > 2 else parts[0]

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

    def check(self, root: str | Path) -> None:
        """Raise DataFileError, which names the files, if the folder no longer holds these pictures."""
        known = self.train | self.test
        found = {_name(path, Path(root)) for path in _pictures(Path(root))} - set(self.skipped)
        gone, new = sorted(known.keys() - found), sorted(found - known.keys())
        changed = [
            name for name in sorted(known.keys() & found) if _checksum(Path(root, name)) != known[name]
        ]
        odd = [
            f"{what}: {_several(names)}"
            for what, names in (("gone", gone), ("new", new), ("changed", changed))
            if names
        ]
        if odd:
            raise DataFileError(
                root, None, "other pictures than the run began with; " + "; ".join(odd), "the same files"
            )


def look_at(
    root: str | Path, *, val_split: float = 0.2, seed: int = 0, size: int = 0, skip_unreadable: bool = False,
    progress: bool = True,
) -> Pictures:  # fmt: skip
    """Open every picture below root once and return the description of all.

    val_split: the share of each class that is kept for the test, at least one picture. It is not used where
    the folder is split already.
    size: the side; 0 for the median of the shorter sides, rounded to a multiple of 4 in 8 … 64.
    skip_unreadable: leave out pictures that cannot be decoded; otherwise an error names them all.
    Raises DataFileError if there are no classes, one class, or a class without enough pictures.
    """
    root = Path(root)
    paths = _pictures(root)
    sides, grey, unreadable = {}, True, []
    for path in tqdm(paths, desc="opening pictures", disable=not progress, leave=False):
        try:
            image = read_image(path)
        except DataFileError:
            unreadable.append(_name(path, root))
            continue
        sides[_name(path, root)] = min(image.size)
        pixels = np.asarray(image)
        grey = grey and bool((pixels == pixels[..., :1]).all())
    if unreadable and not skip_unreadable:
        advice = "readable pictures; --skip-unreadable 1 leaves these out"
        raise DataFileError(
            root, None, f"{len(unreadable)} unreadable pictures: {_several(unreadable)}", advice
        )
    classes, train, test = _split(root, sorted(sides), val_split, seed)
    shorter = median(sides.values())
    size = size or int(np.clip(MULTIPLE * round(shorter / MULTIPLE), *SIDES))
    parts = ({name: _checksum(Path(root, name)) for name in names} for names in (train, test))
    channels = 1 if grey else 3
    bare = Pictures(classes, *parts, size, channels, [0.0] * channels, [1.0] * channels, unreadable)
    mean, deviation = _mean_and_deviation(bare, bare.part(root, "train"))
    return replace(bare, mean=mean.tolist(), deviation=deviation.tolist())


def picture_loaders(
    pictures: Pictures,
    root: str | Path,
    *,
    batch_size: int,
    seed: int = 0,
    mixup_until: int = 0,
    **augmentation,
) -> tuple[Loader | Until, Loader]:
    """Return the loaders of the training pictures and of the test pictures.

    augmentation: fields of `Pipeline`.    mixup_until: as in `open_data`.
    """
    train, test = (pictures.part(root, part) for part in ("train", "test"))
    standardise = partial(normalise, mean=pictures.mean, deviation=pictures.deviation)

    def cut(images, rng):
        return pictures.squares(images)

    pipeline = Pipeline(len(pictures.classes), cut=cut, standardise=standardise, **augmentation)

    def training(augment: Pipeline) -> Loader:
        return Loader(train, train.labels, batch_size, seed, augment=augment, prepare=pictures.prepare)

    batches = training(pipeline)
    if pipeline.mixup and mixup_until:
        batches = Until(mixup_until, batches, training(replace(pipeline, mixup=0.0)))
    return batches, Loader(test, test.labels, batch_size, prepare=pictures.prepare)


# ---------------------------------------------------------------- which files, and how they are split


def _pictures(root: Path) -> list[Path]:
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}: --data takes a known name, or a folder of class folders")
    return files(root, SUFFIXES)


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _split(
    root: Path, names: list[str], val_split: float, seed: int
) -> tuple[list[str], list[str], list[str]]:
    """Return the classes, the files to train on and the files to test on."""
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
    train, kept = [], []
    rng = np.random.default_rng(seed)
    for members in of_class[root].values():
        order = rng.permutation(len(members))
        n = min(len(members) - 1, max(1, round(val_split * len(members))))
        kept += [members[i] for i in sorted(order[:n])]
        train += [members[i] for i in sorted(order[n:])]
    return classes, train, kept


def _check_classes(root: Path, classes: list[str], of_class: dict, least: int) -> None:
    if len(classes) < 2:
        found = f"one class folder, {classes[0]}" if classes else "no class folder"
        raise DataFileError(root, None, found, "a folder of pictures for each of two classes or more")
    few = [f"{place.name}/{name}: {len(members)}" for place, members_of in of_class.items()
           for name, members in members_of.items() if len(members) < least]  # fmt: skip
    if few:
        expected = f"{least} readable pictures or more in each class"
        raise DataFileError(root, None, f"classes with too few pictures ({_several(few)})", expected)


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


def _check_plain(pictures: Pictures) -> None:
    """Raise ValueError, which names the entry, unless a description can be one that `look_at` has made."""

    def of(values, kind) -> bool:
        return isinstance(values, list) and all(type(value) is kind for value in values)

    def checksums(part) -> bool:
        return isinstance(part, dict) and of(list(part.values()), int) and all(map(known, part))

    def known(name: str) -> bool:
        return not {"", ".", ".."} & {*name.split("/")} and pictures.class_name(name) in pictures.classes

    C = pictures.channels
    good = {
        "classes": of(pictures.classes, str) and len(set(pictures.classes)) == len(pictures.classes) > 1,
        "channels": type(C) is int and C in (1, 3),
        "size": type(pictures.size) is int and 1 <= pictures.size <= 4096,
        "mean": of(pictures.mean, float) and len(pictures.mean) == C and min(pictures.mean) >= 0,
        "deviation": of(pictures.deviation, float)
        and len(pictures.deviation) == C
        and min(pictures.deviation) > 0,
        "skipped": of(pictures.skipped, str),
    }
    good["train"], good["test"] = (
        good["classes"] and checksums(part) for part in (pictures.train, pictures.test)
    )
    wrong = [name for name, fine in good.items() if not fine]
    if wrong:
        raise ValueError(f"a description of pictures has a value that cannot be, in {', '.join(wrong)}")


def _checksum(path: Path) -> int:
    return crc32(path.read_bytes())


def _several(names: list[str]) -> str:
    more = f" and {len(names) - SEVERAL} more" if len(names) > SEVERAL else ""
    return ", ".join(names[:SEVERAL]) + more
