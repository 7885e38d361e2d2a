"""Count the energy of trained digits models, for each mixer, T and seed: python -m benchmarks.energy

Trains the models that are not yet in runs/energy, for 20 epochs each, as the other benchmarks do. Then counts
the operations of each model on the 360 test digits, runs one model event by event in float64 and in float32,
and writes results/energy.json.
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.ablations import FREE, machine
from data_utils.images.digits import load_digits
from lessons.common import train_on_digits
from lessons.event_machine import EventMachine
from minispike import create_model, evaluate, no_grad
from minispike.files.checkpoint import load, save
from minispike.measure import viz
from minispike.measure.energy import COLUMNS, PARTS, PICOJOULES, count

MIXERS = {  # name: (model, overrides)
    "ssa": ("spikformer_1_64_digits", {}),
    **{m: (FREE, dict(mixer=m)) for m in ("fft1d", "fft2d", "haar", "wavelets")},
    "sasa": ("saformer_1_64_digits", dict(dwc=None)),
    "sasa+dwc": ("saformer_1_64_digits", {}),
    "identity": (FREE, dict(mixer="identity")),
}
STEPS = (1, 2, 4)
SEEDS = (10, 11, 12)
MODELS = Path("runs/energy")  # trained models are kept here, so a new way to count needs no new training
RESULTS = Path(__file__).parent / "results"


def trained(mixer: str, T: int, seed: int):
    """Return the small digits model with this mixer after 20 epochs, read from MODELS if it is there."""
    path = MODELS / f"{mixer}_T{T}_seed{seed}.safetensors"
    if path.exists():
        return load(path)
    name, overrides = MIXERS[mixer]
    model = create_model(name, T=T, rng=seed, **overrides)
    train_on_digits(model, seed=seed, progress=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(model, path)
    return model


def measure(mixer: str, T: int, seed: int, images, labels) -> dict:
    """Return a model's record: accuracy, MACs per step, nJ per image by column and part, active shares."""
    model = trained(mixer, T, seed)
    found = count(model, images)
    return {
        "mixer": mixer,
        "T": T,
        "seed": seed,
        "test_accuracy": evaluate(model, [(images, labels)])[1],
        "macs_a_step": found.macs(),
        "nJ": {c: {part: round(1e9 * found.joules(c, part), 2) for part in PARTS} for c in COLUMNS},
        "active_shares": {row.label: round(row.active_share, 4) for row in found.rows},
    }


def by_events(images) -> dict:
    """Run one model event by event and as a network, in both precisions; return how they differ."""
    model, found = trained("ssa", 4, 10).eval(), {"model": "ssa, T = 4, seed 10", "images": len(images)}
    for dtype in ("float64", "float32"):
        model.to(dtype=dtype)
        net, events = images.astype(dtype), EventMachine(model)
        logits, spikes = events(net), viz.spikes_of(model, net)
        with no_grad():
            expected = model(net).data
        rows = count(model, net).rows
        found[dtype] = {
            "spikes": int(sum(s.sum() for s in spikes.values())),
            "differ": int(sum((s != events.spikes[path]).sum() for path, s in spikes.items())),
            "logits_differ_by": float(abs(logits - expected).max()),
            "predictions_agree": int((logits.argmax(1) == expected.argmax(1)).sum()),
            "additions": sum(events.additions.values()),
            "additions_counted": int(sum(row.events.ac for row in rows)),
        }
    return found


def main() -> None:
    images, labels = load_digits()[1]
    runs = [(mixer, T, seed) for T in STEPS for mixer in MIXERS for seed in SEEDS]
    record = {
        "command": "python -m benchmarks.energy",
        "date": date.today().isoformat(),
        "machine": machine(),
        "picojoules": PICOJOULES,
        "runs": [measure(*run, images, labels) for run in tqdm(runs, desc="models")],
        "by_events": by_events(images),
    }
    (RESULTS / "energy.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print("| mixer | T | accuracy | MACs per step | paper | strict | events |\n|---|---|---|---|---|---|---|")
    for T in STEPS:
        for mixer in MIXERS:
            print(line(record["runs"], mixer, T))
    for dtype in ("float64", "float32"):
        print(f"event by event, {dtype}: {record['by_events'][dtype]}")


def line(runs: list[dict], mixer: str, T: int) -> str:
    """Return a mixer's row of the table: means over seeds and, in brackets, the change against SSA."""

    def mean(name, f):
        return float(np.mean([f(run) for run in runs if (run["mixer"], run["T"]) == (name, T)]))

    accuracy, macs = mean(mixer, lambda r: r["test_accuracy"]), mean(mixer, lambda r: r["macs_a_step"])
    cells = []
    for column in COLUMNS:
        energy, ssa = (mean(name, lambda r, c=column: sum(r["nJ"][c].values())) for name in (mixer, "ssa"))
        cells.append(f"{energy:,.0f} nJ ({energy / ssa - 1:+.0%})")
    return f"| {mixer} | {T} | {accuracy:.1%} | {macs / 1e6:.2f} M | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
