"""Compute the frozen values; run as a module, record them again.

    python -m tests.frozen.record values     float64: logits, loss and gradients after five training steps
    python -m tests.frozen.record metrics    float32: metrics.csv of a short training, and where it was made

The model files in models/ and the run in run/ are never made again: they are files of an earlier version.
"""

from __future__ import annotations

import csv
import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from zlib import crc32

import numpy as np
from threadpoolctl import threadpool_info

from data_utils.images.digits import load_digits
from minispike import create_model, list_models, ops, optim
from minispike.kernels.compiled import why_not
from minispike.masked import masked_autoencoder, random_visible
from minispike.runs.cli import main

HERE = Path(__file__).parent
FRAMES, MASKED = "spikformer_2_64_fashion_dvs", "masked spikformer_v2_1_64_digits"
CASES = [*(name for name in list_models() if name.endswith("_1_64_digits")), FRAMES, MASKED]
STEPS, SIGNS, ENTRIES = 5, 4, 16
THREADS, EPOCHS = 2, 3

# ---------------------------------------------------------------- float64 values


def values(case: str) -> dict[str, np.ndarray]:
    """Train a model for five steps in float64; return its loss, outputs and gradients at the sixth.

    A gradient is kept as 16 of its entries and as 4 sums over all of them, each entry with a random sign: a
    change of any one entry changes every sum by as much.
    """
    model, batch = _masked() if case == MASKED else _classifier(case)
    for path, parameter in model.named_parameters():
        if path.endswith("norm.weight") and path != "norm.weight":
            parameter.data[...] = 2  # so that every layer fires from the first step on
    optimizer = optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.06)
    for step in range(STEPS + 1):
        optimizer.zero_grad()
        loss, outputs = batch(step)
        loss.backward()
        if step < STEPS:
            optimizer.step()
    found = {"loss": np.array([loss.item()]), "outputs": outputs.data[:4].ravel()[:64]}
    for path, parameter in model.named_parameters():
        g = parameter.grad.ravel()
        signs = np.random.default_rng(crc32(path.encode())).choice([-1.0, 1.0], (SIGNS, g.size))
        entries = g[np.linspace(0, g.size - 1, min(ENTRIES, g.size)).astype(int)]
        found[path] = np.concatenate([entries, signs @ g])
    return found


def _classifier(name: str):
    model = create_model(name, dtype="float64", rng=5)
    (images, labels), _ = load_digits()
    rng = np.random.default_rng(5)

    def batch(step: int):
        if name == FRAMES:
            x, y = rng.poisson(0.3, (3, 4, 32, 32, 2)).astype(float), np.arange(4)
        else:
            at = slice(16 * step, 16 * step + 16)
            x, y = images[at].astype(float), labels[at]
        logits = model(x)
        return ops.softmax_cross_entropy(logits, y, 0.1), logits

    return model, batch


def _masked():
    model = masked_autoencoder(MASKED.split()[1], dtype="float64", rng=5)
    (images, _), _ = load_digits()
    rng = np.random.default_rng(5)

    def batch(step: int):
        at = slice(16 * step, 16 * step + 16)
        loss = model(images[at].astype(float), random_visible(16, model.grid, model.n_visible, rng))
        return loss, loss.reshape(1)

    return model, batch


# ---------------------------------------------------------------- float32 metrics


def train_again(folder: Path) -> list[dict[str, str]]:
    """Train on the digits for three epochs by the command line; return the rows of metrics.csv."""
    command = ["train", "--data", "digits", "--epochs", str(EPOCHS), "--threads", str(THREADS)]
    if main([*command, "--out", str(folder)]):
        raise RuntimeError("the training failed")
    return rows_of(folder / "metrics.csv")


def rows_of(path: Path) -> list[dict[str, str]]:
    """Return the rows of a metrics.csv as text, without the seconds."""
    with path.open(newline="") as file:
        return [
            {key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)
        ]


def place() -> dict[str, str]:
    """Return what float32 rounding depends on: processor, BLAS kernel, NumPy, Numba and threads."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    identity = ("model name", "cpu family", "model")
    found = {line.split(":")[0].strip(): line.split(":")[1].strip() for line in lines if ":" in line}
    blas = [library.get("architecture") for library in threadpool_info() if library["user_api"] == "blas"]
    processor = " ".join(found.get(key, "") for key in identity) if found else platform.processor()
    loops = "none" if why_not() else version("numba")
    versions = {"numpy": np.__version__, "numba": loops}
    return {"processor": processor, "blas": f"{blas}", **versions, "threads": f"{THREADS}"}


if __name__ == "__main__":
    if sys.argv[1:] == ["values"]:
        arrays = {f"{case}|{key}": array for case in CASES for key, array in values(case).items()}
        np.savez_compressed(HERE / "values.npz", **arrays)
    elif sys.argv[1:] == ["metrics"]:
        with TemporaryDirectory() as folder:
            rows = train_again(Path(folder) / "run")
        (HERE / "metrics.json").write_text(json.dumps({"place": place(), "rows": rows}, indent=1) + "\n")
    else:
        sys.exit(__doc__)
