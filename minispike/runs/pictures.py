"""Runs on a folder of one's own pictures: how such a run begins, what it got wrong, and predictions.

The run's folder holds pictures.json, the description of its pictures (data_utils/images/own.py). A checkpoint
holds what predictions need: class names, size, channels, mean and deviation.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_utils.datasets import NAMES
from data_utils.images.folders import read_image
from data_utils.images.own import Pictures, look_at, picture_loaders

from ..autograd import no_grad
from ..files.checkpoint import Saved, load_all, write_durably
from ..files.torchfile import FileFormatError
from ..models import SpikingTransformer
from ..nn import mode
from .folder import Run
from .recipes import Recipe, own_recipe

FILE = "pictures.json"
AUGMENTATION = ("flip", "policy", "shift", "mixup", "mixup_probability", "erase", "mixup_until")


def is_own(data: str) -> bool:
    """Return whether --data names a folder of pictures; known names win."""
    return data not in NAMES


# ---------------------------------------------------------------- a run begins, and goes on


def begin_run(out: str, folder: str, given: dict, progress: bool) -> tuple[Run, Pictures]:
    """Open all pictures; return the run that will train on them, its folder not made yet.

    given: fields of the recipe that the user has set.
    """
    root = Path(folder).expanduser().resolve()
    if not root.is_dir():
        raise ValueError(f"no data set and no folder {folder!r}; there are {', '.join(NAMES)}")
    options = {key: given[key] for key in ("val_split", "seed") if key in given}
    options |= {"size": given.get("img_size", 0), "skip_unreadable": bool(given.get("skip_unreadable"))}
    pictures = look_at(root, **options, progress=progress)
    settings = {"img_size": pictures.size, "in_channels": pictures.channels} | given
    recipe = own_recipe(str(root), len(pictures.train), **settings | {"data": str(root)})
    return Run(out, recipe), pictures


def read_pictures(run: Run) -> Pictures:
    """Return the description in a run's folder, after a look whether the pictures are still those.

    DataFileError names the files that are gone, new or changed; FileFormatError for a damaged description.
    """
    path = run.folder / FILE
    try:
        pictures = Pictures.from_json(path.read_text("utf-8"))
    except ValueError as error:
        raise FileFormatError(f"{path}: not as it was written ({error})") from error
    pictures.check(root_of(run.recipe))
    return pictures


def write_pictures(run: Run, pictures: Pictures) -> None:
    """Write the description into a run's folder."""
    write_durably(run.folder / FILE, pictures.to_json().encode())


def root_of(recipe: Recipe) -> str:
    """Return where a recipe's pictures are."""
    return recipe.root or recipe.data


def loaders(recipe: Recipe, pictures: Pictures) -> tuple:
    """Return (training batches, test batches, number of classes)."""
    changes = {name: getattr(recipe, name) for name in AUGMENTATION}
    sizes = {"batch_size": recipe.batch_size, "seed": recipe.seed}
    return *picture_loaders(pictures, root_of(recipe), **sizes, **changes), len(pictures.classes)


def for_predictions(pictures: Pictures) -> dict:
    """Return what a checkpoint keeps of the description: all but the files."""
    return vars(pictures) | {"train": {}, "test": {}, "skipped": []}


def summary(pictures: Pictures) -> str:
    """Return in one line how many pictures there are, and how large the largest class is."""
    n, side, colour = len(pictures.train), pictures.size, "grey" if pictures.channels == 1 else "colour"
    counts = np.bincount([pictures.label(name) for name in pictures.test])
    largest = f"the largest class has {counts.max() / counts.sum():.1%} of the test pictures"
    skipped = f"; {len(pictures.skipped)} unreadable ones left out" if pictures.skipped else ""
    parts = f"{n} pictures to train on, {len(pictures.test)} to test on, {len(pictures.classes)} classes"
    return f"{parts}, {side}×{side} {colour}; {largest}{skipped}"


# ---------------------------------------------------------------- what the model says


def probabilities(model: SpikingTransformer, images: np.ndarray) -> np.ndarray:
    """Return the classes' probabilities [n, classes] of prepared images, in eval mode."""
    with mode(model, training=False), no_grad():
        logits = model(images.astype(model.head.weight.dtype)).data
    p = np.exp(logits - logits.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def confusion(model: SpikingTransformer, test, pictures: Pictures) -> str:
    """Return a table of true classes (rows) and predicted ones (columns), and the files that are wrong."""
    guesses = np.concatenate([probabilities(model, images).argmax(1) for images, _ in test])
    names, classes = list(pictures.test), pictures.classes
    labels = np.array([pictures.label(name) for name in names])
    table = np.zeros((len(classes), len(classes)), int)
    np.add.at(table, (labels, guesses), 1)
    wide = max(map(len, [*classes, "true \\ predicted"]))
    cells = [max(len(name), 4) for name in classes]
    lines = [
        "  ".join(
            [
                "true \\ predicted".ljust(wide),
                *(name.rjust(w) for name, w in zip(classes, cells, strict=True)),
            ]
        )
    ]
    for name, row in zip(classes, table, strict=True):
        lines.append(
            "  ".join([name.ljust(wide), *(str(n).rjust(w) for n, w in zip(row, cells, strict=True))])
        )
    wrong = [f"  {names[i]}: {classes[guesses[i]]}" for i in np.flatnonzero(labels != guesses)]
    return "\n".join([*lines, "wrong:" if wrong else "none wrong", *wrong])


def saved_of(source: str) -> tuple[Saved, Pictures]:
    """Return a run's newest checkpoint, or a file's, with what predictions need."""
    saved = Run.open(source).newest() if Path(source).is_dir() else load_all(source)
    if saved is None:
        raise FileNotFoundError(f"the run {source} has no checkpoint yet")
    if not saved.training.get("data"):
        raise ValueError(f"{source} holds no class names: it was not trained on a folder of pictures")
    return saved, Pictures(**saved.training["data"])


def predict(source: str, paths: list[str], find) -> list[dict]:
    """Return, for each picture, its file and the classes' probabilities, the most probable first.

    source: a run's folder or a checkpoint.    paths: files, or folders of pictures, which find(folder) lists.
    """
    saved, pictures = saved_of(source)
    files = [file for path in paths for file in (find(Path(path)) if Path(path).is_dir() else [Path(path)])]
    found = []
    for file in files:
        p = probabilities(saved.model, pictures.prepare([read_image(file)]))[0]
        order = np.argsort(-p)
        found.append(
            {"file": str(file), "classes": {pictures.classes[i]: round(float(p[i]), 4) for i in order}}
        )
    return found
