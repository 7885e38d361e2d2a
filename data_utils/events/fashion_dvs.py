"""Fashion-DVS: Fashion-MNIST before the simulated event camera, recorded on disk as CIFAR10-DVS is.

    make_fashion_dvs("data/fashion-dvs")                            7,000 recordings, some minutes, once
    frames = fashion_dvs("data/fashion-dvs", train=True, T=8)       frames[i] [T, H, W, 2], frames.labels [n]

    <root>/settings.json
    <root>/<train or test>/<class>/fashion_<class>_<i>.aedat    i: the image's place in Fashion-MNIST's file

A set of our own, for learning on events where no recorded set is at hand: a result on it says nothing about
real cameras, and should say "simulated". Training recordings are made of Fashion-MNIST's training images
alone, test recordings of its test images.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from itertools import product
from pathlib import Path
from zlib import crc32

import numpy as np
from tqdm import tqdm

from ..images.mnist import read_fashion_mnist
from .aedat import read_aedat2, read_aedat3, write_aedat2, write_aedat3
from .dvs import Frames, Sample, files_by_class
from .simulator import simulate

CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat")
CLASSES += ("sandal", "shirt", "sneaker", "bag", "ankle-boot")
PARTS = ("train", "test")
FORMATS = {"2.0": (read_aedat2, write_aedat2), "3.1": (read_aedat3, write_aedat3)}

CAMERA = dict(size=(32, 32), travel=4.0, threshold=0.2, refractory=1000, noise_rate=1.0, step=2000)
"""`simulate`'s keywords, our choice. A 28×28 image has a margin of 2 pixels on the 32×32 sensor, which is how
far the triangle of 4 pixels takes it to either side: all of it stays in view. The edge of a white garment
crosses log(1.1 / 0.1) / 0.2 = 11.99 thresholds: 11 events, mostly more than 1 ms apart, so that the
refractory time costs few; at twice the threshold the patterns within garments are hardly seen. Noise is 1
event per pixel and second, 3–4 % of all. 2 ms a step (0.08 pixels) give as many events as 1 ms, to 1 %, in
two thirds of the time.
"""


def make_fashion_dvs(
    root: str | Path,
    *,
    train: int = 6000,
    test: int = 1000,
    seed: int = 0,
    aedat: str = "2.0",
    source: str | Path | None = None,
    **camera,
) -> None:
    """Record the first train / 10 and test / 10 images of each class; what is there already stays as it is.

    So a making that was interrupted goes on, and a finished set is left alone, its images not even read.
    Image i of a part (train 0, test 1) is recorded with the random numbers of (seed, part, i), nothing else.
    aedat: the files' format, "2.0" or "3.1".    source: Fashion-MNIST's folder, `load_fashion_mnist`'s root.
    camera: `simulate`'s keywords, in place of those in CAMERA.
    Raises ValueError where root holds recordings that were made with other settings.
    """
    root, numbers = Path(root), (train, test)
    if aedat not in FORMATS:
        raise ValueError(f"aedat must be {' or '.join(map(repr, FORMATS))}, got {aedat!r}")
    if min(numbers) < 10 or train % 10 or test % 10:
        raise ValueError(f"train and test are shared by ten classes: multiples of 10, got {train} and {test}")
    camera = CAMERA | camera
    if aedat == "2.0" and max(camera["size"]) > 128:
        raise ValueError(
            f"AEDAT 2.0 holds sensors of up to 128×128, got {'×'.join(map(str, camera['size']))}"
        )
    settings = json.loads(json.dumps(dict(train=train, test=test, seed=seed, aedat=aedat, **camera)))
    held = read_settings(root) if (root / "settings.json").exists() else None
    if held:
        _expect_same(root, settings | {"images": held["images"]}, held)
    elif any((root / part).exists() for part in PARTS):
        raise ValueError(f"{root} has recordings, but no settings.json that says how they were made")
    folders = product(PARTS, CLASSES)
    if all(10 * len([*(root / part / name).glob("*.aedat")]) == settings[part] for part, name in folders):
        return
    recordings, crc = [], 0
    for part, (images, labels) in enumerate(read_fashion_mnist(source)):
        for file, i in _recordings(root, PARTS[part], labels, numbers[part]):
            recordings.append((file, images[i], (seed, part, i)))
            crc = crc32(images[i].tobytes(), crc)
    settings["images"] = f"{crc:08x}"
    if held:
        _expect_same(root, settings, held)
    simulate(np.zeros((28, 28)), np.random.default_rng(seed), **camera)  # refuses before anything is written
    _write_whole(root / "settings.json", lambda path: path.write_text(json.dumps(settings, indent=1) + "\n"))
    _expect_same(root, settings, read_settings(root))  # another process may have begun another set
    write = FORMATS[aedat][1]
    for file, image, seeds in tqdm(recordings, desc=f"recording Fashion-DVS in {root}"):
        if not file.exists():
            events = simulate(image / 255, np.random.default_rng(seeds), **camera)
            _write_whole(file, lambda path, events=events: write(path, events))


def fashion_dvs(
    root: str | Path,
    train: bool,
    T: int = 8,
    split_by: str = "number",
    cache: str | Path | None = None,
) -> Frames:
    """Return the training or test frames of a set that `make_fashion_dvs` has made in root.

    cache: where frames are kept; <root>/frames by default.
    Raises FileNotFoundError where the set is missing or unfinished.
    """
    root, settings, part = Path(root), read_settings(root), PARTS[0 if train else 1]
    each = settings[part] // len(CLASSES)
    expected = (
        f"Fashion-DVS expects {each} recordings of each class in {root / part}/<class>; "
        f"make_fashion_dvs with the same settings completes them"
    )
    files = files_by_class(root / part, CLASSES, expected, each)
    samples = [Sample(file, label) for label, found in enumerate(files) for file in found]
    read = FORMATS[settings["aedat"]][0]
    cache = Path(cache or root / "frames") / part  # apart: both parts have an image number 7
    return Frames(samples, read, T, split_by, tuple(settings["size"]), cache)


def read_settings(root: str | Path) -> dict:
    """Return the keywords, as JSON has them, that the set in root was made with, and its images' CRC-32."""
    file = Path(root) / "settings.json"
    if not file.exists():
        raise FileNotFoundError(f"no {file}: make_fashion_dvs({str(root)!r}) makes a set there")
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error}): delete {root} and make the set again") from error
    lacking = {*PARTS, "seed", "aedat", "images", *CAMERA} - set(settings)
    if lacking:
        raise ValueError(f"{file} does not say {', '.join(sorted(lacking))}: delete {root} and make it again")
    return settings


def _expect_same(root: Path, settings: dict, held: dict) -> None:
    names = [name for name in {**held, **settings} if held.get(name) != settings.get(name)]
    if names:
        of = ", ".join(f"{name} = {held.get(name)} (asked for {settings.get(name)})" for name in names)
        raise ValueError(f"{root} holds a set of {of}: take another folder, or delete this one")


def _recordings(root: Path, part: str, labels: np.ndarray, number: int) -> list[tuple[Path, int]]:
    """Return the file and the image's place of each recording, class after class."""
    found = []
    for label, name in enumerate(CLASSES):
        chosen = np.flatnonzero(labels == label)[: number // len(CLASSES)].tolist()
        if len(chosen) < number // len(CLASSES):
            raise ValueError(
                f"{part}={number} takes {number // len(CLASSES)} images of each class, but of {name} there "
                f"are {len(chosen)}"
            )
        found += [(root / part / name / f"fashion_{name}_{i}.aedat", i) for i in chosen]
    return found


def _write_whole(file: Path, write: Callable[[Path], object]) -> None:
    """Write all of a file, or nothing. What another process has written meanwhile stays, even its time.

    (Where the file system has no links it is written again, with the same bytes.)
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(f".part{os.getpid()}")
    try:
        write(unfinished)
        os.link(unfinished, file)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)
