"""Folders of your own recordings as a data set: one folder per class, files of any known format.

    train = event_folders("hands", train=True, size=(260, 346))     train[i] [T, H, W, 2], train.labels [n]
    test = event_folders("hands", train=False, size=(260, 346))     the test recordings

The folder has one of two layouts. The first has your own split, which is used as it is. The second has none;
then a fixed share of each class is kept for the test.

    root/train/<class>/**/<recording>      root/<class>/**/<recording>
    root/test/<class>/**/<recording>

The test folder may also be named val. If there is a val and a test, val is used. These names may be in upper
case, because N-MNIST has folders Train and Test.

A recording is an .aedat, .bin, .npy or .npz file that `read_events` can read. Its frames are kept in
root/.frames, as described in dvs.py.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path

import numpy as np

from .. import listing
from ..errors import DataFileError
from .dvs import Frames, Sample
from .frames import check_unit
from .recordings import SENSORS, SUFFIXES, Size, read_events


def event_folders(
    root: str | Path,
    train: bool,
    T: int = 16,
    split_by: str = "number",
    size: Size | None = None,
    unit: str | None = None,
    val_split: float = 0.2,
    seed: int = 0,
    cache: str | Path | None = None,
) -> Frames:
    """Return the training or the test frames of the recordings in class folders.

    T, split_by: as for `events_to_frames`.
    size: (H, W) of the sensor. It may be left out if all files are .aedat (128×128) or all are .bin (34×34).
    unit: "s", "ms" or "us", the unit of float times in NumPy files.
    val_split: the share of each class to test on, if root has no folder train. It is rounded to whole
        recordings; each class keeps at least one to train on and one to test on.
    seed: of this split.
    cache: the folder where frames are kept, by default <root>/.frames.

    The classes are the names of the class folders, in order; the result has them as `classes`. Files and
    folders that systems and programs leave among the data are not read (../listing.py).

    Raises FileNotFoundError for a missing folder and for a class without recordings. Raises ValueError if
    size is needed, if there are fewer than two classes, if the two parts have different classes, if a class
    has too few recordings to split, and for two files of one name, such as a.npz and a.aedat. Raises
    DataFileError for a recording outside the class folders. The errors of `Frames` and `read_events` pass
    through.
    """
    root = Path(root).expanduser()
    check_unit(unit)
    classes, *parts = find_recordings(root, val_split, seed)
    samples = parts[0 if train else 1]
    cache = Path(cache or root / ".frames")
    read = partial(_read, unit=unit)
    size = size or _sensor(samples)
    return Frames(samples, read, T, split_by, size, cache / unit if unit else cache, classes)


def find_recordings(
    root: Path, val_split: float = 0.2, seed: int = 0, left_out: Collection[Path] = ()
) -> tuple[tuple[str, ...], list[Sample], list[Sample]]:
    """Return the classes, the recordings to train on and those to test on, as `event_folders` splits them.

    left_out: recordings that are passed over, such as unreadable ones.
    """
    if not 0 < val_split < 1:
        raise ValueError(f"val_split must be between 0 and 1, got {val_split}")
    parts = _part_folders(root)
    classes = _classes(parts[0] if parts else root)
    if parts and (odd := sorted({*classes} ^ {*_classes(parts[1])})):
        raise ValueError(
            f"{parts[0]} and {parts[1]} must have the same classes; only in one: {', '.join(odd)}"
        )
    found: tuple[list[Sample], list[Sample]] = [], []
    for label, name in enumerate(classes):
        paths = [_recordings(folder / name, left_out) for folder in parts or [root]]
        if not parts:
            paths = _split(*paths, root / name, val_split, (seed, label))
        for samples, of_part in zip(found, paths, strict=True):
            samples += [_sample(path, label, root) for path in of_part]
    return classes, *found


def _recordings(folder: Path, left_out: Collection[Path]) -> list[Path]:
    paths = [path for path in listing.files(folder, SUFFIXES) if path not in left_out]
    if not paths:
        raise FileNotFoundError(f"no recording in {folder}; expected {', '.join(sorted(SUFFIXES))}")
    return paths


def _read(path: Path, size: Size, unit: str | None) -> np.ndarray:
    return read_events(path, size, unit)[0]


def _part_folders(root: Path) -> tuple[Path, Path] | None:
    """Return the folders (train, val or test); None if root has no such folders."""
    found: dict[str, Path] = {}
    for folder in listing.folders(root):
        name = folder.name.lower()
        if name in ("train", "val", "test"):
            if name in found:
                raise ValueError(f"{root} has both {found[name].name} and {folder.name}: keep one of them")
            found[name] = folder
    if not found:
        return None
    if "train" not in found or len(found) == 1:
        names = " and ".join(path.name for path in found.values())
        raise FileNotFoundError(f"{root} has a folder {names}; expected train next to val or test")
    return found["train"], found["val"] if "val" in found else found["test"]


def _classes(folder: Path) -> tuple[str, ...]:
    loose = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()]
    loose = [path for path in loose if not listing.is_left_behind(path.name)]
    if loose:
        raise DataFileError(
            min(loose), None, "a recording outside the class folders", "one in a class folder"
        )
    classes = tuple(path.name for path in listing.folders(folder))
    if len(classes) < 2:
        raise ValueError(f"{folder} has {len(classes)} class folders {classes}; expected at least two")
    return classes


def _split(paths: list[Path], folder: Path, share: float, seed: tuple[int, int]) -> tuple[list, list]:
    """Split the files of one class into (training files, test files), each in the given order."""
    if len(paths) < 2:
        raise ValueError(f"{folder} has one recording; to train and to test, a class needs at least two")
    n_test = min(max(round(share * len(paths)), 1), len(paths) - 1)
    chosen = {*np.random.default_rng(seed).permutation(len(paths))[:n_test].tolist()}
    train = [path for i, path in enumerate(paths) if i not in chosen]
    return train, [paths[i] for i in sorted(chosen)]


def _sample(path: Path, label: int, root: Path) -> Sample:
    return Sample(path, label, key=path.relative_to(root).with_suffix("").as_posix())


def _sensor(samples: list[Sample]) -> Size:
    suffixes = {sample.source.suffix.lower() for sample in samples}
    if len(suffixes) == 1 and suffixes <= SENSORS.keys():
        return SENSORS[suffixes.pop()]
    raise ValueError(
        f"files of {', '.join(sorted(suffixes))} do not tell the size of the sensor: give size=(H, W)"
    )
