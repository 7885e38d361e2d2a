"""What a GPU shows: python -m benchmarks.gpu prove | measure | train      (each takes at most seven minutes)

    prove      that it works: the tests on the GPU and on the processor, and a training of the digits
    measure    how fast it is: next to the ceilings of copy and product, to the array path, to SpikingJelly's
               backends and to torch.compile, without TF32 and with it
    train      Fashion-MNIST by its recipe, with the time

Each line of a part runs in a process of its own, the most valuable one first, and results/gpu-PART.json is
written after every line. A line that fails, or a peer that is not installed, is noted in the record, and the
rest goes on; no line is started when the time is over.

A machine without a network gets what it lacks from a folder that is packed elsewhere:

    python -m benchmarks.gpu pack FOLDER            wheels for Python 3.12, and Fashion-MNIST; below 64 MiB
    python -m benchmarks.gpu prove --packed FOLDER

--rehearse runs the same lines on the processor, with small models, to see that they run at all.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import numpy as np

from data_utils.download import fetch
from data_utils.images.mnist import DEBIAN, FASHION_MD5, FASHION_URL
from minispike import Tensor, backend, create_model, lif, no_grad, ops, to_device, trace
from minispike.fused import NormaliseAndFire, norm_lif
from minispike.nn import LIF, BatchNorm
from minispike.optim import AdamW
from minispike.train import calibrate

RESULTS = Path(__file__).parent / "results"
BUDGET, LONGEST = 400, 240  # seconds of a part, after which no line is started; and of one line
REHEARSE = "MINISPIKE_REHEARSE" in os.environ
DEVICE = "cpu" if REHEARSE else "cuda"
BIG, SMALL = (4, 2) if REHEARSE else (128, 32)  # batches
MODEL = {"embed_dim": 16, "depth": 1, "num_heads": 2} if REHEARSE else {}
STEPS = 2 if REHEARSE else 10

# ---------------------------------------------------------------- time


def milliseconds(run: Callable[[], object], torch=None) -> float:
    """Return the median time of a call on the device, after three that do not count.

    On a GPU the clock is its own: events before and after, on the stream that everything runs on.
    """
    found = []
    for _ in range(STEPS + 3):
        if REHEARSE:
            began = time.perf_counter()
            run()
            found.append(1e3 * (time.perf_counter() - began))
        else:
            found.append(_by_events(run, torch))
    return round(median(found[3:]), 4)


def _by_events(run: Callable[[], object], torch) -> float:
    if torch:
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        run()
        last.record()
        last.synchronize()
        return first.elapsed_time(last)
    import cupy

    first, last = cupy.cuda.Event(), cupy.cuda.Event()
    first.record()
    run()
    last.record()
    last.synchronize()
    return cupy.cuda.get_elapsed_time(first, last)


def queued(run: Callable[[], object]) -> float:
    """Return the milliseconds in which the host has queued a call, without waiting for its end."""
    found = []
    for _ in range(STEPS):
        began = time.perf_counter()
        run()
        found.append(1e3 * (time.perf_counter() - began))
        _wait()
    return round(median(found), 3)


def _wait() -> None:
    if not REHEARSE:
        import cupy

        cupy.cuda.runtime.deviceSynchronize()


def peak_mib() -> float:
    """Return what CuPy's pool has taken from the GPU so far, in MiB."""
    if REHEARSE:
        return 0.0
    import cupy

    return round(cupy.get_default_memory_pool().total_bytes() / 2**20, 1)


# ---------------------------------------------------------------- ceilings, and what a step needs


def product_ceiling(n: int) -> float:
    """Return the TFLOP/s of a float32 product of n×n matrices."""
    rng = np.random.default_rng(0)
    a, b = (to_device(rng.standard_normal((n, n)).astype("float32"), DEVICE) for _ in range(2))
    return round(2 * n**3 / milliseconds(lambda: a @ b) / 1e9, 2)


def copy_ceiling(mib: int) -> float:
    """Return the GB/s of a copy on the device, bytes read and bytes written."""
    x = to_device(np.zeros(mib * 2**18, "float32"), DEVICE)
    y = x.copy()

    def copy():
        y[...] = x

    return round(2 * x.nbytes / milliseconds(copy) / 1e6, 1)


def ceilings() -> dict:
    """Products of the step's size and larger ones, and copies."""
    sides, mib = ((64,), 8) if REHEARSE else ((2048, 4096, 8192), 1024)
    products = {f"{n}": product_ceiling(n) for n in sides}
    return {"TFLOP/s, products of n×n": products, "GB/s, a copy": copy_ceiling(mib)}


def needs(model, x) -> dict[str, float]:
    """Return what a training step must compute and move at least: FLOP of products, bytes of everything else.

    Forward and backward take three times the forward's products. A product moves its inputs and its output,
    and twice as much in backward. Batch norm with neurons reads x for the moments, x again, and writes S; in
    backward it reads x and ∂L/∂S and writes a gradient, reads x and that gradient and writes it again. Other
    ops read and write once, and twice in backward; AdamW reads four arrays and writes three.
    """
    flop = moved = 0.0

    def look(function, inputs, output, path):
        nonlocal flop, moved
        arrays = [x.data for x in inputs if isinstance(x, Tensor)]
        came, went = sum(a.nbytes for a in arrays), output.data.nbytes
        if hasattr(function, "cost"):
            shapes = (a.shape for a in arrays)
            flop += 3 * 2 * function.cost(*shapes, **function.constants)
        if isinstance(function, NormaliseAndFire):
            moved += 2 * arrays[0].nbytes + went + went + 5 * arrays[0].nbytes
        elif function.name not in ("Reshape", "Transpose", "BroadcastTo"):
            moved += 3 * (came + went)

    with no_grad(), trace(look):
        model(x)
    moved += 7 * sum(p.data.nbytes for p in model.parameters())
    return {"products, GFLOP": round(flop / 1e9, 2), "moved, GB": round(moved / 1e9, 3)}


# ---------------------------------------------------------------- our side


def images(B: int, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Return the same pictures and labels for every side."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((B, size, size, 3)).astype("float32"), rng.integers(0, 10, B)


def step_of(model, x, labels) -> Callable[[], None]:
    """Return a function that takes a training step, without looking at its loss."""
    optimizer = AdamW(model.parameters(), lr=1e-4)

    def step():
        optimizer.zero_grad()
        ops.softmax_cross_entropy(model(x), labels).backward()
        optimizer.step()

    return step


def ours(B: int, storey: str = "kernels", **overrides) -> dict:
    """Return the times of a training step and of inference of Spikformer-4-384."""
    has_heads = overrides.get("mixer", "ssa") in ("ssa", "sasa")
    small = {name: size for name, size in MODEL.items() if has_heads or name != "num_heads"}
    model = create_model("spikformer_4_384_cifar10", **small, **overrides).to(DEVICE)
    x, labels = images(B)
    x = to_device(x, DEVICE)
    with backend.plain() if storey == "array path" else nullcontext():
        step = step_of(model, x, labels)
        found = {"B": B, "storey": storey, "train, ms": milliseconds(step), "queued, ms": queued(step)}
        found["peak, MiB"] = peak_mib()
        calibrate(model, [(x, labels)])
        model.eval()

        def infer():
            with no_grad():
                return model(x)

        found["infer, ms"] = milliseconds(infer)
    return found | needs(model, x)


def mixers(B: int) -> dict:
    """Return the times of the papers' mixers in the same network: a training step and inference."""
    kinds = {"SSA": {}, "1-D FFT": {"mixer": "fft1d"}, "2-D FFT": {"mixer": "fft2d"}}
    kinds |= {"Haar": {"mixer": "haar"}, "SASA": {"mixer": "sasa"}}
    found = {}
    for name, mixer in kinds.items():
        row = ours(B, **mixer)
        found[name] = {key: row[key] for key in ("train, ms", "infer, ms")}
    return found


def layers(B: int) -> dict:
    """Return the GB/s of neurons alone, and of batch norm with neurons, by the bytes that they must move."""
    found = {}
    for T, P, C in [(4, B * 64, 384), (4, B * 1024, 48), (4, B * 64, 1536)]:
        x = to_device(np.random.default_rng(0).standard_normal((T, P, C)).astype("float32"), DEVICE)
        leaf, norm = Tensor(x, requires_grad=True), BatchNorm(C).to(DEVICE, "float32")
        norm.weight.data[...] = 2
        s = lif(leaf)
        back = s.creator.backward

        def forward(leaf=leaf):
            with no_grad():
                lif(leaf)

        def backward(back=back, gy=s.data):
            back(gy)

        def both(leaf=leaf, norm=norm, gy=s.data):
            leaf.grad = norm.weight.grad = norm.bias.grad = None
            norm_lif(leaf, norm, LIF()).backward(gy)

        gb = x.nbytes / 1e6
        row = {"LIF forward": round(2 * gb / milliseconds(forward), 1)}
        row["LIF backward"] = round(3 * gb / milliseconds(backward), 1)
        row["norm + LIF, both"] = round(9 * gb / milliseconds(both), 1)
        found[f"{T}×{P}×{C}"] = row
    return found


# ---------------------------------------------------------------- peers


def peer(way: str, B: int) -> dict:
    """Return the times of the same network in PyTorch with SpikingJelly's neuron.

    way: the implementation of the neuron: torch, cuda (its own kernels) or triton; or compile, which is
    torch.compile of the whole network with the implementation that SpikingJelly chooses.
    """
    os.environ["SJ_LIF_CUDA_IMPLEMENTATION"] = "auto" if way == "compile" else way
    import torch
    from spikingjelly.activation_based import functional

    from tests.oracle import transcription

    place = torch.device("cpu" if REHEARSE else "cuda")
    tf32 = os.environ.get("CUPY_TF32") == "1"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.manual_seed(0)
    small = dict(dim=16, depth=1, heads=2) if REHEARSE else dict(dim=384, depth=4, heads=12)
    config = dict(channels=3, pools=(False, False, True, True), ratio=4, scale=0.125, kind="linear")
    config |= dict(qkv_bias=True, classes=10, T=4, neuron=transcription.jelly_lif) | small
    model = transcription.Spikformer(**config).to(place)
    run = torch.compile(model) if way == "compile" else model
    x, labels = (torch.from_numpy(a).to(place) for a in images(B))
    x = x.permute(0, 3, 1, 2).contiguous()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=not REHEARSE)

    def step():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(run(x), labels).backward()
        optimizer.step()
        functional.reset_net(model)

    def infer():
        with torch.no_grad():
            run(x)
        functional.reset_net(model)

    found = {"B": B, "way": way, "train, ms": milliseconds(step, torch)}
    execution = "compile" if way == "compile" else "eager"
    found["neuron"] = functional.neuron_implementation("lif", place, execution=execution)["implementation"]
    found["peak, MiB"] = 0 if REHEARSE else round(torch.cuda.max_memory_allocated() / 2**20, 1)
    model.eval()
    return found | {"infer, ms": milliseconds(infer, torch)}


# ---------------------------------------------------------------- the parts

ONES: dict[str, Callable[[], dict]] = {
    "ceilings": ceilings,
    "ours, B large": lambda: ours(BIG),
    "ours, B small": lambda: ours(SMALL),
    "array path, B large": lambda: ours(BIG, "array path"),
    "array path, B small": lambda: ours(SMALL, "array path"),
    "layers": lambda: layers(BIG),
    "mixers": lambda: mixers(BIG),
    **{f"SpikingJelly {b}, B large": lambda b=b: peer(b, BIG) for b in ("torch", "cuda", "triton")},
    **{f"SpikingJelly {b}, B small": lambda b=b: peer(b, SMALL) for b in ("torch", "cuda", "triton")},
    "torch.compile, B large": lambda: peer("compile", BIG),
    "torch.compile, B small": lambda: peer("compile", SMALL),
}


def one(name: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.gpu", "one", name]


def training(name: str, work: Path, *options: str) -> list[str]:
    """Return the command of a whole training on the GPU, in a folder of its own."""
    short = ("--epochs", "1") if REHEARSE else ()
    run = [sys.executable, "-m", "minispike", "train", "--data", name, "--device", DEVICE, *options, *short]
    return [*run, "--out", str(work / name)]


def tests(*options: str) -> list[str]:
    few = ("tests/test_stand_in.py",) if REHEARSE else ()
    return [sys.executable, "-m", "pytest", "-q", "--no-header", *options, *few]


def lines(part: str, work: Path, data: str) -> list[tuple[str, list[str], dict]]:
    """Return (name, command, environment) of each line of a part."""
    if part == "prove":
        return [
            ("tests on the GPU", tests("-m", "not slow" if REHEARSE else "gpu and not slow", "-n", "4"), {}),
            ("digits", training("digits", work), {}),
            ("lesson 00", [sys.executable, "-m", "lessons.00_autograd"], {"MPLBACKEND": "agg"}),
            ("tests on the processor", tests("-n", "12"), {}),
            ("all settings", tests("-m", "slow" if REHEARSE else "gpu and slow", "-n", "4"), {}),
        ]
    if part == "train":
        root = ("--root", data) if data else ()
        return [("fashion-mnist", training("fashion-mnist", work, *root), {})]
    order = ["ceilings", "ours, B large", "SpikingJelly torch, B large", "SpikingJelly cuda, B large"]
    order += ["SpikingJelly triton, B large", "torch.compile, B large", "layers", "array path, B large"]
    order += ["mixers", "ours, B small", "SpikingJelly cuda, B small", "torch.compile, B small"]
    order += ["array path, B small", "SpikingJelly torch, B small", "SpikingJelly triton, B small"]
    tf32 = {"CUPY_TF32": "1"}
    again = ["ceilings", "ours, B large", "SpikingJelly cuda, B large", "torch.compile, B large"]
    with_tf32 = [(f"{name}, with TF32", one(name), tf32) for name in again]
    return [(name, one(name), {}) for name in order[:9]] + with_tf32 + [(n, one(n), {}) for n in order[9:]]


def run_part(part: str, packed: Path | None) -> None:
    """Run a part's lines one after another, and write the record after each."""
    began, environment = time.monotonic(), dict(os.environ)
    if packed:
        environment["PYTHONPATH"] = f"{unpack(packed)}{os.pathsep}{environment.get('PYTHONPATH', '')}"
    data = str(packed.resolve()) if packed and list(packed.glob("*ubyte*")) else ""
    record = {"command": f"python -m benchmarks.gpu {part}", "date": str(date.today())}
    record |= {"machine": machine(environment), "lines": {}}
    path = RESULTS / f"gpu-{part}.json"
    if REHEARSE:
        path = Path(tempfile.mkdtemp()) / path.name
    with tempfile.TemporaryDirectory() as work:
        for name, command, extra in lines(part, Path(work), data):
            left = BUDGET - (time.monotonic() - began)
            if left < 10:
                record["lines"][name] = "not started: the time was over"
            else:
                print(f"{name} …", flush=True)
                most = left if part == "train" else min(left + 20, LONGEST)
                record["lines"][name] = result = run_line(command, environment | extra, most)
                print(json.dumps(result, ensure_ascii=False)[:600], flush=True)
            path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(f"written: {path}, after {time.monotonic() - began:.0f} s")


def run_line(command: list[str], environment: dict, seconds: float):
    """Run a command; return what its last line says in JSON, or its last lines, and how long it took."""
    began = time.monotonic()
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=seconds, check=False
        )
        out, code = done.stdout + done.stderr * bool(done.returncode), done.returncode
    except subprocess.TimeoutExpired as error:
        out, code = (error.stdout or b"").decode("utf-8", "replace"), f"stopped after {seconds:.0f} s"
    took = {"seconds": round(time.monotonic() - began, 1)} | ({"exit": code} if code else {})
    last = [line for line in out.strip().splitlines() if line][-12:]
    if not code and last and last[-1].startswith("{"):
        return json.loads(last[-1]) | took
    return {"text": last} | took


def machine(environment: dict) -> dict[str, str]:
    """Return what the figures were taken on: GPU, driver, and the versions of everything."""
    names = "numpy scipy cupy-cuda12x cupy-cuda13x torch triton spikingjelly numba".split()
    found = {"python": platform.python_version(), "processor": platform.processor()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    query = "--query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit"
    try:
        command = ["nvidia-smi", query, "--format=csv,noheader"]
        found["GPU"] = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        found["GPU"] = f"unknown ({error})"
    return found


# ---------------------------------------------------------------- for a machine without a network

WHEELS = ("PyWavelets", "pooch", "platformdirs", "loguru", "spikingjelly==2.0.0")
MOST = 64 * 2**20  # bytes of a packed folder


def pack(folder: Path) -> None:
    """Put into a folder what a machine without a network lacks: wheels for Python 3.12, and Fashion-MNIST."""
    folder.mkdir(parents=True, exist_ok=True)
    platforms = [f"--platform=manylinux{tag}_x86_64" for tag in ("_2_28", "_2_27", "_2_17", "2014")]
    options = ["--no-deps", "--only-binary=:all:", "--python-version=3.12", *platforms]
    command = [sys.executable, "-m", "pip", "download", "-q", *options, "-d", str(folder), *WHEELS]
    subprocess.run(command, check=True)
    source = DEBIAN if DEBIAN.is_dir() else fetch("fashion-mnist", FASHION_URL, FASHION_MD5, "pack")
    for name in FASHION_MD5:
        shutil.copy(source / name, folder)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {size / 2**20:.1f} MiB in {len(list(folder.iterdir()))} files")
    if size > MOST:
        raise ValueError(f"{folder} is larger than {MOST // 2**20} MiB")


def unpack(folder: Path) -> Path:
    """Install a folder's wheels, beside those that are installed; return where they are."""
    site = Path(tempfile.gettempdir()) / "minispike-packed"
    wheels = [str(path) for path in folder.glob("*.whl")]
    options = ["--no-index", "--no-deps", "--upgrade", "--target", str(site)]
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *options, *wheels], check=True)
    return site


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("prove", "measure", "train", "pack", "one"))
    parser.add_argument("name", nargs="?", help="the folder to pack, or the one line to run")
    parser.add_argument("--packed", type=Path, help="a folder that `pack` has made")
    parser.add_argument("--rehearse", action="store_true", help="on the processor, with small models")
    args = parser.parse_args()
    if args.rehearse and not REHEARSE:
        os.environ["MINISPIKE_REHEARSE"] = "1"
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks.gpu", *sys.argv[1:]])
    if args.part in ("pack", "one") and not args.name:
        parser.error(f"{args.part} needs a name")
    if args.part == "pack":
        pack(Path(args.name))
    elif args.part == "one":
        print(json.dumps(ONES[args.name](), ensure_ascii=False))
    else:
        run_part(args.part, args.packed)


if __name__ == "__main__":
    main()
