"""Record whole trainings through the command line: python -m benchmarks.runs fashion-mnist RUNS

Trains every variant of an experiment with every seed. Each training is a run in a folder of its own, with one
thread; --jobs runs go on at a time. Then collects all runs into results/<experiment>.json and .png. A run
that exists already is resumed, and a finished run is only read, so an interruption loses nothing. Test
accuracy is that of the last epoch, not of the best.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, replace
from datetime import date
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.ablations import machine
from data_utils.download import cache_folder
from data_utils.events.fashion_dvs import read_settings
from minispike import no_grad, set_threads
from minispike.measure import viz
from minispike.measure.energy import count
from minispike.models import SpikingTransformer
from minispike.runs.cli import data_of
from minispike.runs.folder import Run
from minispike.runs.recipes import PRETRAINING as MASKED
from minispike.runs.recipes import RECIPES, resolve

RESULTS = Path(__file__).parent / "results"
COUNTED = 100  # test samples on which operations are counted
PRETRAINING, SIMULATED = "V2's pre-training", "fashion-dvs"
V2, DVS = "spikformer_v2_2_64_fashion", "attention_free_{}_2_64_fashion_dvs"
EXPERIMENTS: dict[str, dict[str, tuple[str, dict, str]]] = {  # variant: (model, options, starting point)
    "fashion-mnist": {
        "Spikformer": ("spikformer_2_64_fashion", {}, ""),
        "Attention-free, 1-D Fourier": ("attention_free_fft1d_2_64_fashion", {}, ""),
        "SAFormer": ("saformer_2_64_fashion", {}, ""),
        PRETRAINING: (V2, {"epochs": 2}, ""),
        "Spikformer V2": (V2, {}, ""),
        "Spikformer V2, pre-trained": (V2, {"epochs": 3}, PRETRAINING),
    },
    "fashion-dvs": {
        "SSA": ("spikformer_2_64_fashion_dvs", {"epochs": 4}, ""),
        "1-D Fourier": (DVS.format("fft1d"), {"epochs": 4}, ""),
        "2-D Fourier": (DVS.format("fft2d"), {"epochs": 4}, ""),
        "Haar": (DVS.format("haar"), {"epochs": 4}, ""),
        "SASA + DWC": ("saformer_2_64_fashion_dvs", {"epochs": 4}, ""),
        "identity (control)": (DVS.format("identity"), {"epochs": 4}, ""),
        "random (control)": (DVS.format("random"), {"epochs": 4}, ""),
    },
}


def folder_of(variant: str, seed: int, root: Path) -> Path:
    return root / f"{variant.replace(' ', '_')}.{seed}"


def train(experiment: str, variant: str, seed: int, root: Path) -> None:
    """Train a run to its end: start it, or resume it where it stopped."""
    model, options, first = EXPERIMENTS[experiment][variant]
    folder = folder_of(variant, seed, root)
    options = {"model": model, "seed": seed, "threads": 1} | options
    data = options.pop("data", experiment)
    options |= {"init": str(folder_of(first, seed, root).resolve())} if first else {}
    if (folder / "config.json").exists():
        run = Run.open(folder)
        recipe = resolve(data, MASKED if variant == PRETRAINING else RECIPES, **options)
        found = {name: getattr(run.recipe, name) for name in ("root", "init")}  # folders may have moved
        odd = run.recipe.differences(replace(recipe, T=recipe.T or run.recipe.T, **found))
        if odd:
            raise SystemExit(f"{folder} is a run of another recipe ({', '.join(odd)}): take another folder")
        if finished(run):
            return
        options = {"resume": folder}
    else:
        options |= {"data": data, "out": folder}
    command = [sys.executable, "-m", "minispike", "pretrain" if variant == PRETRAINING else "train"]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    log = root / f"{folder.name}.log"
    with log.open("a") as file:
        subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=True)
    lines = [line for line in log.read_text().splitlines() if line.startswith("epoch")]
    print(f"{variant}, seed {seed}: {lines[-1]}", flush=True)


def run_all(experiment: str, seeds: Iterable[int], root: Path, jobs: int) -> list[dict]:
    """Train every variant with every seed, `jobs` at a time, and return the results of all runs."""
    root.mkdir(parents=True, exist_ok=True)
    variants = EXPERIMENTS[experiment]
    print(f"logs: {root}/*.log", flush=True)
    running: dict = {}

    def work(seed: int, variant: str) -> None:
        first = variants[variant][2]
        if first:  # this job was submitted before
            running[seed, first].result()
        train(experiment, variant, seed, root)

    with ThreadPoolExecutor(jobs) as pool:
        for pair in product(seeds, variants):
            running[pair] = pool.submit(work, *pair)
        try:
            for job in as_completed(running.values()):
                job.result()
        except BaseException:  # Ctrl-C, or a run that failed: start no other run
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [collect(experiment, *pair[::-1], root) for pair in running]


def finished(run: Run) -> bool:
    return len(run.read_metrics()) == run.recipe.epochs


def minutes_of(experiment: str, variant: str, seed: int, root: Path) -> float:
    """Return how many minutes a run took by the clock, with its tests and the run that it started from.

    This is the sum of its epochs' seconds. It leaves out starting and drawing, which take some seconds, and
    interruptions.
    """
    folder, first = folder_of(variant, seed, root), EXPERIMENTS[experiment][variant][2]
    minutes = sum(row["seconds"] for row in Run.open(folder).read_metrics()) / 60
    return minutes + (minutes_of(experiment, first, seed, root) if first else 0)


def collect(experiment: str, variant: str, seed: int, root: Path) -> dict:
    """Return the results of a run. Raises SystemExit if the run is not finished."""
    run = Run.open(folder_of(variant, seed, root))
    if not finished(run):
        raise SystemExit(f"{run.folder} is not finished")
    rows, saved = run.read_metrics(), run.newest()
    first = EXPERIMENTS[experiment][variant][2]
    found = {"variant": variant, "seed": seed}
    found |= {"recipe": asdict(run.recipe) | {"root": "", "init": first}}  # without the folders' places
    found |= {"parameters": saved.model.num_params()}
    found |= {"minutes": round(minutes_of(experiment, variant, seed, root), 1)}
    found |= {"minutes_before": round(minutes_of(experiment, first, seed, root), 1) if first else 0.0}
    if "test_accuracy" in rows[-1]:
        _, test, _ = data_of(run.recipe)
        set_threads(run.recipe.threads)  # rounding depends on it
        counted = count(saved.model, test.spread(COUNTED)[0])
        joules = {column: counted.joules(column) for column in ("paper", "strict", "events")}
        found |= {"test_accuracy": rows[-1]["test_accuracy"], "macs_a_step": counted.macs()}
        found |= {"energy_nj": {column: round(1e9 * each, 1) for column, each in joules.items()}}
        found |= {"additions": round(counted.total("events").ac)}
        answers = right(saved.model, test)
        if answers.mean() != rows[-1]["test_accuracy"]:
            raise SystemExit(f"{run.folder}: {answers.mean()} of the test samples right, metrics.csv differs")
        found |= {"tested": answers.size, "right": np.packbits(answers).tobytes().hex()}
    return found | {"curve": rows}


def right(model: SpikingTransformer, test: Iterable) -> np.ndarray:
    """Return, for each test sample in order, whether the model's answer is right: bool [n]."""
    model.eval()
    with no_grad():
        answers = [(model(images).data.argmax(1), labels) for images, labels in test]
    return np.concatenate([answer == labels for answer, labels in answers])


def table(runs: list[dict]) -> str:
    """Return a Markdown table: accuracy with its spread, time, size and energy of each variant.

    With several seeds, it also has each variant's difference to the first, with two standard errors. "By
    images" is what other test images would change; it follows from how many seeds are right on each image.
    "By seeds" is what other seeds would change; it follows from the spread of accuracies, which is taken as
    the same for all variants.
    """
    found: dict[str, list[dict]] = {}
    for run in runs:
        if "test_accuracy" in run:
            found.setdefault(run["variant"], []).append(run)
    accuracy = {
        variant: 100 * np.array([run["test_accuracy"] for run in each]) for variant, each in found.items()
    }
    first, seeds = next(iter(accuracy.values())), min(map(len, accuracy.values()))
    head = "| variant | test accuracy | epochs | at most | parameters | MACs a step | energy (paper) |"
    if seeds > 1:
        error = np.sqrt(2 / seeds * np.mean([points.var(ddof=1) for points in accuracy.values()]))
        head = head.replace("accuracy |", f"accuracy | difference ± by images (by seeds ± {error:.2f}) |")
    lines = [head, "|---" * (head.count("|") - 1) + "|"]
    for variant, each in found.items():
        points = accuracy[variant]
        minutes, energy = ([run[key] for run in each] for key in ("minutes", "energy_nj"))
        before = [run for run in runs if run["variant"] == each[0]["recipe"]["init"]]
        cells = [variant, f"{points.mean():.2f} %"]
        if seeds > 1:
            cells[1] += f" ({points.min():.2f} … {points.max():.2f})"
            gap, image_error = difference(each, next(iter(found.values())))
            cells += ["" if points is first else f"{gap:+.2f} ± {image_error:.2f}"]
        cells += [" + ".join(str(len(run["curve"])) for run in (*before[:1], each[0]))]
        cells += [f"{max(minutes):.0f} min", f"{each[0]['parameters']:,}"]
        cells += [f"{each[0]['macs_a_step'] / 1e6:.1f} M"]
        cells += [f"{sum(e['paper'] for e in energy) / len(each) / 1e3:.2f} µJ"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def difference(runs: list[dict], others: list[dict]) -> tuple[float, float]:
    """Return by how many points `runs` are better than `others`, and the standard error over images."""
    shares = []
    for each in (runs, others):
        bits = [np.unpackbits(np.frombuffer(bytes.fromhex(run["right"]), "uint8")) for run in each]
        shares.append(np.mean([row[: run["tested"]] for row, run in zip(bits, each, strict=True)], 0))
    gaps = 100 * (shares[0] - shares[1])  # [n]: of each image, how much more often than the others
    return gaps.mean(), gaps.std(ddof=1) / np.sqrt(gaps.size)


def draw(experiment: str, runs: list[dict]) -> None:
    """Draw each seed's accuracy and, next to it, the seeds' mean over minutes, with pre-training."""
    fig, (ends, course) = viz.figure(1, 2, size=(11, 4.2))
    variants: dict[str, list[dict]] = {}
    for run in runs:
        if "test_accuracy" in run:
            variants.setdefault(run["variant"], []).append(run)
    for place, each in enumerate(variants.values()):
        share, color = np.mean([run["test_accuracy"] for run in each]), f"C{place}"
        error = 200 * np.sqrt(share * (1 - share) / each[0]["tested"])
        ends.errorbar(100 * share, place, xerr=error, color=viz.GREY, capsize=3, zorder=0)
        ends.plot([100 * run["test_accuracy"] for run in each], [place] * len(each), "o", color=color)
        curves = 100 * np.mean([[row["test_accuracy"] for row in run["curve"]] for run in each], 0)
        passed = [np.cumsum([row["seconds"] / 60 for row in run["curve"]]) for run in each]
        before = [run["minutes_before"] for run in each]
        course.plot(np.mean(before) + np.mean(passed, 0), curves, "o-", color=color, markersize=4)
    ends.set_yticks(range(len(variants)), variants)
    ends.invert_yaxis()
    ends.set(xlabel="test accuracy, %", title="each seed; bars: ± 2 standard errors (images)")
    course.set(xlabel="minutes of training, one thread", ylabel="test accuracy, %")
    course.set_title("mean of the seeds (colours: left)")
    fig.suptitle(f"{experiment} (simulated events)" if experiment == SIMULATED else experiment)
    fig.savefig(RESULTS / f"{experiment}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", choices=list(EXPERIMENTS))
    parser.add_argument("folder", type=Path, help="the folder of all runs")
    parser.add_argument("--jobs", type=int, default=2, help="number of runs at a time (default 2)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    args = parser.parse_args()
    runs = run_all(args.experiment, args.seeds, args.folder, args.jobs)
    seeds = " ".join(map(str, args.seeds))
    command = f"python -m benchmarks.runs {args.experiment} RUNS --jobs {args.jobs} --seeds {seeds}"
    record = {"command": command, "date": date.today().isoformat(), "machine": machine()}
    if args.experiment == SIMULATED:
        folder = Run.open(folder_of(runs[0]["variant"], runs[0]["seed"], args.folder)).recipe.root
        record["data"] = read_settings(folder or cache_folder() / SIMULATED)
    record |= {"energy_of": f"{COUNTED} test samples", "runs": runs}
    path = RESULTS / f"{args.experiment}.json"
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(table(runs))
    draw(args.experiment, runs)


if __name__ == "__main__":
    main()
