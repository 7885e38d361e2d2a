"""CIFAR10-DVS and DVS128 Gesture as frames: found on disk, converted once, served by sample.

    frames = cifar10_dvs("data/CIFAR10DVS", train=True)    frames[i] [T, H, W, 2], frames.labels [n]
    Loader(frames, frames.labels, 16, prepare=time_first)  batches [T, B, H, W, 2], as the models take them

event_sets.py opens a set by name, for training.

Recordings are decoded once. Each sample's frames are kept in an .npy file whose name tells what they were
made from: the settings, and the recording's size and modification time. Whatever changes, the name changes,
and the frames are made anew.
"""

from __future__ import annotations

import glob
import os
import re
import warnings
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from threading import get_ident

import numpy as np
from tqdm import tqdm

from .aedat import read_aedat2, read_aedat3
from .frames import events_to_frames

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Sample:
    """One sample: a recording, its label from 0, and, if it is a part of the recording, start <= t < end."""

    source: Path
    label: int
    part: tuple[int, int] | None = None


class Frames:
    """Samples as frames: `len`, `labels` int64 [n], and `frames[i]` -> float32 [T, H, W, 2], read from disk.

    frames[indices] -> [n, T, H, W, 2], which makes this a source for a Loader.
    Missing or outdated frames are made when this is made, with a bar; a recording is read once for all parts.
    Files that are cut short or gone by the time they are read are made again.
    read(path, size): the recording's reader.    T, split_by, size: as `events_to_frames` takes them.
    cache: the folder that the frames are kept in.
    """

    def __init__(
        self, samples: list[Sample], read, T: int, split_by: str, size: tuple[int, int], cache: Path
    ):
        self.samples, self.read, self.split_by = samples, read, split_by
        self.labels = np.array([sample.label for sample in samples], "int64")
        self.shape = (T, *size, 2)
        self.folder = Path(cache) / f"T{T}_{split_by}_{size[0]}x{size[1]}"
        self.files = [_frames_file(self.folder, sample) for sample in samples]
        missing: dict[Path, list[int]] = {}
        for i, (sample, file) in enumerate(zip(samples, self.files, strict=True)):
            if not file.exists():
                missing.setdefault(sample.source, []).append(i)
        for wanted in tqdm(missing.values(), desc="events to frames", disable=not missing):
            self._make(wanted)

    def _make(self, wanted: list[int]) -> None:
        """Make the frames of some samples of one recording."""
        T, *size, _ = self.shape
        events = self.read(self.samples[wanted[0]].source, tuple(size))
        for i in wanted:
            part = _part(events, self.samples[i])
            _keep(self.files[i], events_to_frames(part, T, self.split_by, tuple(size)))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int | np.ndarray) -> np.ndarray:
        if np.ndim(i):
            return np.stack([self[k] for k in i])
        frames = _load(self.files[i])
        if frames is None or frames.shape != self.shape:
            source = self.samples[i].source
            if _frames_file(self.folder, self.samples[i]) != self.files[i]:
                raise ValueError(f"{source} is another file than before: begin anew")
            self._make([i])
            frames = np.load(self.files[i], allow_pickle=False)
        return frames.astype("float32")


def _frames_file(folder: Path, sample: Sample) -> Path:
    """<folder>/<the recording's folder>/<its name>[_<start>_<end>].<its size>.<its mtime in ns>.npy"""
    status = sample.source.stat()
    name = "_".join([sample.source.stem, *map(str, sample.part or ())])
    return folder / sample.source.parent.name / f"{name}.{status.st_size}.{status.st_mtime_ns}.npy"


def _load(file: Path) -> np.ndarray | None:
    """Return what is in a file of frames; None for one that is gone, cut short or no array."""
    try:
        return np.load(file, allow_pickle=False)
    except (FileNotFoundError, EOFError, ValueError):
        return None


def _part(events: np.ndarray, sample: Sample) -> np.ndarray:
    if sample.part:
        start, end = sample.part
        events = events[(events["t"] >= start) & (events["t"] < end)]
    if not len(events):
        raise ValueError(
            f"{sample.source} has no events{f' from {start} to {end} µs' if sample.part else ''}"
        )
    return events


def _keep(file: Path, frames: np.ndarray) -> None:
    """Write frames as the smallest unsigned integers that hold the counts; all of the file, or nothing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    counts = frames.astype(np.min_scalar_type(int(frames.max())))
    unfinished = file.with_name(f"{file.name}.{os.getpid()}.{get_ident()}.part")
    try:
        with unfinished.open("xb") as opened:
            np.save(opened, counts)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    name = file.name.rsplit(".", 3)[0]
    for other in file.parent.glob(f"{glob.escape(name)}.*.*.npy"):
        if other != file and other.name.rsplit(".", 3)[0] == name:  # outdated, and not of a "<name>.x"
            other.unlink(missing_ok=True)  # another process may be making the same frames
    unfinished.replace(file)


# ---------------------------------------------------------------- CIFAR10-DVS


def cifar10_dvs(
    root: str | Path,
    train: bool,
    split: str = "90-10",
    T: int = 16,
    split_by: str = "number",
    size: tuple[int, int] = (128, 128),
    classes: tuple[str, ...] = CIFAR10,
    cache: str | Path | None = None,
) -> Frames:
    """Return CIFAR10-DVS's training or test frames, from <root>/<class>/cifar10_<class>_<i>.aedat.

    There is no official split, so say with every result which it was:
    "90-10"             the first 90 % of each class, in lexicographic order of names, train (Spikformer's)
    "first-100-test"    the files 0–99 of each class test (found elsewhere, and easier)

    size, classes: of recordings made alike, with another sensor or other classes.
    cache: where frames are kept; <root>/frames by default.
    """
    root = Path(root)
    expected = (
        f"CIFAR10-DVS expects as many recordings of each class (1,000), named "
        f"{root}/{classes[0]}/cifar10_{classes[0]}_0.aedat …: unpack the official archives "
        f"{classes[0]}.zip … {classes[-1]}.zip (CIFAR10-DVS on figshare.com, 4724671) in {root}"
    )
    samples = [
        Sample(file, label)
        for label, found in enumerate(files_by_class(root, classes, expected))
        for file in split_files(found, split)[0 if train else 1]
    ]
    return Frames(samples, read_aedat2, T, split_by, size, Path(cache or root / "frames"))


def files_by_class(
    root: Path, classes: tuple[str, ...], expected: str, each: int | None = None
) -> list[list[Path]]:
    """Return the files <root>/<class>/*.aedat of each class, in lexicographic order of their names.

    Raises FileNotFoundError, `expected` and what was found, unless there are `each` of each class; without
    `each`, as many of each, and some.
    """
    files = [sorted((root / name).glob("*.aedat"), key=lambda file: file.name) for name in classes]
    counts = {name: len(found) for name, found in zip(classes, files, strict=True)}
    each = each or max(counts.values())
    if not each or set(counts.values()) != {each}:
        raise FileNotFoundError(f"{expected}; found {counts}")
    return files


def split_files(files: list[Path], split: str) -> tuple[list[Path], list[Path]]:
    """Split one class's files, in lexicographic order, into (training, test), by the split's name."""
    if split == "90-10":
        n = -(-len(files) * 9 // 10)
        return files[:n], files[n:]
    if split == "first-100-test":
        indices = [_index(file) for file in files]
        train = [file for file, i in zip(files, indices, strict=True) if i >= 100]
        return train, [file for file, i in zip(files, indices, strict=True) if i < 100]
    raise ValueError(f"split must be '90-10' or 'first-100-test', got {split!r}")


def _index(file: Path) -> int:
    found = re.fullmatch(r".*_(\d+)", file.stem)
    if not found:
        raise ValueError(f"{file}: expected a name that ends in its number, as cifar10_airplane_0.aedat")
    return int(found[1])


# ---------------------------------------------------------------- DVS128 Gesture


def dvs128_gesture(
    root: str | Path,
    train: bool,
    T: int = 16,
    split_by: str = "number",
    size: tuple[int, int] = (128, 128),
    cache: str | Path | None = None,
) -> Frames:
    """Return DVS128 Gesture's training or test frames: 1,176 or 288 samples of 11 classes, as published.

    root holds trials_to_train.txt and trials_to_test.txt, which list recordings <name>.aedat, and for each
    a <name>_labels.csv of its samples. cache: where frames are kept; <root>/frames by default.
    """
    root = Path(root)
    trials = root / ("trials_to_train.txt" if train else "trials_to_test.txt")
    remedy = (
        "Unpack the official archive DvsGesture.tar.gz (research.ibm.com/interactive/dvsgesture), so that "
        f"its trials_to_train.txt, trials_to_test.txt, *.aedat and *_labels.csv lie in {root}"
    )
    if not trials.exists():
        raise FileNotFoundError(f"no {trials}. {remedy}")
    samples = []
    for name in _read_text(trials).split():
        source = root / name
        labels = source.with_name(f"{source.stem}_labels.csv")
        for file in (source, labels):
            if not file.exists():
                raise FileNotFoundError(f"{trials} lists {name}, but there is no {file}. {remedy}")
        samples += [Sample(source, label, (start, end)) for label, start, end in read_labels(labels)]
    return Frames(samples, read_aedat3, T, split_by, size, Path(cache or root / "frames"))


def read_labels(path: Path) -> list[tuple[int, int, int]]:
    """Read a *_labels.csv -> (label 0–10, start µs, end µs) of each sample, in the file's order.

    In user22_led_labels.csv class 9 ends after the next sample's start; 104000000 is used instead, as others
    do (we could not verify it), with a warning.
    """
    lines = [line.strip() for line in _read_text(path).splitlines()]
    if not lines or lines[0] != "class,startTime_usec,endTime_usec":
        raise ValueError(f"{path}: line 1: expected class,startTime_usec,endTime_usec, got {lines[:1]}")
    rows = []
    for number, line in enumerate(lines[1:], 2):
        if not line:
            continue
        values = line.split(",")
        row = [int(value) for value in values if value.isdecimal()]
        if not (len(row) == len(values) == 3 and 1 <= row[0] <= 11 and row[1] < row[2]):
            raise ValueError(f"{path}: line {number}: expected class 1–11, start < end, got {line!r}")
        rows.append(row)
    for row, following in pairwise(rows):
        if path.name == "user22_led_labels.csv" and row[0] == 9 and row[2] > following[1]:
            warnings.warn(
                f"{path}: class 9 ends at {row[2]}, after the next sample's start; 104000000 is used instead",
                stacklevel=2,
            )
            row[2] = 104_000_000
    return [(label - 1, start, end) for label, start, end in rows]


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text: {error}") from error
