"""The command show: one figure, and a few lines, of what a model does with one sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..measure import inside
from ..models import SpikingTransformer
from .folder import write_figure

DIMMED = np.array([[0.05, 0.45, 0.85], [0.85, 0.45, 0.05]])  # by an event of polarity 0 and 1: R, G, B


@dataclass
class Sample:
    """A model and one sample.

    x: as the model takes it, an image [1, H, W, C] or frames [T, 1, H, W, C].
    picture: as it is drawn: [H, W], dark where large, or [H, W, 3] from 0 to 1.
    classes: their names.    label: the true class, or None if it is not known.
    """

    model: SpikingTransformer
    x: np.ndarray
    picture: np.ndarray
    name: str
    classes: list[str]
    label: int | None = None


def picture_of(x: np.ndarray) -> np.ndarray:
    """Return a picture of one prepared sample, for Sample.

    Frames are added up; an event of polarity 0 is drawn orange, of polarity 1 blue.
    """
    image = x.sum(0)[0] if x.ndim == 5 else x[0]  # [H, W, C]
    if image.shape[-1] == 1:
        return image[..., 0]
    if image.shape[-1] == 2:
        return np.clip(1 - (image / max(np.quantile(image, 0.99), 1)) @ DIMMED, 0, 1)
    low, high = image.min(), image.max()
    return (image - low) / max(high - low, 1e-9)


def show(sample: Sample, block: int, head: int | None, path: str) -> str:
    """Draw the figure into the file `path`; return in lines what it says.

    ValueError for a model without blocks, a block or a head that it does not have, and for an x that does
    not fit the model.
    """
    model = sample.model
    if not isinstance(model, SpikingTransformer):
        raise ValueError(f"a {type(model).__name__} has no classes to show: train --init makes a classifier")
    found = inside.look(model, sample.x.astype(model.head.weight.dtype), block)
    mixed = inside.mixing(found, head)
    title = f"{sample.name}: stem {model.config.stem}, mixer {model.config.mixer}, T = {len(found.tokens)}"
    fig = inside.draw(found, sample.picture, mixed, title, sample.classes, sample.label)
    write_figure(fig, path)
    order = np.argsort(-found.probabilities, kind="stable")[:5]
    likely = "  ".join(f"{sample.classes[i]} {found.probabilities[i]:.1%}" for i in order)
    label = "" if sample.label is None else f"  (label {sample.classes[sample.label]})"
    rates = "  ".join(f"{inside.short(name)} {rate:.1%}" for name, rate in found.rates().items())
    return (
        f"{sample.name}: {likely}{label}\nblock {block}: {mixed.about}\nfiring rates: {rates}\nfigure: {path}"
    )
