"""Time batch norm with neurons, compiled and as array code: python -m benchmarks.loops

One thread, float32, T = 4, forward and backward with the moments and what backward adds for them, for 96 and
384 channels. Both ways take turns; the figures are medians in nanoseconds of processor time per value. Writes
results/loops.json.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import date
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.ablations import machine
from minispike import set_threads
from minispike.fused import NormaliseAndFire
from minispike.kernels import host
from minispike.neuron import Neuron
from minispike.ops import norm
from minispike.parallel import keep_freed_memory

RESULTS = Path(__file__).parent / "results"
T, VALUES = 4, 6 * 2**20


def once(op, moments, x, gy) -> float:
    """Return the nanoseconds per value of one forward and backward."""
    start = time.process_time()
    mean, var = moments(x)
    function = op()
    function.xp = np
    C = x.shape[-1]
    gamma, beta = np.ones(C, "float32"), np.full(C, 0.5, "float32")
    function.forward(x, gamma, beta, mean=mean, var=var, eps=1e-5, own=True, T=T, neuron=Neuron())
    function.backward(gy)
    return 1e9 * (time.process_time() - start) / x.size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=7, help="how often both ways take turns (default 7)")
    args = parser.parse_args()
    set_threads(1)
    keep_freed_memory()
    rng, rows = np.random.default_rng(0), []
    for C in (96, 384):
        x, gy = rng.standard_normal((2, T, VALUES // T // C, C)).astype("float32")
        ways = {
            "compiled": (host.CompiledNormaliseAndFire, host.moments),
            "array code": (NormaliseAndFire, norm.moments),
        }
        found = {name: [] for name in ways}
        for turn in range(args.turns + 1):
            for name, way in ways.items():
                taken = once(*way, x, gy)
                if turn:  # the first one compiles
                    found[name].append(taken)
        rows.append({"channels": C} | {name: round(median(each), 2) for name, each in found.items()})
        print(rows[-1])
    record = {"command": f"python -m benchmarks.loops --turns {args.turns}", "date": str(date.today())}
    record |= {"machine": machine(), "unit": "ns per value", "rows": rows}
    (RESULTS / "loops.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
