"""Time products with spikes by events and dense, over the active share: python -m benchmarks.spikes

For the linear maps and convolutions of the models, binary spikes and counts, forward and the gradient of the
weights, both ways take turns in one thread; the ratio is the median over turns. From the ratios comes, for
each kind of product, the active share below which events are chosen: the one with the least regret (the time
of what is chosen over the time of the better way) in its worst case. Writes results/spikes.json and
spikes.png, and with --table also this processor's row of minispike/kernels/crossings.json.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from datetime import date
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
                row = {"shape": [*x_shape, w_shape[-1]], "outputs": w_shape[-1], "share": share}
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


def limits(rows: list[dict]) -> dict[str, dict]:
    """Return, for each kind of product, the share below which events are chosen, and the worst regret."""
    found = {}
    for product in dict.fromkeys(row["product"] for row in rows):
        cells = [row for row in rows if row["product"] == product]

        def regret(limit: float, cells=cells) -> float:
            worst = 1.0
            for row in cells:
                rounded = -(-row["outputs"] // events.WIDTH) * events.WIDTH
                chosen = row["ratio"] if row["share"] < limit * row["outputs"] / rounded else 1.0
                worst = max(worst, chosen / min(1.0, row["ratio"]))
            return worst

        best = min(np.arange(0, 0.605, 0.01), key=lambda limit: (round(regret(limit), 3), limit))
        found[product] = {"limit": round(float(best), 2), "regret": round(regret(best), 3)}
    return found


def write_table(found: dict[str, dict]) -> None:
    """Write this processor's row, and one for unknown processors, as cautious as wide registers need."""
    rows = json.loads(TABLE.read_text("utf-8"))["rows"]
    rows[blas_kernel()] = {product: each["limit"] for product, each in found.items()}
    known = [row for name, row in rows.items() if name != "unknown"]
    rows["unknown"] = {product: round(min(row[product] for row in known) / AVX512, 2) for product in found}
    about = "active shares below which a product goes by events, by BLAS kernel (python -m benchmarks.spikes)"
    TABLE.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n", "utf-8")


def draw(rows: list[dict], found: dict[str, dict], path: Path) -> None:
    fig, axes = viz.figure(2, 4, size=(15, 6.5), sharex=True, sharey=True)
    for ax, product in zip(
        axes.flat, sorted(found, key=lambda name: ("gradient" in name, name)), strict=True
    ):
        for shape in {tuple(row["shape"]): None for row in rows if row["product"] == product}:
            cells = [row for row in rows if row["product"] == product and tuple(row["shape"]) == shape]
            label = "×".join(map(str, shape))
            ax.plot([100 * c["share"] for c in cells], [c["ratio"] for c in cells], ".-", lw=1, label=label)
        ax.axhline(1, color=viz.GREY, lw=1)
        ax.axvline(100 * found[product]["limit"], color=viz.INK, lw=1, ls=":")
        ax.set_title(f"{product}: events below {found[product]['limit']:.0%}", fontsize=10)
        ax.set_ylim(0, 2)
        ax.legend(fontsize=6, frameon=False)
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
    found = limits(rows)
    for product, each in found.items():
        limit, regret = each["limit"], each["regret"]
        print(f"{product:<32} events below {limit:4.0%}, at worst {regret:.2f} of the better way")
    record = {"command": f"python -m benchmarks.spikes --turns {args.turns}", "date": str(date.today())}
    record |= {"machine": machine(), "kernel": blas_kernel(), "limits": found, "rows": rows}
    (RESULTS / "spikes.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    draw(rows, found, RESULTS / "spikes.png")
    if args.table:
        write_table(found)


if __name__ == "__main__":
    main()
