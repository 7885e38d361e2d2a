"""Train variants of a model over several seeds and record them: python -m benchmarks.ablations spikformer_T

Writes benchmarks/results/<experiment>.json after every run, so that an interruption loses one run at most;
--resume goes on from there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from datetime import date
from pathlib import Path

import numpy

from data_utils.digits import load_digits
from lessons.recipes import recorded, train_on_digits
from minispike import Tensor, create_model, no_grad, trace

RESULTS = Path(__file__).parent / "results"

EXPERIMENTS = {  # name: {variant: (model, overrides)}
    "spikformer_T": {f"T = {T}": ("spikformer_1_64_digits", dict(T=T)) for T in (1, 2, 4)},
    "mixers": {"ssa": ("spikformer_1_64_digits", {})}
    | {
        mixer: ("attention_free_fft1d_1_64_digits", dict(mixer=mixer))
        for mixer in ("fft1d", "fft2d", "haar", "wavelets", "identity", "random")
    },
    "saformer": {
        "SSA": ("spikformer_1_64_digits", {}),
        "SASA": ("saformer_1_64_digits", dict(dwc=None)),
        "SASA + DWC": ("saformer_1_64_digits", {}),
        "global + DWC": ("saformer_1_64_digits", dict(aggregate="global")),
        "channel + DWC": ("saformer_1_64_digits", dict(aggregate="channel")),
        "identity": ("attention_free_fft1d_1_64_digits", dict(mixer="identity")),
    },
}


def machine() -> str:
    """Return the processor and the number of cores in use."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].split(":")[1].strip() if lines else name
    return f"{name}, {len(os.sched_getaffinity(0))} cores, NumPy {numpy.__version__}"


def macs(module, x) -> int:
    """Return the dense multiply-accumulates of one forward: what `cost` says of each op."""
    total = 0

    def look(function, inputs, output, path):
        nonlocal total
        if hasattr(function, "cost"):
            shapes = (tuple(i.shape) for i in inputs if isinstance(i, Tensor))
            total += function.cost(*shapes, **function.constants)

    with no_grad(), trace(look):
        module.eval()(x)
    return total


def run(experiment: str, seeds: list[int], resume: bool) -> None:
    """Train every variant with every seed and write each result down as it comes."""
    path = RESULTS / f"{experiment}.json"
    seeds_text = " ".join(map(str, seeds))
    record = {
        "command": f"python -m benchmarks.ablations {experiment} --seeds {seeds_text}",
        "date": date.today().isoformat(),
        "machine": machine(),
        "runs": [],
    }
    if resume and path.exists():
        record["runs"] = json.loads(path.read_text(encoding="utf-8"))["runs"]
    image = load_digits()[0][0][:1]
    done = {(r["variant"], r["seed"]) for r in record["runs"]}
    for variant, (name, overrides) in EXPERIMENTS[experiment].items():
        for seed in seeds:
            if (variant, seed) in done:
                continue
            print(f"{experiment}: {variant}, seed {seed}")
            model = create_model(name, rng=seed, **overrides)
            history = train_on_digits(model, seed=seed)
            record["runs"].append(
                {
                    "variant": variant,
                    "model": name,
                    "overrides": overrides,
                    "seed": seed,
                    "parameters": model.num_params(),
                    "macs": macs(create_model(name, **overrides | {"T": 1}), image),
                    "epochs": len(history),
                    "test_accuracy": history[-1]["test_accuracy"],  # the last epoch's, not the best
                    "train_accuracy": history[-1]["accuracy"],
                    "seconds": round(sum(r["seconds"] for r in history), 1),
                    "curve": [round(r["test_accuracy"], 4) for r in history],
                }
            )
            path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    recorded(experiment)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", choices=list(EXPERIMENTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--resume", action="store_true", help="keep the runs that are recorded already")
    args = parser.parse_args()
    run(args.experiment, args.seeds, args.resume)
