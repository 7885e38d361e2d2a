"""Compare the speed and memory of the mixers: python -m benchmarks.mixers

For the mixer alone and for the whole 4-384 CIFAR model: throughput of a training step and of inference, and
peak memory, each against SSA's; parameters and multiply-accumulates. Also measured is how each mixer's time
and memory grow with the number of tokens. All mixers are timed in turn, round after round, and each ratio is
taken within a round. Writes results/mixer_speed.json and results/mixer_speed.png.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from datetime import date
from math import prod
from pathlib import Path
from statistics import median

import numpy as np
import scipy.fft
from tqdm import tqdm

from benchmarks.ablations import machine, macs
from minispike import Spiking, Tensor, create_model, no_grad, ops
from minispike.blocks.control import Identity, RandomMix
from minispike.blocks.dwc import DWC
from minispike.blocks.fourier import FourierMix
from minispike.blocks.sasa import SASA, Channel, Global, Pool
from minispike.blocks.ssa import SSA
from minispike.blocks.wavelet import Mixture, WaveletMix
from minispike.measure import viz
from minispike.optim import AdamW
from minispike.parallel import get_threads, keep_freed_memory

RESULTS = Path(__file__).parent / "results"
D, HEADS = 384, 12

MIXERS: dict[str, Callable] = {  # name: (token grid) → mixer of width D
    "ssa": lambda grid: SSA(D, HEADS, rng=0),
    "fft1d": lambda grid: Spiking(FourierMix(D)),
    "fft2d": lambda grid: Spiking(FourierMix(D, "tokens and channels")),
    "haar": lambda grid: Spiking(WaveletMix(D, grid)),
    "wavelets": lambda grid: Spiking(
        Mixture(D, [WaveletMix(D, grid, f) for f in ("haar", "db2", "bior1.3")])
    ),
    "identity": lambda grid: Spiking(Identity(D)),
    "random": lambda grid: Spiking(RandomMix(D, prod(grid), rng=0)),
    "sasa": lambda grid: SASA(D, HEADS, Pool(grid), rng=0),
    "sasa global": lambda grid: SASA(D, HEADS, Global(), rng=0),
    "sasa channel": lambda grid: SASA(D, HEADS, Channel(), rng=0),
    "sasa + dwc": lambda grid: SASA(D, HEADS, Pool(grid), DWC(D, grid, rng=0), rng=0),
}


def mixer_task(name: str, grid=(8, 8), T: int = 4, B: int = 8):
    """Return (training step, inference) of one mixer on random spikes [T, B, N, D] in float32."""
    mixer = MIXERS[name](grid).to(dtype="float32")
    rng = np.random.default_rng(0)
    x = (rng.random((T, B, prod(grid), D)) < 0.2).astype("float32")
    gy = rng.standard_normal(x.shape).astype("float32")

    def step():
        mixer.train()
        for parameter in mixer.parameters():
            parameter.grad = None
        mixer(Tensor(x, requires_grad=True)).backward(gy)

    return step, lambda: _infer(mixer, x)


def model_task(name: str, B: int = 8):
    """Return (training step, inference) of the whole 4-384 CIFAR model with this mixer."""
    model = make_model(name)
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((B, 32, 32, 3)).astype("float32"), rng.integers(0, 10, B)
    optimizer = AdamW(model.parameters())

    def step():
        model.train()
        optimizer.zero_grad()
        ops.softmax_cross_entropy(model(x), labels).backward()
        optimizer.step()

    return step, lambda: _infer(model, x)


def make_model(name: str):
    """Return the 4-384 CIFAR model with this mixer."""
    if name == "ssa":
        return create_model("spikformer_4_384_cifar10")
    if name.startswith("sasa"):
        reading = name.split()[-1] if name in ("sasa global", "sasa channel") else "pool"
        return create_model("saformer_4_384_cifar10", aggregate=reading, dwc=3 if "dwc" in name else None)
    return create_model("attention_free_fft1d_4_384_cifar10", mixer=name)


def _infer(module, x) -> None:
    module.eval()
    with no_grad():
        module(x)


# ---------------------------------------------------------------- measuring


def seconds(f: Callable) -> float:
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def in_turn(tasks: dict[str, Callable], rounds: int, label: str) -> dict[str, list[float]]:
    """Return each task's seconds: one run per round, in turn. The first round does not count."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for i in tqdm(range(rounds + 1), desc=label):
        for name, task in tasks.items():
            taken = seconds(task)
            if i:
                times[name].append(taken)
    return times


def gain(times: dict[str, list[float]], name: str) -> float:
    """Return throughput/throughput_SSA − 1, as the median over rounds."""
    return median(a / b for a, b in zip(times["ssa"], times[name], strict=True)) - 1


def peak_memory(what: str, name: str) -> float:
    """Return the MiB that a training step needs above the imports, measured in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.mixers", "--memory", what, name]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def report_memory(what: str, name: str) -> None:
    """Run two steps and print by how many MiB the process's peak rises (Linux). peak_memory starts this."""

    def peak() -> int:  # KiB; getrusage would also remember the process that started this one
        status = Path("/proc/self/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])

    before = peak()
    step, _ = (mixer_task if what == "mixer" else model_task)(name)
    step()
    step()
    print((peak() - before) / 1024)


def compare(what: str, rounds: int) -> list[dict]:
    """Measure one table and return its rows. what: "mixer", the mixers alone, or "model", whole models."""
    tasks = {name: (mixer_task if what == "mixer" else model_task)(name) for name in MIXERS}
    train = in_turn({name: step for name, (step, _) in tasks.items()}, rounds, f"{what}, training step")
    infer = in_turn({name: f for name, (_, f) in tasks.items()}, rounds, f"{what}, inference")
    del tasks
    memory = {name: peak_memory(what, name) for name in tqdm(MIXERS, desc=f"{what}, memory")}
    rows = []
    for name in MIXERS:
        if what == "mixer":
            module, x = MIXERS[name]((8, 8)).to(dtype="float32"), np.zeros((1, 1, 64, D), "float32")
        else:
            module, x = make_model(name), np.zeros((1, 1, 32, 32, 3), "float32")
        rows.append(
            {
                "mixer": name,
                "train_ms": round(1e3 * median(train[name]), 2),
                "train_gain": round(gain(train, name), 3),
                "infer_ms": round(1e3 * median(infer[name]), 2),
                "infer_gain": round(gain(infer, name), 3),
                "memory_mib": round(memory[name], 1),
                "memory_change": round(memory[name] / memory["ssa"] - 1, 3),
                "parameters": module.num_params(),
                "macs": macs(module, x),
            }
        )
    return rows


def growth(rounds: int) -> dict[str, dict]:
    """Return time and memory of forward and backward, for N = 16 … 1024 tokens.

    Measured for every mixer, and for the products of SSA and SASA in both orders.
    """
    sizes, found = [4, 8, 16, 32], {}
    rng = np.random.default_rng(0)
    for side in sizes:
        N = side * side
        tasks = {name: mixer_task(name, (side, side), T=1, B=4)[0] for name in MIXERS}
        q, k, v = ((rng.random((1, 4, HEADS, N, D // HEADS)) < 0.2).astype("float32") for _ in range(3))
        k_a = k.reshape(1, 4, HEADS, N // 4, 4, D // HEADS).sum(4)  # n = N/4; which 4 tokens does not matter
        tasks["(QKᵀ)V"] = lambda q=q, k=k, v=v: product(q, k, v, lambda q, k, v: (q @ k) @ v)
        tasks["Q(KᵀV)"] = lambda q=q, k=k, v=v: product(q, k, v, lambda q, k, v: q @ (k @ v))
        tasks["(QK_Aᵀ)K_A"] = lambda q=q, k=k_a: product(q, k, k, lambda q, t, a: (q @ t) @ a)
        tasks["Q(K_AᵀK_A)"] = lambda q=q, k=k_a: product(q, k, k, lambda q, t, a: q @ (t @ a))
        for name, times in in_turn(tasks, rounds, f"growth, N = {N}").items():
            curve = found.setdefault(name, {"tokens": [], "ms": [], "mib": []})
            curve["tokens"].append(N)
            curve["ms"].append(round(1e3 * median(times), 3))
            curve["mib"].append(round(traced_peak(tasks[name]), 2))
    for curve in found.values():  # slope of log over log N, from 64 tokens on: with fewer, overhead dominates
        n = np.log(curve["tokens"][1:])
        for what in ("ms", "mib"):
            slope = float(np.polyfit(n, np.log(curve[what][1:]), 1)[0])
            curve["exponent" if what == "ms" else "memory_exponent"] = round(slope, 2)
    return found


def traced_peak(task: Callable) -> float:
    """Return the largest amount of arrays, in MiB, that a task holds at any moment."""
    tracemalloc.start()
    task()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def crossover(rounds: int) -> list[dict]:
    """Return times of Re(F x), along tokens and along both axes, each by matrix products and by FFT."""
    rows, rng = [], np.random.default_rng(0)
    for N, width in [(16, D), (64, D), (144, D), (196, D), (256, D), (400, D), (1024, D), (16, 64), (64, 64)]:
        x = rng.standard_normal((max(1, 2**20 // (N * width)), N, width)).astype("float32")
        waves = {n: 2 * np.pi * (np.outer(np.arange(n), np.arange(n)) % n) / n for n in (N, width)}
        C, S = ({n: (f(a) / n**0.5).astype("float32") for n, a in waves.items()} for f in (np.cos, np.sin))

        def by_fft(x=x, N=N):
            half, y = scipy.fft.rfft(x, axis=1, norm="ortho", workers=get_threads()).real, np.empty_like(x)
            y[:, : N // 2 + 1], y[:, N // 2 + 1 :] = half, half[:, (N - 1) // 2 : 0 : -1]
            return y

        def by_products(x=x, N=N, width=width, C=C, S=S):
            return C[N] @ (x @ C[width]) - S[N] @ (x @ S[width])

        tasks = {
            "product": lambda x=x: ops.fourier(x),
            "fft": by_fft,
            "2d_product": by_products,
            "2d_fft": lambda x=x: ops.fourier(x, "tokens and channels"),
        }
        times = in_turn(tasks, rounds, f"Fourier, N = {N}, D = {width}")
        rows.append({"N": N, "D": width, **{f"{k}_ms": round(1e3 * median(v), 3) for k, v in times.items()}})
    return rows


def product(q, k, v, order) -> None:
    """Run one order of the attention product forward and backward."""
    q, k, v = (Tensor(a, requires_grad=True) for a in (q, k, v))
    y = order(q, k.transpose(0, 1, 2, 4, 3), v)
    y.backward(np.ones(y.shape, "float32"))


# ---------------------------------------------------------------- showing


def show(title: str, rows: list[dict]) -> None:
    print(f"\n{title}")
    print(
        "| mixer | training step | against SSA | inference | against SSA | peak memory | parameters | MACs |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for r in rows:
        print(
            f"| {r['mixer']} | {r['train_ms']:.1f} ms | {r['train_gain']:+.0%} | {r['infer_ms']:.1f} ms | "
            f"{r['infer_gain']:+.0%} | {r['memory_mib']:.0f} MiB, {r['memory_change']:+.0%} | "
            f"{r['parameters']:,} | {r['macs'] / 1e6:.2f} M |"
        )


def draw(record: dict) -> None:
    fig, (left, right) = viz.figure(1, 2, size=(12, 4.8))
    red = "#c0392b"
    styles = {"(QKᵀ)V": (viz.ORANGE, "--"), "Q(KᵀV)": (viz.ORANGE, ":"), "ssa": (viz.ORANGE, "-")}
    styles |= {"(QK_Aᵀ)K_A": (red, "--"), "Q(K_AᵀK_A)": (red, ":"), "sasa": (red, "-")}
    styles |= {"fft1d": (viz.BLUE, "-"), "haar": (viz.GREEN, "-"), "random": (viz.INK, "-")}
    for name, (color, line) in styles.items():
        curve = record["growth"][name]
        label = f"{name}: N^{curve['exponent']}".replace("K_A", "$K_A$")
        left.loglog(curve["tokens"], curve["ms"], line, color=color, marker="o", markersize=4, label=label)
    left.set(
        xlabel="tokens N",
        ylabel="forward and backward, ms",
        title="how each mixer grows (B = 4, T = 1, D = 384)",
    )
    left.set_xticks([16, 64, 256, 1024], ["16", "64", "256", "1024"])
    left.minorticks_off()
    left.legend(frameon=False, fontsize=8, ncols=2)
    names = [row["mixer"] for row in record["model"] if row["mixer"] != "ssa"]
    for shift, key, color in ((-0.2, "train_gain", viz.BLUE), (0.2, "infer_gain", viz.ORANGE)):
        values = [100 * row[key] for row in record["model"] if row["mixer"] != "ssa"]
        label = "training step" if key == "train_gain" else "inference"
        right.bar(np.arange(len(names)) + shift, values, 0.38, color=color, label=label)
    right.axhspan(29, 51, color=viz.BLUE, alpha=0.12, linewidth=0, label="the paper's first claim, training")
    right.axhspan(
        61, 70, color=viz.ORANGE, alpha=0.15, linewidth=0, label="the paper's first claim, inference"
    )
    right.set(title="whole 4-384 model: throughput against SSA", ylabel="faster by, %")
    right.set_xticks(range(len(names)), names, rotation=35, ha="right")
    right.legend(frameon=False, fontsize=8, loc="upper right")
    right.set_ylim(min(0, *(bar.get_height() for bar in right.patches)) - 2, 95)
    right.axhline(0, color=viz.INK, linewidth=0.8)
    fig.savefig(RESULTS / "mixer_speed.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="timed rounds of each measurement (default 9)")
    parser.add_argument(
        "--memory", nargs=2, metavar=("WHAT", "MIXER"), help="only print one mixer's peak memory"
    )
    args = parser.parse_args()
    if args.memory:
        report_memory(*args.memory)
        return
    keep_freed_memory()
    record = {
        "command": f"python -m benchmarks.mixers --rounds {args.rounds}",
        "date": date.today().isoformat(),
        "machine": machine(),
        "fourier": crossover(3 * args.rounds),
        "growth": growth(args.rounds),
        "mixer": compare("mixer", 3 * args.rounds),
        "model": compare("model", args.rounds),
    }
    (RESULTS / "mixer_speed.json").write_text(
        json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    show("The mixer alone, [4, 8, 64, 384], BN and LIF included:", record["mixer"])
    show("The whole 4-384 CIFAR model, B = 8, T = 4:", record["model"])
    print("\n| N, D | tokens: product | tokens: FFT | both axes: products | both axes: FFT |")
    print("|---|---|---|---|---|")
    for r in record["fourier"]:
        each = (f"{r[f'{k}_ms']:.2f} ms" for k in ("product", "fft", "2d_product", "2d_fft"))
        print(f"| {r['N']}, {r['D']} | " + " | ".join(each) + " |")
    print("\n| | time at N = 16, 64, 256, 1024 | N^ | memory | N^ |\n|---|---|---|---|---|")
    for name, c in record["growth"].items():
        ms, mib = (", ".join(f"{value:.1f}" for value in c[what]) for what in ("ms", "mib"))
        print(f"| {name} | {ms} ms | {c['exponent']} | {mib} MiB | {c['memory_exponent']} |")
    draw(record)


if __name__ == "__main__":
    main()
