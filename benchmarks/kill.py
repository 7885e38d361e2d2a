"""Kill a training at random moments, resume it, and check its end: python -m benchmarks.kill

A small run on the digits writes a checkpoint after each step. It is killed again and again by SIGKILL, which
allows no handler and no clean-up. Every other kill is aimed at the middle of a write: it comes as soon as the
unfinished file appears. After each kill, the folder must hold a readable checkpoint, and --resume goes on. At
the end, weights, buffers, optimizer and metrics must equal, bit for bit, those of an undisturbed run. Writes
results/kill.json.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np

from benchmarks.ablations import machine
from minispike.files.checkpoint import read_safetensors
from minispike.runs.folder import Run

RESULTS = Path(__file__).parent / "results"
RECIPE = "--recipe digits --T 1 --batch-size 32 --threads 1 --save-seconds 0".split()


def begin(*arguments) -> subprocess.Popen:
    command = [sys.executable, "-m", "minispike", "train", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_for(moment, process: subprocess.Popen) -> bool:
    """Return whether moment() became true before the process ended."""
    while not moment():
        if process.poll() is not None:
            return False
    return True


def kill_once(folder: Path, arguments: list, rng: random.Random, in_write: bool) -> dict | None:
    """Start or resume a run, kill it, and return what the folder held; None if the run ended before."""
    newest, piece = folder / "checkpoint.safetensors", folder / "checkpoint.safetensors.part"
    before = inode(newest)
    process = begin(*arguments)
    delay = rng.uniform(0, 0.6)
    alive = wait_for(lambda: inode(newest) not in (before, None), process)  # a new checkpoint: it trains
    time.sleep(delay)
    if in_write:
        alive = wait_for(piece.exists, process)
    process.kill()
    _, errors = process.communicate()
    if process.returncode != -signal.SIGKILL:
        if process.returncode:
            raise RuntimeError(errors)
        return None
    found = {"aimed": "the write" if in_write else "any moment", "after_s": round(delay, 2), "alive": alive}
    found["piece"] = f"{piece.stat().st_size:,} bytes" if piece.exists() else ""
    found["newest_missing"] = not newest.exists()
    at = Run.open(folder).newest().training["progress"]  # raises an error if nothing can be read
    return found | {"epoch": at["epoch"], "step": at["step"]}


def inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def differences(a: Path, b: Path) -> list[str]:
    """Return the names of everything in which two finished runs differ, except the seconds."""
    (x, metadata), (y, other) = (read_safetensors(path / "checkpoint.safetensors") for path in (a, b))
    wrong = [name for name in x.keys() | y.keys() if not np.array_equal(x.get(name), y.get(name))]
    one, two = (json.loads(each["training"]) for each in (metadata, other))
    rows = Run.open(a).read_metrics(), Run.open(b).read_metrics()
    for record in (*one["progress"]["history"], *two["progress"]["history"], *rows[0], *rows[1]):
        del record["seconds"]
    return wrong + ["training"] * (one != two) + ["metrics.csv"] * (rows[0] != rows[1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=24, help="how many kills (default 24)")
    parser.add_argument("--epochs", type=int, default=12, help="epochs of each run (default 12)")
    args = parser.parse_args()
    rng, rows, runs = random.Random(0), [], []
    print(" run kill  aimed at    unfinished piece   resumes at")
    with tempfile.TemporaryDirectory() as place:
        while len(rows) < args.kills:
            seed = len(runs)
            new = [*RECIPE, "--epochs", args.epochs, "--seed", seed, "--out"]
            whole, cut = Path(place) / f"whole-{seed}", Path(place) / f"cut-{seed}"
            process = begin(*new, whole)
            if process.wait():
                raise RuntimeError(process.communicate()[1])
            arguments, kills = [*new, cut], 0
            while len(rows) < args.kills:
                found = kill_once(cut, arguments, rng, in_write=len(rows) % 2 == 1)
                if found is None:
                    break
                arguments, kills = ["--resume", cut], kills + 1
                rows.append({"run": seed, **found})
                missing = "  (from the checkpoint before the newest)" if found["newest_missing"] else ""
                at = f"epoch {found['epoch'] + 1}, step {found['step']}{missing}"
                print(f"{seed:4} {len(rows):4}  {found['aimed']:<10}  {found['piece']:<17}  {at}", flush=True)
            process = begin("--resume", cut)
            if process.wait():
                raise RuntimeError(process.communicate()[1])
            wrong = differences(whole, cut)
            left = [path.name for path in cut.iterdir() if path.name.endswith(".part")]
            runs.append({"seed": seed, "kills": kills, "differences": wrong, "left_behind": left})
            print(f"run {seed}: {kills} kills; differences at the end: {', '.join(wrong) or 'none'}")
    pieces = sum(bool(row["piece"]) for row in rows)
    wrong = sum(bool(run["differences"]) for run in runs)
    print(f"{len(rows)} kills, {pieces} of them during a write; runs that differ at the end: {wrong}")
    record = {"command": f"python -m benchmarks.kill --kills {args.kills} --epochs {args.epochs}"}
    record |= {"date": str(date.today()), "machine": machine(), "recipe": RECIPE, "runs": runs, "kills": rows}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "kill.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if wrong or any(run["left_behind"] for run in runs):
        raise SystemExit("a killed run did not end as the undisturbed run")


if __name__ == "__main__":
    main()
