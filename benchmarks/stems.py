"""Compare the stems SPS and SCS, and pre-training with supervised training: python -m benchmarks.stems

First the two stems alone, forward with backward and inference, at three image sizes. SCS comes in two forms:
it halves the grid in the same stages as SPS, or early, as our small models do. Then one step of masked
pre-training against one step of supervised training of the same encoder, at three sizes; the same for the
stem and the blocks alone. The blocks get cheaper, because they see fewer tokens. The stem does not, because
it is computed densely. All variants are timed in turn, round after round, and each ratio is taken within a
round. Writes results/stems.json and results/stems.png.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.ablations import machine, macs
from benchmarks.mixers import in_turn
from minispike import Module, Tensor, create_model, no_grad, ops
from minispike.configs import configuration
from minispike.masked import masked_autoencoder, random_visible
from minispike.measure import viz
from minispike.optim import AdamW
from minispike.parallel import keep_freed_memory
from minispike.visible import Visible

RESULTS = Path(__file__).parent / "results"

EARLY = {
    data: configuration(name).pools
    for data, name in {
        "digits": "spikformer_v2_1_64_digits",
        "fashion": "spikformer_v2_2_64_fashion",
    }.items()
}
DATA = {  # name: (SPS's model, width, batch, steps, share of the rounds)
    "digits": ("spikformer_1_64_digits", 64, 32, 4, 1.0),
    "fashion": ("spikformer_2_64_fashion", 64, 8, 4, 1.0),
    "imagenet": ("spikformer_8_384_imagenet", 384, 1, 1, 0.4),
}
SIZES = {  # name: (overrides of spikformer_v2_2_64_fashion, batch, values of T)
    "2-64": (dict(embed_dim=64, depth=2, num_heads=4), 8, (1, 4)),
    "4-128": (dict(embed_dim=128, depth=4, num_heads=4), 8, (1, 4)),
    "6-256": (dict(embed_dim=256, depth=6, num_heads=8), 4, (1,)),
}
MASKS = (0.5, 0.75)

# ---------------------------------------------------------------- the stems


class Stem(Module):
    """A model's stem on static images [B, H, W, C], each shown for T time steps."""

    def __init__(self, stem: Module, T: int):
        self.stem, self.T = stem, T

    def forward(self, images):
        return self.stem(images.reshape(1, *images.shape), T=self.T)


def make_stems(data: str) -> dict[str, Stem]:
    """Return the stems to compare: SPS, SCS that halves in the same stages, and early as our models do."""
    name, width, _, T, _ = DATA[data]
    kinds = {"SPS": {}, "SCS": {"stem": "scs"}}
    if data in EARLY:
        kinds["SCS early"] = {"stem": "scs", "pools": EARLY[data]}
    models = {kind: create_model(name, depth=0, embed_dim=width, **extra) for kind, extra in kinds.items()}
    return {kind: Stem(model.stem, T) for kind, model in models.items()}


def compare_stems(data: str, rounds: int) -> list[dict]:
    """Time the stems on random images; return one row per stem."""
    _, width, B, T, share = DATA[data]
    rounds, stems = max(1, round(share * rounds)), make_stems(data)
    size = {"digits": (8, 8, 1), "fashion": (32, 32, 1), "imagenet": (224, 224, 3)}[data]
    images = np.random.default_rng(0).standard_normal((B, *size)).astype("float32")
    train = in_turn({k: lambda s=s: step(s, images) for k, s in stems.items()}, rounds, f"{data}, training")
    infer = in_turn({k: lambda s=s: run(s, images) for k, s in stems.items()}, rounds, f"{data}, inference")
    rows = []
    for kind, stem in stems.items():
        rows.append(
            {
                "data": data,
                "stem": kind,
                "images": [B, *size],
                "width": width,
                "T": T,
                "rounds": rounds,
                "train_ms": round(1e3 * median(train[kind]), 2),
                "train_ratio": round(ratio(train, kind, "SPS"), 2),
                "infer_ms": round(1e3 * median(infer[kind]), 2),
                "infer_ratio": round(ratio(infer, kind, "SPS"), 2),
                "parameters": stem.num_params(),
                "macs": macs(Stem(stem.stem, 1), images[:1]),
            }
        )
    return rows


def step(module: Module, x) -> None:
    """Run forward in training mode, and backward from a gradient of ones."""
    for parameter in module.parameters():
        parameter.grad = None
    y = module.train()(x)
    y.backward(np.ones(y.shape, y.dtype))


def run(module: Module, x) -> None:
    with no_grad():
        module.eval()(x)


def ratio(times: dict[str, list[float]], name: str, to: str) -> float:
    """Return the time of `name` over the time of `to`, as the median over rounds."""
    return median(a / b for a, b in zip(times[name], times[to], strict=True))


# ---------------------------------------------------------------- pre-training


def pretraining_tasks(size: str, T: int) -> dict[str, Callable]:
    """Return the tasks to time at one size, by name: a whole step, the stem alone, the blocks alone.

    "step", "stem" and "blocks" are those of supervised training. With a mask ratio after the name, as in
    "step 0.5", they are those of pre-training.
    """
    overrides, B, _ = SIZES[size]
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((B, 32, 32, 1)).astype("float32"), rng.integers(0, 10, B)
    model = create_model("spikformer_v2_2_64_fashion", T=T, **overrides)
    optimizer = AdamW(model.parameters())

    def supervised():
        optimizer.zero_grad()
        ops.softmax_cross_entropy(model.train()(images), labels).backward()
        optimizer.step()

    tasks = {"step": supervised} | parts(model, images, None)
    for mask in MASKS:
        masked = masked_autoencoder("spikformer_v2_2_64_fashion", mask_ratio=mask, T=T, **overrides)
        visible = random_visible(B, masked.grid, masked.n_visible, rng)
        found = {"step": pretraining_step(masked, images, visible)} | parts(masked, images, Visible(visible))
        tasks |= {f"{name} {mask}": task for name, task in found.items()}
    return tasks


def pretraining_step(masked: Module, images, visible) -> Callable:
    optimizer = AdamW(masked.parameters())

    def step():
        optimizer.zero_grad()
        masked.train()(images, visible).backward()
        optimizer.step()

    return step


def parts(model, images, visible: Visible | None) -> dict[str, Callable]:
    """Return two tasks: forward and backward of the stem alone, and of the blocks on random tokens."""
    halvings = sum(stage.half for stage in model.stem.stages)
    tokens = visible.per_sample if visible else (32 >> halvings) ** 2
    shape = (model.T, len(images), tokens, model.stem.stages[-1].down.map.out_channels)
    x = (np.random.default_rng(0).random(shape) < 0.2).astype("float32")

    def stem():
        y = model.stem.train()(images[None], T=model.T, visible=visible)
        y.backward(np.ones(y.shape, y.dtype))

    def blocks():
        y = Tensor(x, requires_grad=True)
        for block in model.blocks:
            y = block.train()(y)
        y.backward(np.ones(y.shape, y.dtype))

    return {"stem": stem, "blocks": blocks}


def compare_pretraining(size: str, T: int, rounds: int) -> dict:
    """Time one size; return the milliseconds, and for each mask the ratios pre-training/supervised."""
    overrides, B, _ = SIZES[size]
    times = in_turn(pretraining_tasks(size, T), rounds, f"pre-training {size}, T = {T}")
    model = create_model("spikformer_v2_2_64_fashion", **overrides)
    row = {"model": size, "T": T, "batch": B, "rounds": rounds, "parameters": model.num_params()}
    row["ms"] = {name: round(1e3 * median(each), 2) for name, each in times.items()}
    row["ratio"] = {
        f"{what} {mask}": round(ratio(times, f"{what} {mask}", what), 3)
        for mask in MASKS
        for what in ("step", "stem", "blocks")
    }
    return row


# ---------------------------------------------------------------- showing


def show(record: dict) -> None:
    print("\n| images | stem | training | over SPS | inference | over SPS | parameters | MACs |")
    print("|---|---|---|---|---|---|---|---|")
    for r in record["stems"]:
        images = f"{r['images']}, D = {r['width']}, T = {r['T']}"
        train = f"{r['train_ms']:.1f} ms | {r['train_ratio']:.2f}"
        infer = f"{r['infer_ms']:.1f} ms | {r['infer_ratio']:.2f}"
        print(
            f"| {images} | {r['stem']} | {train} | {infer} | {r['parameters']:,} | {r['macs'] / 1e6:.2f} M |"
        )
    print("\nTime of pre-training over supervised training; a step includes optimizer, decoder or head:")
    print("\n| model | T | mask | supervised | pre-training | step | stem | blocks |")
    print("|---|---|---|---|---|---|---|---|")
    for r in record["pretraining"]:
        for mask in MASKS:
            shares = " | ".join(f"{r['ratio'][f'{what} {mask}']:.2f}" for what in ("step", "stem", "blocks"))
            both = f"{r['ms']['step']:.1f} ms | {r['ms'][f'step {mask}']:.1f} ms"
            print(f"| {r['model']}, {r['parameters']:,} | {r['T']} | {mask} | {both} | {shares} |")


def draw(record: dict) -> None:
    fig, (left, right) = viz.figure(1, 2, size=(12, 4.6))
    colors = {"SPS": viz.ORANGE, "SCS": viz.BLUE, "SCS early": "#7fb2e5"}
    for kind, color in colors.items():
        rows = [r for r in record["stems"] if r["stem"] == kind]
        x = [list(DATA).index(r["data"]) + 0.27 * (list(colors).index(kind) - 1) for r in rows]
        left.bar(x, [r["train_ratio"] for r in rows], 0.25, color=color, label=f"{kind}: time")
        ones = [r["macs"] for r in record["stems"] if r["stem"] == "SPS"]
        shares = [r["macs"] / ones[list(DATA).index(r["data"])] for r in rows]
        left.plot(x, shares, "_", color=viz.INK, markersize=20, label="MACs" if kind == "SPS" else None)
    left.set_xticks(range(len(DATA)), DATA)
    left.set(title="stems: forward and backward", ylabel="relative to SPS", ylim=(0, None))
    left.legend(frameon=False)
    rows = [r for r in record["pretraining"] if r["T"] == 1]
    for what, color in (("step", viz.INK), ("stem", viz.BLUE), ("blocks", viz.ORANGE)):
        for mask, line in zip(MASKS, ("--", "-"), strict=True):
            y = [r["ratio"][f"{what} {mask}"] for r in rows]
            x = [r["parameters"] / 1e6 for r in rows]
            right.plot(x, y, line, color=color, marker="o", label=f"{what}, {mask:.0%} hidden")
    right.axhline(1, color=viz.GREY, linewidth=1)
    right.set_xscale("log")
    right.set_xticks([r["parameters"] / 1e6 for r in rows], [f"{r['parameters'] / 1e6:.2g} M" for r in rows])
    right.minorticks_off()
    right.set(
        xlabel="parameters", ylabel="pre-training / supervised", title="one step, T = 1", ylim=(0, None)
    )
    right.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    fig.savefig(RESULTS / "stems.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="timed rounds of each measurement (default 9)")
    args = parser.parse_args()
    keep_freed_memory()
    sizes = [(size, T) for size, (_, _, steps) in SIZES.items() for T in steps]
    record = {
        "command": f"python -m benchmarks.stems --rounds {args.rounds}",
        "date": date.today().isoformat(),
        "machine": machine(),
        "stems": [row for data in DATA for row in compare_stems(data, args.rounds)],
        "pretraining": [compare_pretraining(size, T, args.rounds) for size, T in sizes],
    }
    (RESULTS / "stems.json").write_text(
        json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    show(record)
    draw(record)


if __name__ == "__main__":
    main()
