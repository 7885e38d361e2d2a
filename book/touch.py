"""Things to touch: which lesson has which widget, and the numbers that it starts from, made by minispike."""

from __future__ import annotations

import json

import numpy as np

from data_utils.images.digits import load_digits
from minispike import create_model, ops
from minispike.measure import viz

WIDGETS = {
    "01_lif": ["lif-playground", "surrogate-playground"],
    "03_ssa": ["ssa-playground"],
    "05_fourier": ["mixing-playground"],
    "06_wavelet": ["mixing-playground"],
}


def html(lesson: str) -> str:
    """Return a lesson's widgets as HTML, with their data."""
    parts = ["## Touch it"]
    for widget in WIDGETS[lesson]:
        found = data(lesson, widget)
        inside = f'<script type="application/json">{json.dumps(found)}</script>' if found else ""
        parts.append(f"```{{raw}} html\n<{widget}>{inside}</{widget}>\n```")
    return "\n\n".join(parts)


def data(lesson: str, widget: str) -> dict:
    """Return what a widget reads."""
    if widget == "ssa-playground":
        return attention_of_a_digit()
    if widget == "mixing-playground":
        kinds = ("fourier",) if lesson == "05_fourier" else ("haar", "haar, 2 levels")
        return {"grid": [4, 4], "matrices": {kind: matrix(kind).tolist() for kind in kinds}}
    return {}


def attention_of_a_digit(number: int = 4) -> dict:
    """Return a test digit [8, 8], and the spikes of q and k in a trained model's first head: 16×16 bits."""
    _, (images, labels) = load_digits()
    model = create_model("spikformer_1_64_digits", pretrained=True)
    spikes = viz.spikes_of(model, images[number : number + 1])
    q, k = (spikes[f"blocks.0.mixer.{name}.neuron"][-1, 0].reshape(16, 4, 16)[:, 0] for name in "qk")
    bits = (
        ["".join(map(str, row)) for row in q.astype(int)],
        ["".join(map(str, row)) for row in k.astype(int)],
    )
    return {
        "image": images[number, :, :, 0].round(3).tolist(),
        "label": int(labels[number]),
        "Q": bits[0],
        "K": bits[1],
    }


def matrix(kind: str) -> np.ndarray:
    """Return the matrix [16, 16] by which a transform mixes the tokens of a 4×4 grid."""
    one = np.eye(16)
    if kind == "fourier":
        return ops.fourier(one).data
    return ops.wavelet(one, (4, 4), "haar", 2 if "2" in kind else 1).data
