"""What is known of one's own data of any kind: classes, samples with checksums, and how they are split.

    found = Pictures.look_at("flowers")     open every sample once, and split them
    found.to_json()                         what a run keeps; `kinds.description` reads it
    found.check("flowers")                  are these still the same samples?
    found.loaders("flowers", batch_size=16) batches to train and to test on
    found.inputs("rose.jpg")                a file outside the set, prepared for a model

A description never splits again: it holds the names of the samples of both parts.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar
from zlib import crc32

import numpy as np

from ..errors import DataFileError
from ..loader import Loader, Until

MOST_SIDE = 8192  # pixels of the squares that models get
SEVERAL = 10  # how many samples an error names


@dataclass(frozen=True)
class Description(ABC):
    """The description of a data set. Plain data, which JSON can hold.

    classes: their names, in order; none if the set has no labels.
    train, test: {name of the sample: checksum}. The name of a file is its path from the folder, with "/".
    size: the side of the squares that models get.    channels: of these squares.
    skipped: the samples that could not be read.
    """

    classes: list[str]
    train: dict[str, int]
    test: dict[str, int]
    size: int
    channels: int
    skipped: list[str]

    kind: ClassVar[str]  # what JSON calls this kind
    one: ClassVar[str]  # what a sentence calls a sample
    suffixes: ClassVar[set[str]]  # of files that hold samples
    of_samples: ClassVar[tuple[str, ...]] = (
        "train",
        "test",
        "skipped",
    )  # fields that predictions do not need

    def as_dict(self) -> dict:
        """Return all fields, and the kind."""
        return {"kind": self.kind} | asdict(self)

    def to_json(self) -> str:
        """Return `as_dict` as JSON."""
        return json.dumps(self.as_dict(), indent=1) + "\n"

    def for_predictions(self) -> dict:
        """Return what predictions need: all but the samples."""
        return self.as_dict() | {name: type(getattr(self, name))() for name in self.of_samples}

    def check(self, root: str | Path) -> None:
        """Raise DataFileError, which names the samples, if the data is no longer the same."""
        known, found = self.train | self.test, self.checksums(Path(root))
        found = {name: number for name, number in found.items() if name not in self.skipped}
        odd = {
            "gone": sorted(known.keys() - found.keys()),
            "new": sorted(found.keys() - known.keys()),
            "changed": sorted(name for name in known.keys() & found.keys() if known[name] != found[name]),
        }
        told = "; ".join(f"{what}: {several(names)}" for what, names in odd.items() if names)
        if told:
            started = f"other {self.one}s than the run began with; {told}"
            raise DataFileError(root, None, started, f"the same {self.one}s")

    def impossible(self) -> list[str]:
        """Return the names of the fields whose values cannot be, as in a damaged file."""
        distinct, side = len({*self.classes}) == len(self.classes), 1 <= self.size <= MOST_SIDE
        good = {"classes": distinct, "size": side, "channels": 1 <= self.channels}
        return [name for name, fine in good.items() if not fine]

    @abstractmethod
    def checksums(self, root: Path) -> dict[str, int]:
        """Return {name: checksum} of all samples that there are now."""

    @abstractmethod
    def loaders(
        self, root: str | Path, *, batch_size: int, seed: int = 0, **changes
    ) -> tuple[Loader | Until, Loader]:
        """Return the loaders of the samples to train on and of those to test on.

        changes: how training samples are augmented, as for `open_data`.
        """

    @abstractmethod
    def inputs(self, path: Path) -> Iterator[tuple[list[str], np.ndarray]]:
        """Yield the names of the samples in a file, and the samples as a model takes them, a batch at a time.

        A batch is images [n, H, W, C] or frames [T, n, H, W, 2].
        """

    def for_model(self, other: Description | None) -> Description:
        """Return these samples, prepared as those of another description of this kind; None: as they are."""
        if type(other) is not type(self):
            return self
        return replace(other, **{name: getattr(self, name) for name in self.of_samples})

    @abstractmethod
    def words(self) -> str:
        """Return in a few words what the samples become."""


def can_standardise(mean: list[float], deviation: list[float], channels: int) -> bool:
    """Return whether these are a mean and a deviation for so many channels."""
    numbers = np.isfinite(mean).all() and np.isfinite(deviation).all() and min(deviation, default=0) > 0
    return bool(numbers and len(mean) == len(deviation) == channels)


# ---------------------------------------------------------------- class folders, and the split


def split(of_class: dict[str, list[str]], share: float, seed: int) -> tuple[list[str], list[str]]:
    """Return the names to train on and those to test on: the share of each class, at least one of each.

    of_class: {class: two names or more}.
    """
    rng = np.random.default_rng(seed)
    train, test = [], []
    for members in of_class.values():
        order = rng.permutation(len(members))
        n = min(len(members) - 1, max(1, round(share * len(members))))
        test += [members[i] for i in sorted(order[:n])]
        train += [members[i] for i in sorted(order[n:])]
    return train, test


def checksums(root: Path, names: list[str]) -> dict[str, int]:
    """Return {name: checksum} of files below root."""
    return {name: crc32(Path(root, name).read_bytes()) for name in names}


def name_of(path: Path, root: Path) -> str:
    """Return the path from root, with "/"."""
    return path.relative_to(root).as_posix()


def several(names: list[str]) -> str:
    """Return the first ten names, and how many more there are."""
    more = f" and {len(names) - SEVERAL} more" if len(names) > SEVERAL else ""
    return ", ".join(names[:SEVERAL]) + more
