"""Count trained digits models, over T, mixer and seed: python -m benchmarks.energy"""

from __future__ import annotations

from pathlib import Path

from lessons.recipes import train_on_digits
from minispike import create_model
from minispike.checkpoint import load, save

MIXERS = ("ssa", "fft1d", "fft2d", "haar", "wavelets", "identity")
STEPS = (1, 2, 4)
MODELS = Path("runs/energy")  # trained models are kept here: a change of the count trains nothing anew


def trained(mixer: str, T: int, seed: int):
    """Return the small digits model with this mixer after 20 epochs, from MODELS if it is there."""
    path = MODELS / f"{mixer}_T{T}_seed{seed}.safetensors"
    if path.exists():
        return load(path)
    if mixer == "ssa":
        model = create_model("spikformer_1_64_digits", T=T, rng=seed)
    else:
        model = create_model("attention_free_fft1d_1_64_digits", mixer=mixer, T=T, rng=seed)
    train_on_digits(model, seed=seed, progress=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(model, path)
    return model
