"""CIFAR10-DVS and DVS128 Gesture as frames: recordings are found on disk and converted once.

    frames = cifar10_dvs("data/CIFAR10DVS", train=True)      frames[i] [T, H, W, 2], frames.labels [n]
    Loader(frames, frames.labels, 16, prepare=time_first)    batches [T, B, H, W, 2], as the models take them

`open_events` (sets.py) opens a set by its name, for training.

Each recording is decoded once. The frames of a sample are kept in an .npy file. The path of this file tells
what the frames were made from: the settings, and the recording's name, size and modification time. If any of
these changes, the path changes, and the frames are made again.
"""

from __future__ import annotations

import glob
import os
import re
import warnings
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from threading import get_ident

import numpy as np
from tqdm import tqdm

from ..errors import DataFileError, named_if_no_room
from ..listing import files, is_file_name
from ..npz import read_array
from .aedat import read_aedat2, read_aedat3
from .frames import check_framing, events_to_frames

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LABELS_HEAD = "class,startTime_usec,endTime_usec"  # the first line of a *_labels.csv of DVS128 Gesture


@dataclass(frozen=True)
class Sample:
    """One sample: the file of a recording and a label, counted from 0.

    part: (start, end) in µs, if the sample is only the part start <= t < end of the recording.
    key: the place of its frames in the cache. The default is <the recording's folder>/<its name>.
    """

    source: Path
    label: int
    part: tuple[int, int] | None = None
    key: str | None = None


class Frames:
    """Samples as frames that are read from disk: frames[i] is float32 [T, H, W, 2].

    frames[indices] is [n, T, H, W, 2], so a Loader takes this as its source. `labels` are int64 [n].

    read: the reader of a recording, (path, size) → events.
    T, split_by, size: as for `events_to_frames`.
    cache: the folder where the frames are kept.
    classes: the names of the classes, in the order of the labels, if they are known.

    Frames that are missing or outdated are made at the start, with a progress bar; a recording is read once
    for all its parts. Frames whose file is cut short or gone later are made again when they are asked for.

    Raises DataFileError for a damaged recording or a sample without events. Raises ValueError for what
    `check_framing` refuses, for two samples of one name, because they may be one recording, and if frames
    must be made again but their recording has changed since the start.
    """

    def __init__(
        self,
        samples: list[Sample],
        read,
        T: int,
        split_by: str,
        size: tuple[int, int],
        cache: Path,
        classes: tuple[str, ...] = (),
    ):
        check_framing(T, split_by, size)
        _refuse_two_of_one_name(samples)
        self.samples = samples
        self.read = read
        self.split_by = split_by
        self.classes = classes
        self.labels = np.array([sample.label for sample in samples], "int64")
        self.shape = (T, *size, 2)
        self.folder = Path(cache).expanduser() / f"T{T}_{split_by}_{size[0]}x{size[1]}"
        self.files = [_frames_file(self.folder, sample) for sample in samples]
        missing: dict[Path, list[int]] = {}
        for i, (sample, file) in enumerate(zip(samples, self.files, strict=True)):
            if not file.exists():
                missing.setdefault(sample.source, []).append(i)
        for wanted in tqdm(missing.values(), desc="events to frames", disable=not missing):
            self._make(wanted)

    def _make(self, wanted: list[int]) -> None:
        """Make the frames of these samples, which are all of one recording."""
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
                raise ValueError(f"{source} has changed since it was first read: start again")
            self._make([i])
            frames = np.load(self.files[i], allow_pickle=False)
        return frames.astype("float32")


def _key(sample: Sample) -> str:
    key = sample.key or f"{sample.source.parent.name}/{sample.source.stem}"
    return "_".join([key, *map(str, sample.part or ())])


def _refuse_two_of_one_name(samples: list[Sample]) -> None:
    first: dict[str, Path] = {}
    for sample in samples:
        key = _key(sample)
        if key in first:
            raise ValueError(
                f"{first[key]} and {sample.source} have one name, so they may be one recording: "
                f"remove or rename one of them"
            )
        first[key] = sample.source


def _frames_file(folder: Path, sample: Sample) -> Path:
    """Return <folder>/<key>[_<start>_<end>].<the recording's size>.<its modification time in ns>.npy"""
    status = sample.source.stat()
    return folder / f"{_key(sample)}.{status.st_size}.{status.st_mtime_ns}.npy"


def _load(file: Path) -> np.ndarray | None:
    """Return the array in a file of frames; None if the file is gone, damaged or not an array of counts."""
    try:
        frames = read_array(file, file.name, file.read_bytes())
    except (FileNotFoundError, DataFileError):
        return None
    return frames if frames.dtype.kind == "u" else None


def _part(events: np.ndarray, sample: Sample) -> np.ndarray:
    """Return the events of a sample; events are those of its whole recording."""
    found = "no events"
    if sample.part:
        start, end = sample.part
        events = events[(events["t"] >= start) & (events["t"] < end)]
        found = f"no events from {start} to {end} µs"
    if not len(events):
        raise DataFileError(sample.source, None, found, "at least one")
    return events


def _keep(file: Path, frames: np.ndarray) -> None:
    """Write frames as the smallest unsigned integers that hold the counts: the complete file, or nothing.

    Outdated frames of the same sample are deleted.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    counts = frames.astype(np.min_scalar_type(int(frames.max())))
    unfinished = file.with_name(f"{file.name}.{os.getpid()}.{get_ident()}.part")
    try:
        with named_if_no_room(file), unfinished.open("xb") as opened:
            np.save(opened, counts)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    name = file.name.rsplit(".", 3)[0]
    for other in file.parent.glob(f"{glob.escape(name)}.*.*.npy"):
        if other != file and other.name.rsplit(".", 3)[0] == name:  # not the frames of a sample "<name>.x"
            other.unlink(missing_ok=True)  # missing_ok: another process may have deleted it
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
    """Return the training or the test frames of CIFAR10-DVS, from <root>/<class>/cifar10_<class>_<i>.aedat.

    split: there is no official split, so say with every result which split it used.
        "90-10"             training: the first 90 % of each class, in lexicographic order of file names. This
                            is Spikformer's split.
        "first-100-test"    test: the files 0–99 of each class. This split is used elsewhere, and is easier.
    T, split_by: as for `events_to_frames`.
    size, classes: the sensor's (H, W) and the classes; change them only for recordings of your own.
    cache: the folder where frames are kept, by default <root>/frames.

    Raises FileNotFoundError if recordings are missing, and the errors of `Frames` and `split_files`.
    """
    root = Path(root).expanduser()
    expected = (
        f"CIFAR10-DVS expects the same number of recordings (1,000) of each class, named "
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

    each: how many files a class must have. Without it, all classes must have the same number, at least one.
    Raises FileNotFoundError otherwise; the message is `expected` and the numbers that were found.
    """
    found = [aedat_files(root / name) for name in classes]
    counts = {name: len(paths) for name, paths in zip(classes, found, strict=True)}
    each = each or max(counts.values())
    if not each or set(counts.values()) != {each}:
        raise FileNotFoundError(f"{expected}; found {counts}")
    return found


def aedat_files(folder: Path) -> list[Path]:
    """Return the .aedat files in a folder, in lexicographic order; none if there is no such folder.

    Files that systems and programs leave there, such as ._x.aedat on macOS, are not read (../listing.py).
    """
    return files(folder, {".aedat"}) if folder.is_dir() else []


def split_files(paths: list[Path], split: str) -> tuple[list[Path], list[Path]]:
    """Split the files of one class, given in lexicographic order, into (training files, test files).

    split: "90-10" or "first-100-test", see `cifar10_dvs`.
    Raises ValueError for another split, and for two files of one number where the number decides.
    """
    if split == "90-10":
        n = -(-len(paths) * 9 // 10)  # 90 %, rounded up
        return paths[:n], paths[n:]
    if split == "first-100-test":
        train, test, numbered = [], [], {}
        for path in paths:
            i = _index(path)
            if i in numbered:
                raise ValueError(f"{numbered[i]} and {path} both have the number {i}: remove one of them")
            numbered[i] = path
            (test if i < 100 else train).append(path)
        return train, test
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
    """Return the training or the test frames of DVS128 Gesture: 1,176 or 288 samples of 11 classes.

    root: holds trials_to_train.txt and trials_to_test.txt. This is the published split. These files list
        recordings <name>.aedat. For each recording, <name>_labels.csv lists the samples in it.
    T, split_by, size: as for `events_to_frames`.
    cache: the folder where frames are kept, by default <root>/frames.

    Raises FileNotFoundError if a file is missing, DataFileError for a recording that is listed twice or in
    both lists, and the errors of `Frames` and `read_labels`.
    """
    root = Path(root).expanduser()
    parts = ("train", "test") if train else ("test", "train")
    trials, other_trials = (root / f"trials_to_{part}.txt" for part in parts)
    remedy = (
        "Unpack the official archive DvsGesture.tar.gz (research.ibm.com/interactive/dvsgesture), so that "
        f"its trials_to_train.txt, trials_to_test.txt, *.aedat and *_labels.csv lie in {root}"
    )
    if not trials.exists():
        raise FileNotFoundError(f"no {trials}. {remedy}")
    names = _read_text(trials).split()
    strange = next((name for name in names if not all(map(is_file_name, Path(name).parts))), None)
    if strange:
        raise DataFileError(trials, None, f"the name {strange[:60]!r}", "names of recordings in this folder")
    sources = [root / name for name in names]
    _refuse_repeated_trials(sources, trials, other_trials)
    samples = []
    for source in sources:
        labels = source.with_name(f"{source.stem}_labels.csv")
        for file in (source, labels):
            if not file.exists():
                raise FileNotFoundError(f"{trials} lists {source.name}, but there is no {file}. {remedy}")
        samples += [Sample(source, label, (start, end)) for label, start, end in read_labels(labels)]
    return Frames(samples, read_aedat3, T, split_by, size, Path(cache or root / "frames"))


def _refuse_repeated_trials(sources: list[Path], trials: Path, other_trials: Path) -> None:
    twice = [source for source, n in Counter(sources).items() if n > 1]
    if twice:
        raise DataFileError(trials, None, f"{twice[0].name} is listed twice", "each recording once")
    if other_trials.exists():
        others = {trials.parent / name for name in _read_text(other_trials).split()}
        both = [source for source in sources if source in others]
        if both:
            found = f"{both[0].name} is also listed in {other_trials}"
            raise DataFileError(trials, None, found, "each recording in one of the two lists")


def read_labels(path: Path) -> list[tuple[int, int, int]]:
    """Return (label 0–10, start µs, end µs) of each sample in a *_labels.csv, in the file's order.

    In user22_led_labels.csv, class 9 ends after the start of the next sample. 104000000 µs is used instead,
    with a warning. Others use this number too; we could not verify it.
    Raises DataFileError for a line that does not fit, and for two lines about the same part of the recording.
    """
    head, *lines = [line.strip() for line in _read_text(path).splitlines()] or [""]
    if head != LABELS_HEAD:
        raise DataFileError(path, None, f"line 1: {head!r}", LABELS_HEAD)
    rows, first = [], {}
    for number, line in enumerate(lines, 2):
        if not line:
            continue
        values = line.split(",")
        row = [int(value) for value in values if value.isdecimal()]
        if not (len(row) == len(values) == 3 and 1 <= row[0] <= 11 and row[1] < row[2]):
            raise DataFileError(path, None, f"line {number}: {line!r}", "class 1–11, start < end")
        part = (row[1], row[2])
        if part in first:
            found = f"lines {first[part]} and {number}: both about {part[0]} to {part[1]} µs"
            raise DataFileError(path, None, found, "each part of the recording once")
        first[part] = number
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
        return path.read_text(encoding="utf-8-sig")  # with or without the mark that Windows writes first
    except UnicodeDecodeError as error:
        raise DataFileError(path, error.start, f"not text ({error})", "UTF-8") from error
