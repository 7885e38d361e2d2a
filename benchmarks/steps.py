"""Time training steps with compiled loops, without, and of an earlier checkout: python -m benchmarks.steps

The models of the recipes for the digits, Fashion-MNIST and Fashion-DVS, and Spikformer-4-384, each with its
recipe's batch (32 for 4-384) of random data, and AdamW. Each side runs in a process of its own. The sides
take turns, and each ratio is taken within a turn:

    compiled        as it is
    without Numba   the import of Numba fails, as on a computer without it
    before          with --before DIR: the package of another checkout

Writes results/steps.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

TASKS = {  # name: (model, batch, shape of one sample or frame, T, threads)
    "digits": ("spikformer_1_64_digits", 32, (8, 8, 1), 4, 1),
    "fashion-mnist, T = 1": ("spikformer_2_64_fashion", 16, (32, 32, 1), 1, 1),
    "fashion-mnist": ("spikformer_2_64_fashion", 16, (32, 32, 1), 4, 1),
    "fashion-dvs": ("spikformer_2_64_fashion_dvs", 16, (32, 32, 2), 8, 1),
    "4-384": ("spikformer_4_384_cifar10", 32, (32, 32, 3), 4, 2),
}
RESULTS = Path(__file__).parent / "results"
PINS = "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"  # they would time another processor's products


def work(side: str, task: str) -> None:
    """Work as one side: for each line on stdin, run steps; print the seconds of one and the peak in MiB."""
    if side == "without Numba":
        sys.modules["numba"] = None
    import numpy as np

    from minispike import create_model, ops, optim, set_threads, train

    name, batch, shape, T, threads = TASKS[task]
    set_threads(threads)
    train.keep_freed_memory()
    rng = np.random.default_rng(0)
    frames = shape[-1] == 2
    x = rng.poisson(0.1, (T, batch, *shape)) if frames else rng.standard_normal((batch, *shape))
    x, labels = x.astype("float32"), rng.integers(0, 10, batch)
    model = create_model(name, T=T)
    for path, parameter in model.named_parameters():
        if path.endswith("norm.weight") and threads == 1:
            parameter.data[...] = 2  # as the small recipes begin
    optimizer = optim.AdamW(model.parameters(), lr=1e-4)

    def step():
        optimizer.zero_grad()
        ops.softmax_cross_entropy(model(x), labels).backward()
        optimizer.step()

    began = time.perf_counter()
    for _ in range(2):
        step()
    n = max(1, round(1 / (time.perf_counter() - began)))
    for _ in sys.stdin:
        began = time.perf_counter()
        for _ in range(n):
            step()
        seconds = (time.perf_counter() - began) / n
        print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]), flush=True)


class Side:
    """A process that runs a task's steps each time `once` asks for it."""

    def __init__(self, side: str, task: str, checkout: Path):
        env = {name: value for name, value in os.environ.items() if name not in PINS}
        env |= {"PYTHONPATH": str(checkout)}
        command = [sys.executable, __file__, "--work", side, task]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=env, cwd=checkout, **pipes)

    def once(self) -> tuple[float, float]:
        """Return (seconds of a step, peak memory in MiB)."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return tuple(json.loads(self.process.stdout.readline()))


def compare(task: str, sides: dict[str, Path], turns: int) -> dict:
    """Return a task's record: milliseconds and memory of each side, and ratios to the first one."""
    running = {name: Side(name, task, checkout) for name, checkout in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    peak = {}
    for turn in range(turns + 1):
        for name, side in running.items():
            taken, peak[name] = side.once()
            if turn:
                seconds[name].append(taken)
    for side in running.values():
        side.process.stdin.close()
        side.process.wait()
    first = seconds[next(iter(sides))]
    return {"task": task} | {
        name: {
            "ms": round(1e3 * median(found), 1),
            "times": round(median(b / a for a, b in zip(first, found, strict=True)), 2),
            "MiB": round(peak[name]),
        }
        for name, found in seconds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tasks", nargs="*", choices=[[], *TASKS], help="what to time; all by default")
    parser.add_argument("--before", metavar="DIR", type=Path, help="another checkout, to be timed as well")
    parser.add_argument("--turns", type=int, default=7, help="how often the sides take turns (default 7)")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(*args.work)
        return
    from datetime import date

    from benchmarks.ablations import machine
    from minispike.parallel import blas_kernel

    here = Path(__file__).resolve().parent.parent
    sides = {"compiled": here, "without Numba": here}
    sides |= {"before": args.before.resolve()} if args.before else {}
    record = {
        "command": f"python -m benchmarks.steps --turns {args.turns}" + (" --before DIR" * bool(args.before))
    }
    record |= {"date": str(date.today()), "machine": machine(), "kernel": blas_kernel(), "rows": []}
    for task in args.tasks or TASKS:
        record["rows"].append(compare(task, sides, args.turns))
        print(record["rows"][-1], flush=True)
        if not args.tasks:
            (RESULTS / "steps.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
