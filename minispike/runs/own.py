"""Runs on one's own data: how such a run begins, what it got wrong, and predictions.

The run's folder holds data.json, the description of its data (data_utils/own). A checkpoint holds what
predictions need: class names, and how a file is prepared.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from data_utils.datasets import NAMES
from data_utils.errors import unique_names
from data_utils.listing import files
from data_utils.loader import Loader
from data_utils.own.arrays import Arrays
from data_utils.own.description import Description
from data_utils.own.kinds import description, kind_at
from data_utils.own.recordings import Recordings

from ..autograd import no_grad
from ..configs import configuration
from ..files.checkpoint import Saved, write_durably
from ..files.torchfile import FileFormatError
from ..models import SpikingTransformer
from ..nn import mode
from .folder import Run, saved_at
from .recipes import MASKED, OWN, Recipe, own_recipe

FILE = "data.json"
IMAGES_ONLY = ("shift", "flip", "policy", "erase")
MIXING = ("mixup", "mixup_probability", "mixup_until")
ENCODER = ("model", "img_size", "in_channels", "depth", "embed_dim", "num_heads")  # what --init decides


def is_own(data: str) -> bool:
    """Return whether --data is a path to one's own data; known names win."""
    return data not in NAMES


# ---------------------------------------------------------------- a run begins, and goes on


def begin_run(out: str, data: str, given: dict, objective: str, progress: bool) -> tuple[Run, Description]:
    """Open all samples; return the run that will train on them, its folder not made yet, and the description.

    given: fields of the recipe that the user has set. With init, the fields of the model are by default those
    of the run that init names.
    """
    root = existing_root(data)
    kind = kind_at(root)
    if objective == MASKED and kind is Recordings:
        raise ValueError(f"{root} holds event recordings, and pre-training takes images")
    family = "hidden patches" if objective == MASKED else "events" if kind is Recordings else "images"
    given = encoder_of(given.get("init")) | given
    own = look_at(root, OWN[family] | given, labelled=objective != MASKED, progress=progress)
    if given.get("in_channels", 0) not in (0, own.channels):
        raise ValueError(f"in_channels is {given['in_channels']}, but {root} has {own.channels} channels")
    known = {"img_size": own.size, "in_channels": own.channels, "data": str(root)}
    known |= {"T": own.T} if isinstance(own, Recordings) else {}
    return Run(out, own_recipe(str(root), family, len(own.train), **given | known)), own


def look_at(root: Path, given: dict, labelled: bool = True, progress: bool = False) -> Description:
    """Return the description of what is at root.

    given: fields of a recipe; 0 and "" mean the default.    labelled: whether classes are needed.
    """
    kind = kind_at(root)
    names = {"val_split": "val_split", "seed": "seed", "img_size": "size"}
    options: dict = {"multiple": 2 ** sum(configuration(given["model"]).pools)} if "model" in given else {}
    if kind is Recordings:
        names |= {"T": "T", "split_by": "split_by", "time_unit": "unit"}
        options["sensor"] = sensor_size(given.get("sensor", ""))
    else:
        options["labelled"] = labelled
    if kind is not Arrays:
        names |= {"in_channels": "channels"} if kind is not Recordings else {}
        options |= {"skip_unreadable": bool(given.get("skip_unreadable")), "progress": progress}
    options |= {ours: given[theirs] for theirs, ours in names.items() if given.get(theirs)}
    return kind.look_at(root, **options)


def sensor_size(text: str) -> tuple[int, int] | None:
    """Return (H, W) of a text such as "260x346", None of an empty one."""
    found = re.fullmatch(r"(\d+)[x×](\d+)", text)
    if text and not found:
        raise ValueError(f"sensor must be rows x columns, such as 260x346, got {text!r}")
    return (int(found[1]), int(found[2])) if found else None


def existing_root(data: str) -> Path:
    """Return the absolute path that --data names. ValueError if there is nothing."""
    root = Path(data).expanduser().resolve()
    if not root.exists():
        raise ValueError(f"no data set and no file or folder {data!r}; there are {', '.join(NAMES)}")
    return root


def encoder_of(init: str | None) -> dict:
    """Return the fields of the model that a run or a checkpoint was trained with, as far as it says them."""
    recipe = saved_at(init).training.get("recipe", {}) if init else {}
    return {name: recipe[name] for name in ENCODER if recipe.get(name)}


def read_own(run: Run) -> Description | None:
    """Return the description in a run's folder, after a look whether its data is the same; None for a set.

    DataFileError names the samples that are gone, new or changed.
    """
    if not is_own(run.recipe.data):
        return None
    own, root = read_description(run.folder / FILE), root_of(run.recipe)
    if not root.exists():
        raise FileNotFoundError(f"there is no {root}, the run's data: --root says where it is now")
    own.check(root)
    return own


def read_description(path: Path) -> Description:
    """Return the description in a run's file. FileFormatError if it is damaged."""
    try:
        return description(json.loads(path.read_text("utf-8"), object_pairs_hook=unique_names))
    except ValueError as error:
        raise FileFormatError(f"{path}: not as it was written ({error})") from error


def write_own(run: Run, own: Description) -> None:
    """Write the description into a run's folder."""
    write_durably(run.folder / FILE, own.to_json().encode())


def root_of(recipe: Recipe) -> Path:
    """Return where a recipe's data is."""
    return Path(recipe.root or recipe.data).expanduser()


def loaders(recipe: Recipe, own: Description) -> tuple:
    """Return (training batches, test batches, number of classes)."""
    changes = {name: getattr(recipe, name) for name in MIXING}
    of_images = {name: getattr(recipe, name) for name in IMAGES_ONLY}
    if isinstance(own, Recordings):
        wrong = [name for name, value in of_images.items() if value]
        if wrong:
            raise ValueError(f"event frames have their own changes, and no {', '.join(wrong)}")
        changes["augment"] = bool(recipe.augment_events)
    else:
        changes |= of_images
    sizes = {"batch_size": recipe.batch_size, "seed": recipe.seed}
    return *own.loaders(root_of(recipe), **sizes, **changes), len(own.classes)


def summary(own: Description, test) -> str:
    """Return in one line how many samples there are, what they become, and how large the largest class is."""
    n, kind = len(own.train), f"{own.one}s"
    parts = [f"{n} {kind} to train on, {len(own.test)} to test on"]
    largest = ""
    if own.classes:
        counts = np.bincount(test.labels)
        parts.append(f"{len(own.classes)} classes")
        largest = f"; the largest class has {counts.max() / counts.sum():.1%} of the test {kind}"
    skipped = f"; {len(own.skipped)} unreadable ones left out" if own.skipped else ""
    return ", ".join([*parts, own.words()]) + largest + skipped


def batches_for(model: SpikingTransformer, source: str, data: str) -> Loader:
    """Return the test batches of one's own data, prepared as the model was trained if its file says how.

    source: the run, the file or the name that the model is from.
    """
    root, given = existing_root(data), {"img_size": model.img_size[0], "in_channels": model.in_channels}
    kept = saved_at(source).training.get("data") if Path(source).exists() else None
    kept = description(kept) if kept else None
    if isinstance(kept, Recordings):
        given |= {"T": kept.T, "split_by": kept.split_by, "time_unit": kept.unit}
        given["sensor"] = "x".join(map(str, kept.sensor))
    else:
        given["T"] = model.T
    return look_at(root, given).for_model(kept).loaders(root, batch_size=1)[1]


# ---------------------------------------------------------------- what the model says


def probabilities(model: SpikingTransformer, images: np.ndarray) -> np.ndarray:
    """Return the classes' probabilities [n, classes] of prepared images or frames, in eval mode."""
    with mode(model, training=False), no_grad():
        logits = model(images.astype(model.head.weight.dtype)).data
    p = np.exp(logits - logits.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def confusion(model: SpikingTransformer, test, own: Description) -> str:
    """Return a table of true classes (rows) and predicted ones (columns), and the samples that are wrong."""
    guesses = np.concatenate([probabilities(model, images).argmax(1) for images, _ in test])
    names, classes, labels = list(own.test), own.classes, test.labels
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


def saved_of(source: str) -> tuple[Saved, Description]:
    """Return a run's newest checkpoint, or a file's, with what predictions need."""
    saved = saved_at(source)
    data = saved.training.get("data")
    if not data or not data["classes"]:
        raise ValueError(f"{source} holds no class names: it was not trained on data of your own")
    try:
        return saved, description(data)
    except ValueError as error:
        raise FileFormatError(f"{source}: {error}") from error


def predict(source: str, paths: list[str]) -> list[dict]:
    """Return, for each sample, its name and the classes' probabilities, the most probable first.

    source: a run's folder or a checkpoint.    paths: files of the kind that the run was trained on, or
    folders of them.
    """
    saved, own = saved_of(source)
    found = []
    for path in files_of(paths, own):
        for names, x in own.inputs(path):
            for name, p in zip(names, probabilities(saved.model, x), strict=True):
                shares = {own.classes[i]: round(float(p[i]), 4) for i in np.argsort(-p)}
                found.append({"file": name, "classes": shares})
    return found


def files_of(paths: list[str], own: Description) -> list[Path]:
    """Return the files that are named, and those in the folders that are named."""
    found = []
    for path in (Path(each).expanduser() for each in paths):
        if not path.is_dir():
            found.append(path)
            continue
        inside = files(path, own.suffixes)
        if not inside:
            raise FileNotFoundError(f"no {own.one} in {path}; expected {', '.join(sorted(own.suffixes))}")
        found += inside
    return found
