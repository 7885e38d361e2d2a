"""Time products with spikes by events and dense, over the active share: python -m benchmarks.spikes

For the linear maps and convolutions of the models, binary spikes and counts, forward and the gradient of the
weights, both ways take turns in one thread; each ratio is the median over turns. From the ratios come, for
each kind of product, the three numbers of minispike.kernels.events.limit. Writes results/spikes.json and
spikes.png, and with --table also this processor's row of minispike/kernels/crossings.json.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from datetime import date
from itertools import product as product_of
from pathlib import Path
from statistics import median

os.environ.pop("OPENBLAS_CORETYPE", None)  # it would time the products of another processor

import numpy as np  # noqa: E402
from tqdm import tqdm  # noqa: E402

from benchmarks.ablations import machine  # noqa: E402
from minispike import set_threads  # noqa: E402
from minispike.kernels import events, unfolded  # noqa: E402
from minispike.measure import viz  # noqa: E402
from minispike.parallel import blas_kernel  # noqa: E402

RESULTS = Path(__file__).parent / "results"
TABLE = Path(events.__file__).with_name("crossings.json")
SHARES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
LINEAR = [
    (8192, 384, 384),
    (2048, 384, 1536),
    (2048, 1536, 384),
    (8192, 64, 64),
    (8192, 64, 256),
    (8192, 256, 64),
]
CONVOLUTIONS = [  # images, side, channels in and out, of Spikformer-4-384's and of the small models' stems
    (8, 32, 48, 96), (4, 32, 96, 192), (8, 16, 192, 384), (32, 8, 384, 384), (64, 8, 16, 32), (64, 8, 64, 64),
]  # fmt: skip
AVX512 = 2.4  # how much faster a dense product can be on a processor with wider registers


def seconds(f: Callable) -> float:
    start = time.process_time()
    f()
    return time.process_time() - start


def ratios(one: Callable, other: Callable, turns: int) -> float:
    """Return the median over turns of one's time over the other's."""
    one(), other()
    return median(seconds(one) / seconds(other) for _ in range(turns))


def cases():
    """Yield (kind of product, shape, inputs that hold no spikes yet, forms dense and by events)."""
    for rows, n_in, n_out in LINEAR:
        yield "linear", (rows, n_in), (n_in, n_out), (events.EventMatMulAdd, {})
    for n, side, n_in, n_out in CONVOLUTIONS:
        constants = {"stride": 1, "padding": 1}
        yield "convolution", (n, side, side, n_in), (3, 3, n_in, n_out), (events.EventConvolve2d, constants)


def measure(turns: int) -> list[dict]:
    """Return a row {product, shape, outputs, share, ratio} for each cell."""
    rng, found = np.random.default_rng(0), []
    bar = tqdm(list(cases()), desc="shapes")
    for kind, x_shape, w_shape, (op, constants) in bar:
        w = rng.standard_normal(w_shape).astype("float32")
        for counts in (False, True):
            for share in SHARES:
                x = (rng.random(x_shape) < share).astype("float32") * (
                    rng.integers(1, 4, x_shape) if counts else 1
                )
                x, gy, ways = x.astype("float32"), None, {}
                for way in (True, False):
                    function = op()
                    function.xp = np
                    ways[way] = function, run(function, way, x, w, constants)
                gy = rng.standard_normal(ways[True][1]().shape).astype("float32")
                g = gy.reshape(-1, gy.shape[-1]) if kind == "linear" else gy
                forward = ratios(ways[True][1], ways[False][1], turns)
                back = ratios(*(run_back(ways[way][0], way, g) for way in (True, False)), turns)
                what = ", counts" if counts else ""
                row = {"x": x_shape, "w": w_shape, "share": share}
                found.append({"product": kind + what, **row, "ratio": round(forward, 3)})
                found.append({"product": f"{kind} gradient{what}", **row, "ratio": round(back, 3)})
    return found


def run(function, by_events: bool, x, w, constants) -> Callable:
    def forward():
        events.Events.pay = lambda *_: by_events
        return function.forward(x, w, **constants)

    return forward


def run_back(function, by_events: bool, g) -> Callable:
    def backward():
        events.Events.pay = lambda *_: by_events
        return function.gradient_of_w(g)

    return backward


def fit(rows: list[dict]) -> dict[str, dict]:
    """Return, for each kind of product, the three numbers of events.limit with the least regret.

    Regret: the time of what is chosen over the time of the better way. The mean over all cells is made small;
    the worst cell and the share of cells above 1.1 are reported.
    """
    found = {}
    for product in dict.fromkeys(row["product"] for row in rows):
        cells = [row for row in rows if row["product"] == product]

        def regrets(numbers, cells=cells) -> np.ndarray:
            limits = [events.limit(numbers, row["w"]) for row in cells]
            pairs = zip(cells, limits, strict=True)
            chosen = [row["ratio"] if row["share"] < limit else 1.0 for row, limit in pairs]
            return np.array(chosen) / np.minimum(1, [row["ratio"] for row in cells])

        grid = product_of(np.arange(0.1, 1.01, 0.05), (-50, -25, 0, 32, 64), (200, 400, 900, 1800, 3500))
        best = min(grid, key=lambda numbers: (round(np.log(regrets(numbers)).mean(), 4), numbers))
        each = regrets(best)
        found[product] = {
            "row": [round(float(best[0]), 2), *best[1:]], "mean": round(float(each.mean()), 3),
            "worst": round(float(each.max()), 3), "above 1.1": round(float((each > 1.1).mean()), 3),
        }  # fmt: skip
    return found


def write_table(found: dict[str, dict]) -> None:
    """Write this processor's row, and one for unknown processors, as cautious as wide registers need."""
    rows = json.loads(TABLE.read_text("utf-8"))["rows"]
    rows[blas_kernel()] = {product: each["row"] for product, each in found.items()}
    known = [row for name, row in rows.items() if name != "unknown"]
    least = {product: min((row[product] for row in known), key=lambda each: each[0]) for product in found}
    rows["unknown"] = {product: [round(row[0] / AVX512, 2), *row[1:]] for product, row in least.items()}
    about = "what kernels/events.py chooses by: share, per_output, rows (python -m benchmarks.spikes --table)"
    lines = [f'  "{name}": {json.dumps(row)}' for name, row in rows.items()]
    text = f'{{\n "about": {json.dumps(about)},\n "rows": {{\n' + ",\n".join(lines) + "\n }\n}\n"
    TABLE.write_text(text, "utf-8")


def draw(rows: list[dict], found: dict[str, dict], path: Path) -> None:
    fig, axes = viz.figure(2, 4, size=(15, 6.5), sharex=True, sharey=True)
    for ax, product in zip(
        axes.flat, sorted(found, key=lambda name: ("gradient" in name, name)), strict=True
    ):
        cells = [row for row in rows if row["product"] == product]
        for x, w in dict.fromkeys((tuple(row["x"]), tuple(row["w"])) for row in cells):
            of = [row for row in cells if (tuple(row["x"]), tuple(row["w"])) == (x, w)]
            label = f"{'×'.join(map(str, x))} → {w[-1]}"
            (line,) = ax.plot([100 * c["share"] for c in of], [c["ratio"] for c in of], lw=1, label=label)
            ax.plot(100 * events.limit(found[product]["row"], w), 1, "o", color=line.get_color(), ms=4)
        ax.axhline(1, color=viz.GREY, lw=1)
        ax.set_title(f"{product} (dots: chosen below)", fontsize=9)
        ax.set_ylim(0, 2)
        ax.set_xlim(0, 55)
        ax.legend(fontsize=5.5, frameon=False)
    for ax in axes[1]:
        ax.set_xlabel("active entries, %")
    for ax in axes[:, 0]:
        ax.set_ylabel("time, dense = 1")
    fig.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=5, help="how often both ways take turns (default 5)")
    parser.add_argument("--table", action="store_true", help="write this processor's row of crossings.json")
    args = parser.parse_args()
    set_threads(1)
    unfolded.SPAN = events.SPAN = 2**62
    rows = measure(args.turns)
    found = fit(rows)
    for product, each in found.items():
        print(f"{product:<32} {each}")
    record = {"command": f"python -m benchmarks.spikes --turns {args.turns}", "date": str(date.today())}
    record |= {"machine": machine(), "kernel": blas_kernel(), "limits": found, "rows": rows}
    (RESULTS / "spikes.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    draw(rows, found, RESULTS / "spikes.png")
    if args.table:
        write_table(found)


if __name__ == "__main__":
    main()
