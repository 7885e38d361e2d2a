"""A folder of one's own event recordings as a data set: one folder per class, files of any known format.

The folder has the layouts, and the files the formats, that ../events/folders.py describes. Recordings become
frames of size×size cells. A cell is a square of so many pixels of the sensor that the cells cover its longer
side, and the sensor lies in the middle of them. So every event is counted in one cell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..errors import DataFileError
from ..events.dvs import Frames, Sample
from ..events.folders import find_recordings
from ..events.frames import UNITS, check_framing, check_size, check_unit, events_to_frames, time_first
from ..events.recordings import SUFFIXES, Size, read_events
from ..events.sets import event_loaders
from ..listing import files
from ..loader import Loader, Until
from .description import MOST_SIDE, Description, checksums, name_of, several

LARGEST = 40  # cells of a side, at most, where no size is asked for: they keep a small model fast


@dataclass(frozen=True)
class Recordings(Description):
    """The description of a folder of recordings. The two channels are "darker" and "brighter".

    labels: {name of the sample: its place in classes}.
    sensor: its rows and columns.    unit: of float times, "s", "ms" or "us"; "" if it is not known.
    T, split_by: how many frames a recording becomes, and how it is cut: see `events_to_frames`.
    """

    labels: dict[str, int]
    sensor: list[int]
    unit: str
    T: int
    split_by: str

    kind = "recordings"
    one = "recording"
    suffixes = SUFFIXES
    of_samples = (*Description.of_samples, "labels")

    @classmethod
    def look_at(
        cls, root: str | Path, *, T: int = 8, split_by: str = "number", sensor: Size | None = None,
        unit: str = "", val_split: float = 0.2, seed: int = 0, size: int = 0, multiple: int = 4,
        skip_unreadable: bool = False, progress: bool = True,
    ) -> Recordings:  # fmt: skip
        """Read every recording below root once and return the description of all.

        sensor: (H, W); without it, the smallest (H, W) that fits all recordings, where 128×128 is AEDAT's and
            34×34 is N-MNIST's.
        size: cells of a side; 0 for so many that whole cells cover the sensor, at most about 40, and a
            multiple of `multiple`.
        val_split, seed: how each class is split, see `event_folders`.
        skip_unreadable: leave out files that cannot be read; otherwise an error names them all.
        Raises DataFileError for unreadable recordings, and the errors of `find_recordings`.
        """
        root = Path(root).expanduser()
        check_unit(unit or None)
        if sensor is not None:
            check_size(sensor)
        sizes, errors = _read_all(root, sensor, unit, progress)
        unreadable = [name_of(path, root) for path in errors]
        if errors and not skip_unreadable:
            first = str(next(iter(errors.values()))).removeprefix(f"{root}/")
            found = f"{len(errors)} unreadable recordings: {several(unreadable)}; the first: {first}"
            hints = "--time-unit tells the unit of float times, --sensor the size of the sensor"
            raise DataFileError(
                root, None, found, f"readable ones; {hints}; --skip-unreadable 1 leaves these out"
            )
        classes, *parts = find_recordings(root, val_split, seed, errors.keys())
        labels = {name_of(sample.source, root): sample.label for part in parts for sample in part}
        names = ([name_of(sample.source, root) for sample in part] for part in parts)
        train, test = (checksums(root, part) for part in names)
        sensor = sensor or tuple(map(max, zip(*sizes, strict=True)))
        size = size or chosen_size(sensor, multiple)
        check_framing(T, split_by, (size, size))
        return cls([*classes], train, test, size, 2, unreadable, labels, [*sensor], unit, T, split_by)

    def impossible(self) -> list[str]:
        places = range(len(self.classes))
        good = {
            "labels": self.labels.keys() == self.train.keys() | self.test.keys()
            and all(label in places for label in self.labels.values()),
            "sensor": len(self.sensor) == 2 and all(1 <= n <= MOST_SIDE for n in self.sensor),
            "unit": self.unit in ("", *UNITS),
            "T": 1 <= self.T <= MOST_SIDE,
            "split_by": self.split_by in ("number", "time"),
            "channels": self.channels == 2,
        }
        return super().impossible() + [name for name, fine in good.items() if not fine]

    @property
    def cell(self) -> int:
        """The side of a cell, in pixels of the sensor."""
        return -(-max(self.sensor) // self.size)

    def events(self, path: Path) -> np.ndarray:
        """Return the events of a recording; x and y are the column and the row of a cell."""
        events, (H, W) = read_events(path, tuple(self.sensor), self.unit or None)[0], self.sensor
        side = self.size * self.cell
        for name, length in (("x", W), ("y", H)):
            events[name] = (events[name].astype("i8") + (side - length) // 2) // self.cell
        return events

    def checksums(self, root: Path) -> dict[str, int]:
        return checksums(root, [name_of(path, root) for path in files(root, SUFFIXES)])

    def part(self, root: str | Path, part: str) -> Frames:
        """Return the frames of a part, "train" or "test", with labels. They are kept in root/.frames."""
        H, W = self.sensor
        samples = [
            Sample(Path(root, name), self.labels[name], key=Path(name).with_suffix("").as_posix())
            for name in getattr(self, part)
        ]
        cache = Path(root, ".frames", f"sensor_{H}x{W}" + (f"_{self.unit}" if self.unit else ""))
        cells = self.size, self.size
        read = lambda path, _: self.events(path)  # noqa: E731
        return Frames(samples, read, self.T, self.split_by, cells, cache, tuple(self.classes))

    def loaders(
        self, root: str | Path, *, batch_size: int, seed: int = 0, augment: bool = True, **changes
    ) -> tuple[Loader | Until, Loader]:
        parts = (self.part(root, part) for part in ("train", "test"))
        sizes = {"batch_size": batch_size, "seed": seed}
        return event_loaders(*parts, len(self.classes), **sizes, augment=augment, **changes)

    def inputs(self, path: Path) -> Iterator[tuple[list[str], np.ndarray]]:
        frames = events_to_frames(self.events(path), self.T, self.split_by, (self.size, self.size))
        yield [str(path)], time_first(frames[None])

    def words(self) -> str:
        (H, W), k = self.sensor, self.cell
        return f"{self.T} frames of {self.size}×{self.size} cells of {k}×{k} pixels, sensor {H}×{W}"


def chosen_size(sensor: Size, multiple: int) -> int:
    """Return the smallest multiple that covers the sensor by whole cells, of which at most about 40 do."""
    cell = -(-max(sensor) // LARGEST)
    cells = -(-max(sensor) // cell)
    return -(-cells // multiple) * multiple


def _read_all(
    root: Path, sensor: Size | None, unit: str, progress: bool
) -> tuple[list[Size], dict[Path, Exception]]:
    """Return the sensors' sizes of all recordings that can be read, and the errors of those that cannot."""
    sizes, errors = [], {}
    for path in tqdm(files(root, SUFFIXES), desc="opening recordings", disable=not progress, leave=False):
        try:
            events, size = read_events(path, sensor, unit or None)
            if not len(events):
                raise DataFileError(path, None, "no events", "one or more")
            sizes.append(size)
        except DataFileError as error:
            errors[path] = error
    return sizes, errors
