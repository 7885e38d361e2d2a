"""Whole trainings through the command line, recorded: python -m benchmarks.runs fashion-mnist RUNS

Trains every variant of an experiment with every seed, each in a run of its own (one thread each, --jobs at a
time), then collects them into results/<experiment>.json and .png. A run that is there already is gone on
with, and a finished one is only read, so an interruption loses nothing. Test accuracy is the last epoch's,
not the best over epochs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import date
from itertools import product
from pathlib import Path

from benchmarks.ablations import machine
from minispike import viz
from minispike.__main__ import data_of
from minispike.energy import count
from minispike.run import Run

RESULTS = Path(__file__).parent / "results"
COUNTED = 100  # test samples on which operations are counted
V2, DVS = "spikformer_v2_2_64_fashion", "attention_free_{}_2_64_fashion_dvs"
EXPERIMENTS: dict[str, dict[str, tuple[str, int, str]]] = {  # variant: (model, epochs, what it begins with)
    "fashion-mnist": {
        "Spikformer": ("spikformer_2_64_fashion", 3, ""),
        "Attention-free, 1-D Fourier": ("attention_free_fft1d_2_64_fashion", 3, ""),
        "SAFormer": ("saformer_2_64_fashion", 3, ""),
        "Spikformer V2": (V2, 2, ""),
        "V2's pre-training": (V2, 2, ""),
        "Spikformer V2, pre-trained": (V2, 1, "V2's pre-training"),
    },
    "fashion-dvs": {
        "SSA": ("spikformer_2_64_fashion_dvs", 4, ""),
        "1-D Fourier": (DVS.format("fft1d"), 4, ""),
        "2-D Fourier": (DVS.format("fft2d"), 4, ""),
        "Haar": (DVS.format("haar"), 4, ""),
        "SASA + DWC": ("saformer_2_64_fashion_dvs", 4, ""),
        "identity (control)": (DVS.format("identity"), 4, ""),
        "random (control)": (DVS.format("random"), 4, ""),
    },
}


def folder_of(variant: str, seed: int, root: Path) -> Path:
    return root / f"{variant.replace(' ', '_')}.{seed}"


def train(experiment: str, variant: str, seed: int, root: Path) -> None:
    """Train a run to its end, from wherever it stands."""
    model, epochs, first = EXPERIMENTS[experiment][variant]
    folder, arguments = folder_of(variant, seed, root), []
    if (folder / "config.json").exists():
        arguments = ["--resume", folder]
    else:
        arguments = ["--data", experiment, "--model", model, "--epochs", epochs, "--batch-size", 32]
        arguments += ["--seed", seed, "--threads", 1, "--out", folder]
        arguments += ["--init", folder_of(first, seed, root)] if first else []
    command = [sys.executable, "-m", "minispike", "pretrain" if "pre-training" in variant else "train"]
    log = root / f"{folder.name}.log"
    with log.open("a") as file:
        subprocess.run([*command, *map(str, arguments)], stdout=file, stderr=subprocess.STDOUT, check=True)
    lines = [line for line in log.read_text().splitlines() if line.startswith("epoch")]
    print(f"{variant}, seed {seed}: {lines[-1]}", flush=True)


def collect(variant: str, seed: int, root: Path) -> dict:
    """Return what a run has come to. SystemExit for one that is not finished."""
    run = Run.open(folder_of(variant, seed, root))
    rows, saved = run.read_metrics(), run.newest()
    if len(rows) < run.recipe.epochs:
        raise SystemExit(f"{run.folder} is not finished: {len(rows)} of {run.recipe.epochs} epochs")
    began, ended = ((run.folder / file).stat().st_mtime for file in ("config.json", "metrics.csv"))
    found = {"variant": variant, "seed": seed, "recipe": asdict(run.recipe)}
    found |= {"parameters": saved.model.num_params()}
    found |= {"training_seconds": round(sum(row["seconds"] for row in rows))}
    found |= {"wall_seconds": round(ended - began)}  # tests and pictures included; of an uninterrupted run
    if "test_accuracy" in rows[-1]:
        images, _ = next(iter(data_of(run.recipe)[1]))
        counted = count(saved.model, images[..., :COUNTED, :, :, :])
        joules = {column: counted.joules(column) for column in ("paper", "strict", "events")}
        found |= {"test_accuracy": rows[-1]["test_accuracy"], "macs_a_step": counted.macs()}
        found |= {"energy_nj": {column: round(1e9 * each, 1) for column, each in joules.items()}}
    return found | {"curve": rows}


def table(runs: list[dict]) -> str:
    """Return accuracy with its spread, time, size and energy of each variant, as Markdown."""
    lines = ["| variant | test accuracy | epochs | training | parameters | MACs a step | energy (paper) |"]
    lines.append("|---|---|---|---|---|---|---|")
    for variant in dict.fromkeys(run["variant"] for run in runs if "test_accuracy" in run):
        each = [run for run in runs if run["variant"] == variant]
        points = [run["test_accuracy"] for run in each]
        seconds, energy = ([run[key] for run in each] for key in ("training_seconds", "energy_nj"))
        spread = f" ({min(points):.2%} … {max(points):.2%})" if len(points) > 1 else ""
        cells = [variant, f"{sum(points) / len(points):.2%}{spread}", str(len(each[0]["curve"]))]
        cells += [f"{sorted(seconds)[len(each) // 2] / 60:.0f} min", f"{each[0]['parameters']:,}"]
        cells += [f"{each[0]['macs_a_step'] / 1e6:.1f} M"]
        cells += [f"{sum(e['paper'] for e in energy) / len(each) / 1e3:.2f} µJ"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(experiment: str, runs: list[dict]) -> None:
    """Draw each variant's test accuracy over its minutes of training."""
    fig, ax = viz.figure(size=(7.5, 4.2))
    variants = list(dict.fromkeys(run["variant"] for run in runs if "test_accuracy" in run))
    for run in runs:
        if run["variant"] not in variants:
            continue
        number, minutes, passed = variants.index(run["variant"]), [], 0.0
        for row in run["curve"]:
            passed += row["seconds"] / 60
            minutes.append(passed)
        label = run["variant"] if run["seed"] == runs[0]["seed"] else None
        points = [100 * row["test_accuracy"] for row in run["curve"]]
        ax.plot(minutes, points, "o-", color=f"C{number}", label=label, markersize=4)
    ax.set(xlabel="minutes of training, one thread", ylabel="test accuracy, %", title=experiment)
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    fig.savefig(RESULTS / f"{experiment}.png", bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", choices=list(EXPERIMENTS))
    parser.add_argument("folder", type=Path, help="where the runs are, or will be")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (default 2)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    variants = EXPERIMENTS[args.experiment]
    for later in (False, True):  # what begins with another run comes after it
        pairs = product(
            args.seeds, [name for name, (_, _, first) in variants.items() if bool(first) == later]
        )
        with ThreadPoolExecutor(args.jobs) as pool:
            jobs = [pool.submit(train, args.experiment, name, seed, args.folder) for seed, name in pairs]
            for job in jobs:
                job.result()
    runs = [collect(name, seed, args.folder) for name, seed in product(variants, args.seeds)]
    seeds = " ".join(map(str, args.seeds))
    command = f"python -m benchmarks.runs {args.experiment} RUNS --jobs {args.jobs} --seeds {seeds}"
    record = {"command": command, "date": date.today().isoformat(), "machine": machine(), "runs": runs}
    path = RESULTS / f"{args.experiment}.json"
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(table(runs))
    draw(args.experiment, runs)


if __name__ == "__main__":
    main()
