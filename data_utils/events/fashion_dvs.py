"""Fashion-DVS: Fashion-MNIST, recorded by the simulated event camera in files like those of CIFAR10-DVS.

    make_fashion_dvs("data/fashion-dvs")                         writes 7,000 recordings; takes some minutes
    frames = fashion_dvs("data/fashion-dvs", train=True, T=8)    frames[i] [T, H, W, 2], frames.labels [n]

    <root>/settings.json
    <root>/<train or test>/<class>/fashion_<class>_<i>.aedat     i: the place of the image in Fashion-MNIST

This set is our own. It is for training on events when you have no recordings of a real camera. A result on it
says nothing about real cameras, so call it "simulated". Training recordings show only training images of
Fashion-MNIST, test recordings only test images.
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

from ..errors import named_if_no_room, unique_names
from ..images.mnist import read_fashion_mnist
from .aedat import read_aedat2, read_aedat3, write_aedat2, write_aedat3
from .dvs import Frames, Sample, aedat_files, files_by_class
from .simulator import simulate

CLASSES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle-boot",
)
PARTS = ("train", "test")
FORMATS = {"2.0": (read_aedat2, write_aedat2), "3.1": (read_aedat3, write_aedat3)}  # (reader, writer)

# The keywords of `simulate`. They are our choice, for these reasons:
#
# size, travel: a 28×28 image in the middle of the 32×32 sensor has a margin of 2 pixels. A triangle of 4
#     pixels moves the image by 2 pixels to either side. So all of the image stays in view.
# threshold, refractory: the edge of a white garment crosses log(1.1 / 0.1) / 0.2 = 11.99 thresholds. This
#     gives 11 events, mostly more than 1 ms apart, so the refractory time removes few of them. With twice
#     this threshold, the patterns within garments are hardly visible.
# noise_rate: 1 event per pixel and second makes 3–4 % of all events.
# step: steps of 2 ms (0.08 pixels) give the same number of events as steps of 1 ms, to within 1 %, in two
#     thirds of the time.
CAMERA = dict(size=(32, 32), travel=4.0, threshold=0.2, refractory=1000, noise_rate=1.0, step=2000)


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
    """Record the first train / 10 training images and the first test / 10 test images of each class.

    train, test: numbers of recordings, multiples of 10.
    seed: image i is recorded with random numbers that depend on (seed, part, i) alone; part is 0 for train,
        1 for test.
    aedat: the format of the files, "2.0" or "3.1".
    source: the folder of Fashion-MNIST, as root of `load_fashion_mnist`.
    camera: keywords of `simulate`, which replace those in CAMERA.

    Recordings that are there already stay as they are. So a call after an interruption completes the set, and
    a call for a finished set does not even read the images.
    Raises ValueError for settings that do not fit, and if root holds recordings with other settings.
    """
    root = Path(root).expanduser()
    numbers = (train, test)
    if aedat not in FORMATS:
        raise ValueError(f"aedat must be {' or '.join(map(repr, FORMATS))}, got {aedat!r}")
    if min(numbers) < 10 or train % 10 or test % 10:
        raise ValueError(f"train and test must be multiples of 10, for ten classes; got {train} and {test}")
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
    if all(10 * len(aedat_files(root / part / name)) == settings[part] for part, name in folders):
        return
    recordings, crc = [], 0
    for part, (images, labels) in enumerate(read_fashion_mnist(source)):
        for file, i in _recordings(root, PARTS[part], labels, numbers[part]):
            recordings.append((file, images[i], (seed, part, i)))
            crc = crc32(images[i].tobytes(), crc)
    settings["images"] = f"{crc:08x}"
    if held:
        _expect_same(root, settings, held)
    # If simulate refuses a setting, it does so here, before anything is written.
    simulate(np.zeros((28, 28)), np.random.default_rng(seed), **camera)
    _write_whole(root / "settings.json", lambda path: path.write_text(json.dumps(settings, indent=1) + "\n"))
    _expect_same(root, settings, read_settings(root))  # another process may have started another set
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
    """Return the training or the test frames of a set that `make_fashion_dvs` has made in root.

    T, split_by: as for `events_to_frames`.
    cache: the folder where frames are kept, by default <root>/frames.
    Raises FileNotFoundError if the set is missing or unfinished, and the errors of `Frames`.
    """
    root = Path(root).expanduser()
    settings = read_settings(root)
    part = "train" if train else "test"
    each = settings[part] // len(CLASSES)
    expected = (
        f"Fashion-DVS expects {each} recordings of each class in {root / part}/<class>; "
        f"make_fashion_dvs with the same settings completes them"
    )
    files = files_by_class(root / part, CLASSES, expected, each)
    samples = [Sample(file, label) for label, found in enumerate(files) for file in found]
    read = FORMATS[settings["aedat"]][0]
    cache = Path(cache or root / "frames") / part  # a folder per part, because both parts have an image 7
    return Frames(samples, read, T, split_by, tuple(settings["size"]), cache)


def read_settings(root: str | Path) -> dict:
    """Return the settings of the set in root: the keywords it was made with, and the CRC-32 of its images.

    Raises FileNotFoundError without a settings.json, and ValueError if this file is damaged.
    """
    file = Path(root).expanduser() / "settings.json"
    if not file.exists():
        raise FileNotFoundError(f"no {file}: make_fashion_dvs({str(root)!r}) makes a set there")
    try:
        settings = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=unique_names)
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error}): delete {root} and make the set again") from error
    lacking = {*PARTS, "seed", "aedat", "images", *CAMERA} - {
        *(settings if isinstance(settings, dict) else ())
    }
    if lacking:
        raise ValueError(f"{file} does not say {', '.join(sorted(lacking))}: delete {root} and make it again")
    whole = all(type(settings[name]) is int and settings[name] >= 10 for name in PARTS)
    sides = settings["size"] if isinstance(settings["size"], list) else []
    sensor = len(sides) == 2 and all(type(n) is int and 1 <= n <= 1024 for n in sides)
    if not (whole and sensor and settings["aedat"] in [*FORMATS]):
        wrong = f"train {settings['train']}, test {settings['test']}, aedat {settings['aedat']}, size {sides}"
        raise ValueError(
            f"{file} has settings that cannot be: {wrong[:200]}; delete {root} and make it again"
        )
    return settings


def _expect_same(root: Path, settings: dict, held: dict) -> None:
    """Raise ValueError if settings, asked for now, differ from those that the set in root was made with."""
    names = [name for name in {**held, **settings} if held.get(name) != settings.get(name)]
    if names:
        of = ", ".join(f"{name} = {held.get(name)} (asked for {settings.get(name)})" for name in names)
        raise ValueError(f"{root} holds a set of {of}: take another folder, or delete this one")


def _recordings(root: Path, part: str, labels: np.ndarray, number: int) -> list[tuple[Path, int]]:
    """Return the file of each recording and the place of its image, class after class."""
    found = []
    each = number // len(CLASSES)
    for label, name in enumerate(CLASSES):
        chosen = np.flatnonzero(labels == label)[:each].tolist()
        if len(chosen) < each:
            raise ValueError(
                f"{part}={number} takes {each} images of each class, but {name} has only {len(chosen)}"
            )
        found += [(root / part / name / f"fashion_{name}_{i}.aedat", i) for i in chosen]
    return found


def _write_whole(file: Path, write: Callable[[Path], object]) -> None:
    """Write the complete file, or nothing.

    If another process has written the file in the meantime, that file stays, with its modification time. On a
    file system without hard links, it is replaced by a file with the same bytes.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(f".part{os.getpid()}")
    try:
        with named_if_no_room(file):
            write(unfinished)
        os.link(unfinished, file)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)
