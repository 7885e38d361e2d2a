"""Train variants of a model over several seeds and record them: python -m benchmarks.ablations spikformer_T

The file benchmarks/results/<experiment>.json is written after every run, so an interruption loses at most one
run; --resume goes on from there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy

from data_utils.images.digits import load_digits
from lessons.common import pretrain_on_digits, recorded, train_on_digits, train_on_few
from minispike import Tensor, create_model, no_grad, trace
from minispike.masked import masked_autoencoder

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """Return the processor and the number of cores in use."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].split(":")[1].strip() if lines else name
    return f"{name}, {len(os.sched_getaffinity(0))} cores, NumPy {numpy.__version__}"


def macs(module, x) -> int:
    """Return the dense multiply-accumulates of one forward, the sum of `cost` over all ops."""
    total = 0

    def look(function, inputs, output, path):
        nonlocal total
        if hasattr(function, "cost"):
            shapes = (tuple(i.shape) for i in inputs if isinstance(i, Tensor))
            total += function.cost(*shapes, **function.constants)

    with no_grad(), trace(look):
        module.eval()(x)
    return total


# ---------------------------------------------------------------- one run


def digits(name: str, **overrides) -> Callable[[int], dict]:
    """Return a function that trains the named model on all digits with a given seed."""

    def train(seed: int) -> dict:
        model = create_model(name, rng=seed, **overrides)
        history = train_on_digits(model, seed=seed)
        result = {
            "model": name,
            "overrides": overrides,
            "parameters": model.num_params(),
            "macs": macs(create_model(name, **overrides | {"T": 1}), load_digits()[0][0][:1]),
            "test_accuracy": history[-1]["test_accuracy"],  # of the last epoch, not the best
            "train_accuracy": history[-1]["accuracy"],
            "seconds": seconds(history),
            "curve": [round(r["test_accuracy"], 4) for r in history],
        }
        return {"": result}

    return train


def masked_or_not(depth: int) -> Callable[[int], dict]:
    """Return a function that trains on 100 labels with a given seed, in three ways.

    From a pre-trained encoder, from scratch for the same total time, and from scratch for the same epochs.
    """
    name, overrides = "spikformer_v2_1_64_digits", dict(T=1, depth=depth)

    def train(seed: int) -> dict:
        encoder = masked_autoencoder(name, decoder_depth=1, rng=seed, **overrides)
        pretraining = pretrain_on_digits(encoder, seed=seed)
        tuned = train_on_few(create_model(name, rng=seed, **overrides), encoder, seed=seed)
        total = seconds(pretraining) + seconds(tuned)
        trial = train_on_few(create_model(name, rng=seed, **overrides), seed=seed, epochs=20)
        epochs = max(100, round(20 * total / seconds(trial)))
        scratch = train_on_few(create_model(name, rng=seed, **overrides), seed=seed, epochs=epochs)
        same = train_on_few(create_model(name, rng=seed, **overrides), seed=seed)
        about = {"model": name, "overrides": overrides}
        return {
            ", pre-trained": about
            | result_of(tuned, total)
            | {"pretraining_loss": [round(r["loss"], 4) for r in pretraining]},
            ", scratch, same time": about | result_of(scratch, seconds(scratch)),
            ", scratch, same epochs": about | result_of(same, seconds(same)),
        }

    return train


def result_of(history: list[dict], total: float) -> dict:
    return {
        "epochs": len(history),
        "test_accuracy": history[-1]["test_accuracy"],
        "train_accuracy": history[-1]["accuracy"],
        "seconds": total,
    }


def seconds(history: list[dict]) -> float:
    return round(sum(record["seconds"] for record in history), 1)


FREE = "attention_free_fft1d_1_64_digits"
EXPERIMENTS: dict[str, dict[str, Callable[[int], dict]]] = {  # name: {variant: run}
    "spikformer_T": {f"T = {T}": digits("spikformer_1_64_digits", T=T) for T in (1, 2, 4)},
    "mixers": {"ssa": digits("spikformer_1_64_digits")}
    | {
        mixer: digits(FREE, mixer=mixer)
        for mixer in ("fft1d", "fft2d", "haar", "wavelets", "identity", "random")
    },
    "saformer": {
        "SSA": digits("spikformer_1_64_digits"),
        "SASA": digits("saformer_1_64_digits", dwc=None),
        "SASA + DWC": digits("saformer_1_64_digits"),
        "global + DWC": digits("saformer_1_64_digits", aggregate="global"),
        "channel + DWC": digits("saformer_1_64_digits", aggregate="channel"),
        "identity": digits(FREE, mixer="identity"),
    },
    "masked": {f"depth {depth}": masked_or_not(depth) for depth in (1, 6)},
}


# ---------------------------------------------------------------- all runs of an experiment


def run(experiment: str, seeds: list[int], resume: bool) -> None:
    """Run every variant with every seed, and write the record after each run."""
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
    done = {(r["run"], r["seed"]) for r in record["runs"]}
    for name, train in EXPERIMENTS[experiment].items():
        for seed in seeds:
            if (name, seed) in done:
                continue
            print(f"{experiment}: {name}, seed {seed}")
            for which, result in train(seed).items():
                record["runs"].append({"run": name, "variant": name + which, "seed": seed, **result})
            path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    recorded(experiment)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", choices=list(EXPERIMENTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--resume", action="store_true", help="keep the runs that are already recorded")
    args = parser.parse_args()
    run(args.experiment, args.seeds, args.resume)
