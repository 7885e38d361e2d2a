"""Folders of simulated recordings for the tests, in the layouts of CIFAR10-DVS and of DVS128 Gesture."""

from pathlib import Path

import numpy as np

from data_utils.events.aedat import write_aedat2, write_aedat3
from data_utils.events.simulator import SACCADE, simulate


def write_cifar10_dvs(
    root: Path, images: np.ndarray, labels, classes: tuple[str, ...], rng: np.random.Generator, **camera
) -> None:
    """Record images [n, h, w] as <root>/<class>/cifar10_<class>_<i>.aedat, in AEDAT 2.0.

    labels: [n], places in classes.    camera: keywords of `simulate`.
    """
    counts = [0] * len(classes)
    for image, label in zip(images, labels, strict=True):
        name = classes[label]
        file = root / name / f"cifar10_{name}_{counts[label]}.aedat"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_aedat2(file, simulate(image, rng, **camera))
        counts[label] += 1


def write_gesture(
    root: Path, trials: dict[str, tuple], test: set[str], rng: np.random.Generator, **camera
) -> None:
    """Record trials as <root>/<name>.aedat in AEDAT 3.1, with <name>_labels.csv and the two lists of trials.

    trials: {name: (images [n, h, w], labels [n], 0–10)}. The samples of a recording follow each other after
        pauses of 0.2 s.
    test: the names of the trials to test on.    camera: keywords of `simulate`.
    """
    root.mkdir(parents=True, exist_ok=True)
    for name, (images, labels) in trials.items():
        recording = []
        rows = ["class,startTime_usec,endTime_usec"]
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            start = (i + 1) * 200_000 + i * 3 * SACCADE
            events = simulate(image, rng, **camera)
            events["t"] += start
            recording.append(events)
            rows.append(f"{label + 1},{start},{start + 3 * SACCADE + 1}")
        write_aedat3(root / f"{name}.aedat", np.concatenate(recording))
        (root / f"{name}_labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    for part, names in (("train", trials.keys() - test), ("test", test)):
        lines = [f"{name}.aedat\n" for name in sorted(names)]
        (root / f"trials_to_{part}.txt").write_text("".join(lines), encoding="utf-8")


# ---------------------------------------------------------------- Fashion-DVS

QUICK = dict(train=20, test=10, step=10_000, threshold=0.4)  # keywords of make_fashion_dvs
TRAINING = dict(T=4, batch_size=8, seed=3)  # keywords of open_events


def contents(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*.aedat")}
