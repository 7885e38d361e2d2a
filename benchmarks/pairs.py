"""A task that needs mixing: python -m benchmarks.pairs RUNS [--jobs 2] [--seeds 1 2 3] [--depths 1 2]

Trains each rung of a ladder of mixers on pairs of digits (data_utils/images/pairs.py), from no mixing to
attention, in the same network. Every run is a process with one thread and writes one JSON file into RUNS; a
run whose file exists is only read, so an interruption loses the running ones alone. When all are there,
results/pairs.json and pairs.png are written. --twin trains the non-spiking twin of SSA, and SSA, on the
digits, too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
from itertools import product
from math import log
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.ablations import machine
from data_utils.images.pairs import GAP, open_pairs
from lessons.common import train_on_digits
from minispike import create_model, fit, set_threads
from minispike.measure import viz
from minispike.measure.energy import count
from minispike.optim import AdamW, cosine_with_warmup
from minispike.train import classify, set_gains

RESULTS = Path(__file__).parent / "results"
EPOCHS, CHANCE = 40, log(2)
MODEL, SAFORMER = "attention_free_{}_1_64_pairs", "saformer_1_64_pairs"
SSA, TWIN = "spikformer_1_64_pairs", {"spiking": False, "T": 1}
LADDER: dict[str, tuple[str, dict]] = {  # rung: the model's name, and what is changed in it
    "identity": (MODEL.format("identity"), {}),
    "random matrix": (MODEL.format("random"), {}),
    "max-pool 3×3": (MODEL.format("maxpool"), {}),
    "depthwise 3×3": (MODEL.format("depthwise"), {}),
    "1-D Fourier": (MODEL.format("fft1d"), {}),
    "2-D Fourier": (MODEL.format("fft2d"), {}),
    "Haar": (MODEL.format("haar"), {}),
    "learned wavelets": (MODEL.format("wavelets"), {}),
    "learned matrix": (MODEL.format("static"), {}),
    "SSA, q and k frozen": (SSA, {"frozen": True}),
    "SSA": (SSA, {}),
    "SASA, pool": (SAFORMER, {"aggregate": "pool"}),
    "SASA, global": (SAFORMER, {"aggregate": "global"}),
    "SASA, channel": (SAFORMER, {"aggregate": "channel"}),
    "softmax attention": (MODEL.format("softmax"), {}),
    "SSA without spikes": (SSA, TWIN),
}
CONTROL = "identity, no gap"  # tokens that see both digits need no mixing

# ---------------------------------------------------------------- one run


def train(rung: str, depth: int, seed: int) -> dict:
    """Train one rung on pairs; return its curves, and what it is and costs."""
    set_threads(1)
    name, changes = LADDER["identity" if rung == CONTROL else rung]
    gap = 0 if rung == CONTROL else GAP
    model = create_model(name, rng=seed, depth=depth, img_size=(8, 16 + gap), **changes)
    set_gains(model, 2.0)
    batches, test = open_pairs(32, seed, gap)
    rate = partial(cosine_with_warmup, epochs=EPOCHS, lr=3e-3, min_lr=1e-5)
    objective = partial(classify, label_smoothing=0.1)
    options = {"epochs": EPOCHS, "schedule": rate, "objective": objective, "test": test, "progress": False}
    history = fit(model, AdamW(model.parameters(), weight_decay=0.06), batches, **options)
    counted = count(model.eval(), test.spread(100)[0])
    return {
        "rung": rung,
        "depth": depth,
        "seed": seed,
        "parameters": model.num_params(),
        "nJ": {column: round(1e9 * counted.joules(column)) for column in ("paper", "strict", "events")},
        "test_loss": [round(record["test_loss"], 4) for record in history],
        "test_accuracy": [round(record["test_accuracy"], 4) for record in history],
        "seconds": round(sum(record["seconds"] for record in history)),
    }


def twin(rung: str, depth: int, seed: int) -> dict:
    """Train SSA on the digits, with spikes (rung "digits, SSA") or without."""
    set_threads(1)
    changes = TWIN if "without" in rung else {}
    model = create_model("spikformer_1_64_digits", rng=seed, depth=depth, **changes)
    history = train_on_digits(model, seed=seed, progress=False)
    row = {"rung": rung, "depth": depth, "seed": seed, "parameters": model.num_params()}
    for key in ("test_loss", "test_accuracy"):
        row[key] = [round(record[key], 4) for record in history if key in record]
    return row


DIGITS = {"digits, SSA": twin, "digits, SSA without spikes": twin}

# ---------------------------------------------------------------- all runs


def run_all(jobs: list[tuple[str, int, int]], root: Path, at_a_time: int) -> list[dict]:
    """Return the results of all jobs, each in a process of its own, unless its file exists."""
    root.mkdir(parents=True, exist_ok=True)

    def path_of(job) -> Path:
        rung, depth, seed = job
        return root / f"{rung.replace(' ', '_').replace(',', '')}.{depth}.{seed}.json"

    def run(job) -> None:
        if not path_of(job).exists():
            command = [sys.executable, "-m", "benchmarks.pairs", "--one", *map(str, job), str(root)]
            text = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            part = path_of(job).with_suffix(".part")
            part.write_text(text.strip().splitlines()[-1] + "\n", "utf-8")
            part.rename(path_of(job))

    with ThreadPoolExecutor(at_a_time) as pool:
        for _ in tqdm(pool.map(run, jobs), total=len(jobs), desc="runs"):
            pass
    return [json.loads(path_of(job).read_text("utf-8")) for job in jobs]


def leaves_chance(losses: list[float]) -> int | None:
    """Return the first epoch from which on the test loss stays below 0.95 ln 2, or None."""
    below = [loss < 0.95 * CHANCE for loss in losses]
    return next((n + 1 for n in range(len(below)) if all(below[n:])), None)


def summary(runs: list[dict]) -> list[dict]:
    """Return a row for each rung and depth: means over seeds with their standard errors."""
    found = defaultdict(list)
    for run in runs:
        found[run["rung"], run["depth"]].append(run)
    rows = []
    for (rung, depth), each in found.items():
        row = {"rung": rung, "depth": depth, "seeds": len(each), "parameters": each[0]["parameters"]}
        for key, factor in (("test_accuracy", 100), ("test_loss", 1)):
            last = factor * np.array([run[key][-1] for run in each])
            error = last.std(ddof=1) / len(last) ** 0.5 if len(last) > 1 else float("nan")
            row[key] = [round(float(last.mean()), 4), round(float(error), 4)]
        row["leaves chance"] = [leaves_chance(run["test_loss"]) for run in each]
        if "nJ" in each[0]:
            row["nJ"] = {c: round(float(np.mean([run["nJ"][c] for run in each]))) for c in each[0]["nJ"]}
        rows.append(row)
    return rows


def table(rows: list[dict]) -> str:
    """Return a Markdown table of `summary`."""
    lines = ["| mixer | blocks | test accuracy | test loss | leaves chance in epoch | energy (paper) |"]
    lines.append("|---" * 6 + "|")
    for row in rows:
        accuracy, loss = row["test_accuracy"], row["test_loss"]
        epochs = ", ".join("–" if epoch is None else str(epoch) for epoch in row["leaves chance"])
        cells = [row["rung"], row["depth"], f"{accuracy[0]:.1f} ± {accuracy[1]:.1f} %"]
        cells += [f"{loss[0]:.3f} ± {loss[1]:.3f}", epochs]
        cells.append(f"{row['nJ']['paper'] / 1e3:.2f} µJ" if "nJ" in row else "")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def draw(runs: list[dict], path: Path) -> None:
    """Draw each rung's test loss over the epochs, a panel for each number of blocks, and a line at ln 2."""
    depths = sorted({run["depth"] for run in runs if run["rung"] in LADDER})
    fig, axes = viz.figure(1, len(depths), size=(6.4 * len(depths), 5))
    for ax, depth in zip(np.atleast_1d(axes).ravel(), depths, strict=True):
        ends = []
        for number, rung in enumerate(LADDER):
            curves = [run["test_loss"] for run in runs if (run["rung"], run["depth"]) == (rung, depth)]
            if not curves:
                continue
            mean = np.mean(curves, axis=0)
            colour = viz.GREY if rung == "identity" else f"C{number % 10}"
            style = "-" if number < 10 else "--"
            ax.plot(range(1, len(mean) + 1), mean, style, color=colour, lw=1.6)
            ends.append((mean[-1], rung, colour))
        ax.axhline(CHANCE, color=viz.INK, linestyle=":", lw=1)
        ax.text(1, CHANCE + 0.008, "ln 2: no mixing gets below", fontsize=8)
        label_ends(ax, ends, len(mean))
        ax.set(xlabel="epoch", ylabel="test loss (cross-entropy)")
        ax.set_title(f"{depth} block{'s' * (depth > 1)}", loc="left", fontsize=11)
    fig.savefig(path)


def label_ends(ax, ends: list[tuple], x: float) -> None:
    """Write each curve's name behind its end, one below the other where they would overlap."""
    step, last = 0.024, float("inf")
    for y, name, colour in sorted(ends, reverse=True):
        last = min(y, last - step)
        ax.annotate(name, (x, y), (x * 1.03, last), color=colour, fontsize=8, va="center",
                    arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.5})  # fmt: skip
    ax.set_xlim(0, x * 1.45)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="the folder of all runs")
    parser.add_argument("--jobs", type=int, default=2, help="number of runs at a time (default 2)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--depths", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--twin", action="store_true", help="also on the digits")
    parser.add_argument("--one", nargs=3, metavar=("RUNG", "DEPTH", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        rung, depth, seed = args.one
        print(json.dumps((DIGITS.get(rung) or train)(rung, int(depth), int(seed)), ensure_ascii=False))
        return
    os.environ.pop("OPENBLAS_CORETYPE", None)
    jobs = [(rung, depth, seed) for depth, seed, rung in product(args.depths, args.seeds, LADDER)]
    jobs += [(CONTROL, 1, seed) for seed in args.seeds]
    jobs += [(rung, 1, seed) for seed in args.seeds for rung in DIGITS if args.twin]
    runs = run_all(jobs, args.folder, args.jobs)
    rows = summary(runs)
    print(table(rows))
    command = f"python -m benchmarks.pairs RUNS --seeds {' '.join(map(str, args.seeds))}"
    record = {"command": command + " --twin" * args.twin, "date": str(date.today()), "machine": machine()}
    record |= {"epochs": EPOCHS, "rows": rows, "runs": runs}
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    (RESULTS / "pairs.json").write_text(text, "utf-8")
    draw(runs, RESULTS / "pairs.png")


if __name__ == "__main__":
    main()
