"""Compare times with PyTorch and SpikingJelly: python -m benchmarks.compare

The sides are minispike and the same network transcribed to PyTorch with SpikingJelly's multi-step neuron. The
tasks are the neuron, the attention, the Fourier mixers, and a whole training step and inference of
Spikformer-4-384. Each side runs in a process of its own, so its memory can be measured alone. The sides take
turns (A B A B …), and each ratio is taken within a turn. With --compile, the training step of the
transcription is also timed under torch.compile (this needs a C++ compiler and some minutes). Writes
results/compare.json.

Inference is that of a fresh network whose batch norms are calibrated on a batch first: otherwise it is silent
behind the first stage. The environment variables OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE can pin NumPy's
OpenBLAS to another processor. They are not passed on to the sides, because they would slow down NumPy's
products but not PyTorch's. The record names OpenBLAS's kernel, the processor's vector instructions, and the
row by which products with spikes are computed.

The environment needs PyTorch, SpikingJelly, and what SpikingJelly imports:
    pip install torch==2.13.0
    pip install --no-deps spikingjelly==2.0.0
    pip install loguru tqdm matplotlib
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median

import numpy as np
from threadpoolctl import threadpool_info
from tqdm import tqdm

RESULTS = Path(__file__).parent / "results"
CIFAR, IMAGENET = (4, 32, 64, 384), (4, 8, 196, 512)  # tokens [T, B, N, D]
HEADS = {CIFAR: 12, IMAGENET: 8}
TASKS = {  # name: (what is timed, the ratio to be reached, the ratio hoped for)
    "lif": ("LIF, forward and backward, [4, 32, 64, 384]", 0.50, 0.35),
    "ssa cifar": ("SSA, forward and backward, [4, 32, 64, 384]", 0.80, 0.60),
    "ssa imagenet": ("SSA, forward and backward, [4, 8, 196, 512]", 0.80, 0.60),
    "fft1d cifar": ("1-D Fourier mixer, [4, 32, 64, 384]", 0.80, 0.50),
    "fft1d imagenet": ("1-D Fourier mixer, [4, 8, 196, 512]", 0.80, 0.50),
    "fft2d cifar": ("2-D Fourier mixer, [4, 32, 64, 384]", 0.80, 0.50),
    "fft2d imagenet": ("2-D Fourier mixer, [4, 8, 196, 512]", 0.80, 0.50),
    "train": ("Spikformer-4-384, B = 32, a training step", 0.60, 0.45),
    "infer": ("Spikformer-4-384, B = 32, inference, calibrated", 0.45, 0.30),
}


def inputs(task: str):
    """Return (input, labels or gradient of the output), the same numbers for every side."""
    rng = np.random.default_rng(0)
    if task in ("train", "infer"):
        return rng.standard_normal((32, 32, 32, 3)).astype("float32"), rng.integers(0, 10, 32)
    shape = IMAGENET if "imagenet" in task else CIFAR
    gy = rng.standard_normal(shape).astype("float32")
    if task == "lif":
        return 2 * rng.standard_normal(shape).astype("float32"), gy
    return rng.integers(0, 3, shape).astype("float32"), gy


# ---------------------------------------------------------------- one side, one task


def ours(task: str) -> Callable[[], object]:
    from minispike import Spiking, Tensor, create_model, lif, no_grad, ops, set_threads
    from minispike.blocks.fourier import FourierMix
    from minispike.blocks.ssa import SSA
    from minispike.optim import AdamW
    from minispike.parallel import keep_freed_memory
    from minispike.train import calibrate

    set_threads(2)
    keep_freed_memory()  # as fit does
    x, gy = inputs(task)
    if task in ("train", "infer"):
        model = create_model("spikformer_4_384_cifar10")
        optimizer = AdamW(model.parameters(), lr=1e-4)
        if task == "infer":
            calibrate(model, [(x, gy)])
            model.eval()

        def train():
            optimizer.zero_grad()
            ops.softmax_cross_entropy(model(x), gy).backward()
            optimizer.step()

        def infer():
            with no_grad():
                return model(x).data

        return train if task == "train" else infer
    D = x.shape[-1]
    module = {
        "lif": lambda: lif,
        "ssa": lambda: SSA(D, HEADS[x.shape], rng=0).to(dtype="float32"),
        "fft1d": lambda: Spiking(FourierMix(D)).to(dtype="float32"),
        "fft2d": lambda: Spiking(FourierMix(D, "tokens and channels")).to(dtype="float32"),
    }[task.split()[0]]()

    def both():
        if task != "lif":
            for parameter in module.parameters():
                parameter.grad = None
        leaf = Tensor(x, requires_grad=True)
        module(leaf).backward(gy)

    return both


def theirs(task: str, compiled: bool = False) -> Callable[[], object]:
    import torch
    from spikingjelly.activation_based import functional

    from tests.oracle import transcription

    torch.set_num_threads(2)
    torch.manual_seed(0)
    x, gy = (torch.from_numpy(a) for a in inputs(task))
    if task in ("train", "infer"):
        config = dict(channels=3, dim=384, pools=(False, False, True, True), depth=4, heads=12, ratio=4)
        config |= dict(scale=0.125, kind="linear", qkv_bias=True, classes=10, T=4)
        model = transcription.Spikformer(**config, neuron=transcription.jelly_lif)
        x = x.permute(0, 3, 1, 2).contiguous()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        run = torch.compile(model) if compiled else model

        def train():
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(run(x), gy).backward()
            optimizer.step()
            functional.reset_net(model)

        def infer():
            with torch.no_grad():
                y = run(x)
            functional.reset_net(model)
            return y

        if task == "infer":
            for module in model.modules():
                module.momentum = 1.0  # batch norm's running statistics become those of this batch
            infer()
        model.train(task == "train")
        return train if task == "train" else infer

    D, kind = x.shape[-1], task.split()[0]
    if kind == "ssa":
        module = transcription.Attention(
            D, HEADS[tuple(x.shape)], 0.125, "linear", True, transcription.jelly_lif
        )
        x, gy = x.transpose(2, 3).contiguous(), gy.transpose(2, 3).contiguous()
    elif kind == "lif":
        module = transcription.jelly_lif()
    else:
        module = FourierPeer(D, kind)

    def both():
        module.zero_grad()
        leaf = x.clone().requires_grad_()
        module(leaf).backward(gy)
        functional.reset_net(module)

    return both


def FourierPeer(dim: int, kind: str):  # returns a module; the class is inside, because it needs torch
    import torch

    from tests.oracle.transcription import jelly_lif

    class Mixer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.neuron = torch.nn.BatchNorm1d(dim), jelly_lif()

        def forward(self, x):
            axes = (2,) if kind == "fft1d" else (2, 3)
            y = torch.fft.fftn(x, dim=axes, norm="ortho").real
            return self.neuron(self.norm(y.flatten(0, 2)).reshape(x.shape))

    return Mixer()


def gemm() -> Callable[[], object]:
    """Return the ceiling: a large float32 product, of 2·n³ floating-point operations."""
    a, b = np.random.default_rng(0).standard_normal((2, GEMM, GEMM)).astype("float32")
    return lambda: a @ b


GEMM = 3072
SIDES = {"ours": ours, "jelly": theirs, "compiled": lambda task: theirs(task, True), "gemm": lambda _: gemm()}

# ---------------------------------------------------------------- sides that take turns


def memory() -> int:
    """Return this process's peak resident memory in KiB (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def work(side: str, task: str) -> None:
    """Work as one side: for each line on stdin, run once and print the seconds and the peak in MiB."""
    import minispike  # noqa: F401

    if side in ("jelly", "compiled"):
        import spikingjelly.activation_based.neuron  # noqa: F401
    imported = memory()
    run = SIDES[side](task)
    print(json.dumps(software()), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        taken = time.perf_counter() - start
        print(json.dumps([taken, (memory() - imported) / 1024]), flush=True)


def software() -> dict[str, str]:
    """Return the versions in use: NumPy's matrix kernel and, if imported, PyTorch and SpikingJelly."""
    blas = next(each for each in threadpool_info() if each["internal_api"] == "openblas")
    peers = {name: version(name) for name in ("torch", "spikingjelly") if name in sys.modules}
    from minispike.kernels.events import products

    flags = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
    vectors = " ".join(name for name in ("avx2", "fma", "avx512f") if name in flags)
    ours = {"vectors": vectors, "products": products(), "kernels hold zmm": hold_zmm()}
    return {"OpenBLAS": f"{blas['version']}, {blas['architecture']}"} | ours | peers


AVX2 = {  # on a processor with AVX-512: what holds each library to AVX2; torch.compile cannot be held
    "OPENBLAS_CORETYPE": "Haswell",
    "NUMBA_CPU_NAME": "haswell",  # which changes nothing without the features
    "NUMBA_CPU_FEATURES": "+avx2,+fma",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
}


def hold_zmm() -> bool:
    """Return whether the machine code of a compiled loop uses AVX-512's registers."""
    from numba import njit

    from minispike.kernels.compiled import loops

    x, fire = np.zeros(64, "float32"), njit(loops("loops").fire.py_func)  # what is cached cannot be read
    fire(x, np.ones(8, "float32"), x.copy())
    return any("zmm" in text for text in fire.inspect_asm().values())


class Side:
    """A process that runs one task each time `once` asks for it."""

    def __init__(self, side: str, task: str, isa: dict[str, str] | None = None):
        command = [sys.executable, "-m", "benchmarks.compare", "--work", side, task]
        pins = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
        env = {name: value for name, value in os.environ.items() if name not in pins} | (isa or {})
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )
        self.software = json.loads(self.process.stdout.readline() or "{}")

    def once(self) -> tuple[float, float]:
        """Run the task once; return (seconds, peak MiB so far, above what the imports need)."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError("a side of the comparison has died; see its messages above")
        return tuple(json.loads(answer))

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def compare(task: str, pairs: int, compiled: bool, isa: dict[str, str]) -> dict:
    """Time all sides of a task in turn and return the record. The first two turns do not count."""
    names = ["ours", "jelly", "gemm"] + (["compiled"] if compiled and task == "train" else [])
    sides = {name: Side(name, task, isa) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    peak: dict[str, float] = {}
    for i in tqdm(range(pairs + 2), desc=task):
        for name, side in sides.items():
            taken, peak[name] = side.once()
            if i >= 2:
                seconds[name].append(taken)
    for side in sides.values():
        side.close()
    ratios = [a / b for a, b in zip(seconds["ours"], seconds["jelly"], strict=True)]
    record = {
        "software": sides["ours"].software | sides["jelly"].software,
        "task": task,
        "ours_ms": round(1e3 * median(seconds["ours"]), 1),
        "jelly_ms": round(1e3 * median(seconds["jelly"]), 1),
        "ratio": round(median(ratios), 3),
        "least": round(min(ratios), 3),
        "most": round(max(ratios), 3),
        "memory_ratio": round(peak["ours"] / peak["jelly"], 3),
        "ours_mib": round(peak["ours"]),
        "jelly_mib": round(peak["jelly"]),
        "gemm_gflops": round(2 * GEMM**3 / median(seconds["gemm"]) / 1e9, 1),
    }
    if "compiled" in names:
        ratios = [a / b for a, b in zip(seconds["ours"], seconds["compiled"], strict=True)]
        record |= {
            "compiled_ms": round(1e3 * median(seconds["compiled"]), 1),
            "ratio_to_compiled": round(median(ratios), 3),
            "compiled_mib": round(peak["compiled"]),
        }
    if product_flops(task):
        record["gemm_share"] = share_of_ceiling(record)
    return record


def share_of_ceiling(row: dict) -> float:
    """Return the time of a row's products at the speed of the ceiling, as a share of the row's time."""
    return round(product_flops(row["task"]) / (row["ours_ms"] / 1e3) / 1e9 / row["gemm_gflops"], 3)


def product_flops(task: str) -> float:
    """Return the floating-point operations of a task's matrix products.

    0 for the neuron and the fixed transforms.
    """
    from benchmarks.ablations import macs
    from minispike.blocks.ssa import SSA

    if task in ("train", "infer"):
        return gemm_flops(backward=task == "train")
    if not task.startswith("ssa"):
        return 0
    x, _ = inputs(task)
    return 6 * macs(SSA(x.shape[-1], HEADS[x.shape], rng=0).to(dtype="float32"), x)  # 1 forward, 2 backward


def gemm_flops(backward: bool) -> float:
    """Return the floating-point operations of 4-384's products for 32 images, 2 per multiply-accumulate.

    The first convolution is computed once, everything else T times. Backward needs two products for each
    product of forward. It needs only one for the first convolution, because the image needs no gradient.
    """
    from benchmarks.ablations import macs
    from minispike import create_model

    image, T, B = np.zeros((1, 32, 32, 3), "float32"), 4, 32
    first = 32 * 32 * 9 * 3 * 48
    rest = macs(create_model("spikformer_4_384_cifar10", T=1), image) - first
    return 2 * B * (first * (2 if backward else 1) + T * rest * (3 if backward else 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", choices=[[], *TASKS], help="what to time; all by default")
    parser.add_argument("--pairs", type=int, default=7, help="turns that count (default 7)")
    parser.add_argument("--compile", action="store_true", help="also time a training step with torch.compile")
    held = "on a processor with AVX-512: hold both sides to AVX2"
    parser.add_argument("--isa", choices=["avx2"], help=held)
    parser.add_argument("--out", metavar="FILE", help="the record; by default results/compare.json, of all")
    parser.add_argument("--work", nargs=2, metavar=("SIDE", "TASK"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(*args.work)
        return
    from benchmarks.ablations import machine

    record = {
        "command": " ".join(["python -m benchmarks.compare", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": machine(),
        "rows": [],
    }
    print("| task | minispike | SpikingJelly | of time | goal | of memory |\n|---|---|---|---|---|---|")
    for task in args.tasks or TASKS:
        row = compare(task, args.pairs, args.compile, AVX2 if args.isa else {})
        record["software"] = row.pop("software")
        record["rows"].append(row)
        what, must, aim = TASKS[task]
        print(
            f"| {what} | {row['ours_ms']} ms | {row['jelly_ms']} ms | {row['ratio']:.2f} "
            f"({row['least']:.2f} … {row['most']:.2f}) | {must}, {aim} | {row['memory_ratio']:.2f} |"
        )
        extra = {key: row[key] for key in ("ratio_to_compiled", "compiled_ms", "gemm_share") if key in row}
        if extra:
            print(f"  {extra}, ceiling {row['gemm_gflops']} GFLOP/s")
    if args.out or not args.tasks:
        text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
        Path(args.out or RESULTS / "compare.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
