"""The four papers' small models on Fashion-MNIST, through the command line: python -m benchmarks.fashion

Trains each model in a run of its own (one thread each, as many at a time as --jobs says), then collects all
runs into results/fashion.json and results/fashion.png. A run that is there already is gone on with, and a
finished one is only read, so an interruption loses nothing. Test accuracy is the last epoch's, not the best.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

from benchmarks.ablations import machine
from data_utils.mnist import load_fashion_mnist
from minispike import viz
from minispike.energy import count
from minispike.run import Run

RESULTS = Path(__file__).parent / "results"
V2 = "spikformer_v2_2_64_fashion"
MODELS = {  # name: (model, epochs, the run it begins with)
    "Spikformer": ("spikformer_2_64_fashion", 3, None),
    "Attention-free, 1-D Fourier": ("attention_free_fft1d_2_64_fashion", 3, None),
    "SAFormer": ("saformer_2_64_fashion", 3, None),
    "Spikformer V2": (V2, 2, None),
    "Spikformer V2, pre-trained": (V2, 1, "V2 pre-training"),
}
PRETRAINING = {"V2 pre-training": (V2, 2, None)}
COUNTED = 200  # test images on which operations are counted


def train(name: str, folder: Path, seed: int) -> None:
    """Train a run to its end, from wherever it stands."""
    model, epochs, init = (MODELS | PRETRAINING)[name]
    if (folder / name / "config.json").exists():
        arguments = ["--resume", folder / name]
    else:
        arguments = ["--data", "fashion-mnist", "--model", model, "--epochs", epochs, "--batch-size", 32]
        arguments += ["--seed", seed, "--threads", 1, "--out", folder / name]
        arguments += ["--init", folder / init] if init else []
    command = [sys.executable, "-m", "minispike", "pretrain" if name in PRETRAINING else "train"]
    with (folder / f"{name}.log").open("a") as log:
        subprocess.run([*command, *map(str, arguments)], stdout=log, stderr=subprocess.STDOUT, check=True)
    print(f"{name}: {(folder / f'{name}.log').read_text().splitlines()[-3]}", flush=True)


def collect(name: str, folder: Path) -> dict:
    """Return what a finished run has come to."""
    run = Run.open(folder / name)
    rows, model = run.read_metrics(), run.newest().model
    if len(rows) < run.recipe.epochs:
        raise SystemExit(f"{folder / name} is not finished: {len(rows)} of {run.recipe.epochs} epochs")
    began, ended = ((run.folder / file).stat().st_mtime for file in ("config.json", "metrics.csv"))
    found = {
        "name": name,
        "model": run.recipe.model,
        "recipe": json.loads(run.recipe.to_json()),
        "parameters": model.num_params(),
        "training_seconds": round(sum(row["seconds"] for row in rows)),
        "wall_seconds": round(ended - began),  # with tests and pictures; true if the run was not interrupted
        "curve": rows,
    }
    if "test_accuracy" in rows[-1]:
        counted = count(model, load_fashion_mnist()[1][0][:COUNTED])
        found["test_accuracy"] = rows[-1]["test_accuracy"]
        found["macs_a_step"] = counted.macs()
        found["energy_nj"] = {
            column: round(1e9 * counted.joules(column), 1) for column in ("paper", "strict", "events")
        }
    return found


def draw(runs: list[dict]) -> None:
    """Draw each run's test accuracy over its minutes of training."""
    fig, ax = viz.figure(size=(7, 4))
    for run in runs:
        minutes, passed = [], 0.0
        for row in run["curve"]:
            passed += row["seconds"] / 60
            minutes.append(passed)
        ax.plot(minutes, [100 * row["test_accuracy"] for row in run["curve"]], "o-", label=run["name"])
    ax.set(xlabel="minutes of training, one thread", ylabel="test accuracy, %", title="Fashion-MNIST, T = 4")
    ax.legend(frameon=False, loc="lower right")
    fig.savefig(RESULTS / "fashion.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the runs are, or will be")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (default 2)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)

    def one(name: str) -> None:
        begins_with = (MODELS | PRETRAINING)[name][2]
        if begins_with:
            train(begins_with, args.folder, args.seed)
        train(name, args.folder, args.seed)

    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(one, MODELS))
    runs = {name: collect(name, args.folder) for name in MODELS | PRETRAINING}
    command = f"python -m benchmarks.fashion RUNS --jobs {args.jobs} --seed {args.seed}"
    record = {"command": command, "date": date.today().isoformat(), "machine": machine()}
    text = json.dumps(record | {"runs": list(runs.values())}, indent=1) + "\n"
    (RESULTS / "fashion.json").write_text(text, encoding="utf-8")
    print("| model | test accuracy | epochs | training | parameters | MACs a step | energy, paper's column |")
    print("|---|---|---|---|---|---|---|")
    for name in MODELS:
        run = runs[name]
        minutes, energy = run["training_seconds"] / 60, run["energy_nj"]["paper"] / 1e3
        told = f"{run['test_accuracy']:.2%} | {len(run['curve'])} | {minutes:.0f} min | {run['parameters']:,}"
        print(f"| {name} | {told} | {run['macs_a_step'] / 1e6:.1f} M | {energy:.1f} µJ |")
    draw([runs[name] for name in MODELS])


if __name__ == "__main__":
    main()
