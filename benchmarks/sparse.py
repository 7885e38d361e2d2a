"""Train for fewer spikes, and measure what they save: python -m benchmarks.sparse RUNS

Fashion-MNIST, the small Spikformer and SAFormer, in three stages. Finished runs are only read, and a run that
stopped is resumed, so an interruption loses nothing (some hours on two cores).

    choose   Spikformer with each of PRICES, seed 0, tested on 6,000 held-out training pictures. The price is
             the largest that costs at most POINTS of accuracy there
    train    both on all pictures: without a price, with this one, half and twice of it, and at T = 1 and 2
    time     inference of the trained models, and of Spikformer-4-384 with inputs drawn at their active shares

Writes results/sparse.json and sparse.png. With --only STAGE, one stage.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import date
from pathlib import Path
from statistics import mean, median

for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):  # they would time another processor's products
    os.environ.pop(name, None)

import numpy as np  # noqa: E402
from tqdm import tqdm  # noqa: E402

from benchmarks.ablations import machine  # noqa: E402
from benchmarks.runs import EXPERIMENTS, folder_of, run_all  # noqa: E402
from benchmarks.sparsity import products_alone, with_drawn_inputs  # noqa: E402
from data_utils.datasets import open_data  # noqa: E402
from minispike import create_model, no_grad, set_threads, trace  # noqa: E402
from minispike.kernels.events import DENSE, products, use_products  # noqa: E402
from minispike.measure import viz  # noqa: E402
from minispike.measure.energy import COLUMNS, count  # noqa: E402
from minispike.parallel import blas_kernel, keep_freed_memory  # noqa: E402
from minispike.runs.folder import Run  # noqa: E402

RESULTS = Path(__file__).parent / "results"
MODELS = {"Spikformer": "spikformer_2_64_fashion", "SAFormer": "saformer_2_64_fashion"}
PRICES, POINTS, HELD_OUT = (0.1, 0.2, 0.5), 0.5, 0.1
FASHION = {"data": "fashion-mnist", "epochs": 3}  # of the recipe's five: two at T = 1, and the last at T
SHOWN = 64  # pictures in a batch whose inference is timed

# ---------------------------------------------------------------- choose, train


def variant_of(model: str, price: float = 0.0, T: int = 4) -> str:
    """Return what a table and a run's folder call a training."""
    return model + (f", price {price:g}" if price else "") + (f", T = {T}" if T != 4 else "")


def choose(root: Path, jobs: int) -> dict:
    """Return the price, and the accuracies on held-out pictures from which it was chosen."""
    model, name = next(iter(MODELS.items()))
    prices, options = (0.0, *PRICES), FASHION | {"val_split": HELD_OUT}
    EXPERIMENTS["choose"] = {
        variant_of(model, price): (name, options | {"spike_price": price}, "") for price in prices
    }
    runs = dict(zip(prices, run_all("choose", [0], root / "choose", jobs), strict=True))
    percent = {price: round(100 * run["test_accuracy"], 2) for price, run in runs.items()}
    good = [price for price in PRICES if percent[price] >= percent[0.0] - POINTS]
    additions = {price: run["additions"] for price, run in runs.items()}
    return {"price": max(good, default=PRICES[0]), "held_out_accuracy": percent, "additions": additions}


def train(price: float, seeds: list[int], root: Path, jobs: int) -> list[dict]:
    """Train all variants on all pictures, and return their results."""
    variants = {}
    for model, name in MODELS.items():
        for each in (0.0, price, price / 2, 2 * price):
            variants[variant_of(model, each)] = (name, FASHION | {"spike_price": each}, "")
        for T in (1, 2):
            variants[variant_of(model, T=T)] = (name, FASHION | {"T": T}, "")
    EXPERIMENTS["sparse"] = variants
    return run_all("sparse", seeds, root / "train", jobs)


# ---------------------------------------------------------------- time


def kind_of_layer(path: str) -> str:
    """Return the kind of a map by its place: stem, q/k/v, proj, fc1, fc2, or dwc."""
    place = path.split(".")
    names = dict.fromkeys("qkv", "q/k/v") | {name: name for name in ("proj", "fc1", "fc2", "dwc")}
    return "stem" if "stem" in place else next((names[part] for part in place if part in names), "head")


def shares_by_kind(model, images) -> dict[str, float]:
    """Return the mean active share of what enters each kind of map, without the one that sees the image."""
    found = defaultdict(list)
    for row in count(model, images).rows:
        if row.parameters and row.kind != "analog":
            found[kind_of_layer(row.path)].append(row.active_share)
    return {kind: round(mean(each), 4) for kind, each in found.items()}


def recorded_products(model, images) -> Callable[[], None]:
    """Return a function that computes a model's products with spikes again, and nothing else."""
    calls = []

    def look(function, inputs, output, path):
        if function.name in ("MatMulAdd", "Convolve2d") and path not in ("", "head"):
            op = next(cls for cls in type(function).__mro__ if cls.__name__ == function.name)
            calls.append((op, inputs, function.constants))

    with no_grad(), trace(look):
        model(images)
    del calls[0]  # the image's own convolution

    def run():
        for op, inputs, constants in calls:
            op.apply(*inputs, **constants)

    return run


def in_turn(ways: dict[str, Callable], turns: int) -> dict[str, float]:
    """Return the median seconds of each way. A way is a name of products, a space, and what it runs."""
    seconds = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name, run in ways.items():
            use_products(DENSE if name.startswith("dense") else CHOSEN)
            began = time.perf_counter()
            with no_grad():
                run()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    use_products(CHOSEN)
    return {name: round(median(found), 4) for name, found in seconds.items()}


CHOSEN = products()  # this processor's row


def times_of(model, images, turns: int) -> dict[str, float]:
    """Return the seconds of a model's inference and of its products, by event kernels and by dense ones."""
    again = recorded_products(model, images)
    ways = {"events, inference": lambda: model(images), "dense, inference": lambda: model(images)}
    return in_turn(ways | {"events, products": again, "dense, products": again}, turns)


def large_times(shares: dict[str, float], turns: int) -> dict[str, float]:
    """Return those of Spikformer-4-384 on 32 images, whose maps see spikes drawn at their kinds' shares."""
    model = create_model("spikformer_4_384_cifar10").eval()
    images = np.random.default_rng(1).standard_normal((32, 32, 32, 3)).astype("float32")
    alone = products_alone(model, images)
    with_drawn_inputs(model, lambda path: shares[kind_of_layer(path)])
    again = recorded_products(model, images)
    ways = {"events, inference": lambda: model(images), "dense, inference": lambda: model(images)}
    ways |= {"events, products": again, "dense, products": again, "dense, matrix products alone": alone}
    return in_turn(ways, turns)


def measure(price: float, root: Path, seed: int, turns: int) -> list[dict]:
    """Return times, active shares and firing rates of each variant of the models, for one seed.

    Without a price and with the chosen one, also the times of Spikformer-4-384 at these active shares.
    """
    set_threads(2)
    keep_freed_memory()
    _, test, _ = open_data("fashion-mnist", batch_size=SHOWN)
    images, _ = test.spread(SHOWN)
    rows = []
    for variant in tqdm(EXPERIMENTS["sparse"], desc="times"):
        run = Run.open(folder_of(variant, seed, root / "train"))
        trained = run.newest().model.eval()
        row = {"variant": variant, "seed": seed, "shares": shares_by_kind(trained, images)}
        counted = count(trained, images)
        row["active_share"] = {each.label: round(each.active_share, 4) for each in counted.rows}
        row["firing_rates"] = {path: round(rate, 4) for path, rate in run.read_rates()[-1].items()}
        found = times_of(trained, images, turns)
        row["ms an image"] = {name: round(1e3 * seconds / SHOWN, 3) for name, seconds in found.items()}
        if variant in (variant_of("Spikformer"), variant_of("Spikformer", price)):
            row["seconds, 4-384 drawn at these shares"] = large_times(row["shares"], turns)
        rows.append(row)
    return rows


# ---------------------------------------------------------------- record


def summary(runs: list[dict]) -> dict[str, dict]:
    """Return each variant's means over its seeds: accuracy with its standard error, additions, energy."""
    found = defaultdict(list)
    for run in runs:
        found[run["variant"]].append(run)
    rows = {}
    for variant, each in found.items():
        points = 100 * np.array([run["test_accuracy"] for run in each])
        error = points.std(ddof=1) / len(points) ** 0.5 if len(points) > 1 else float("nan")
        row = rows[variant] = {"accuracy": round(points.mean(), 2), "error": round(error, 2)}
        row["additions"] = round(mean(run["additions"] for run in each))
        row["nJ"] = {c: round(mean(run["energy_nj"][c] for run in each)) for c in COLUMNS}
    return rows


def table(rows: dict[str, dict]) -> str:
    """Return a Markdown table of `summary`, with additions as a share of those without a price."""
    lines = ["| variant | accuracy | additions | of those without | µJ paper | µJ strict | µJ events |"]
    lines += ["|---" * 7 + "|"]
    for variant, row in rows.items():
        first = rows[variant.split(",")[0]]
        cells = [variant, f"{row['accuracy']:.2f} ± {row['error']:.2f} %", f"{row['additions'] / 1e6:.2f} M"]
        cells += [f"{row['additions'] / first['additions']:.0%}"]
        cells += [f"{row['nJ'][column] / 1e3:.2f}" for column in COLUMNS]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(rows: dict[str, dict], path: Path) -> None:
    """Draw accuracy over additions: a line of prices and a line of T for each model."""
    fig, ax = viz.figure(size=(7, 4.2))
    for model, colour in zip(MODELS, (viz.BLUE, viz.ORANGE), strict=True):
        own = {name: row for name, row in rows.items() if name.split(",")[0] == model}
        lines = ("price", "o-", "a price on spikes"), ("T =", "s--", "fewer steps, T = 4, 2, 1")
        for word, style, label in lines:
            line = sorted(
                (row["additions"] / 1e6, row["accuracy"], row["error"], name.rpartition(", ")[2])
                for name, row in own.items()
                if name == model or word in name
            )
            x, y, error, names = zip(*line, strict=True)
            ax.errorbar(x, y, error, fmt=style, color=colour, capsize=2, lw=1.8, label=f"{model}: {label}")
            for at in range(len(x)):
                if names[at] != model:
                    text = names[at].replace("price", "λ =")
                    ax.annotate(
                        text, (x[at], y[at]), (4, -10), textcoords="offset points", fontsize=7, color=colour
                    )
    ax.set(xlabel="million additions for an image", ylabel="test accuracy, %")
    ax.set_xlim(0)
    ax.legend(frameon=False, loc="lower right")
    ax.set_title("Fashion-MNIST: what fewer spikes cost", loc="left", fontsize=11)
    fig.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="the folder of all runs")
    parser.add_argument("--jobs", type=int, default=2, help="number of runs at a time (default 2)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--turns", type=int, default=7, help="how often the ways take turns (default 7)")
    parser.add_argument("--only", choices=("choose", "train"), help="end after this stage, without a record")
    args = parser.parse_args()
    chosen = choose(args.folder, args.jobs)
    print(f"price {chosen['price']}: held-out accuracy by price {chosen['held_out_accuracy']}")
    if args.only == "choose":
        return
    runs = train(chosen["price"], args.seeds, args.folder, args.jobs)
    rows = summary(runs)
    print(table(rows))
    if args.only:
        return
    seeds = " ".join(map(str, args.seeds))
    record = {"command": f"python -m benchmarks.sparse RUNS --jobs {args.jobs} --seeds {seeds}"}
    record |= {"date": str(date.today()), "machine": machine(), "kernel": blas_kernel(), "chosen": chosen}
    record |= {
        "rows": rows,
        "measured": measure(chosen["price"], args.folder, args.seeds[0], args.turns),
        "runs": runs,
    }
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    (RESULTS / "sparse.json").write_text(text, "utf-8")
    draw(rows, RESULTS / "sparse.png")


if __name__ == "__main__":
    main()
