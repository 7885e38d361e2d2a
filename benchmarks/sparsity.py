"""Time inference over the share of active entries: python -m benchmarks.sparsity

Spikformer-4-384 on 32 images, T = 4, two threads. The input of every linear map and of every convolution but
the first is replaced by drawn spikes of a given active share, so that all layers have the same share. The
ways take turns: products as this processor's row of kernels/crossings.json chooses, all by events, all dense,
and the dense products alone (windows unfolded beforehand). With PyTorch and SpikingJelly installed, their
inference takes turns as well; its time does not depend on the share. Writes results/sparsity.json and
sparsity.png.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from statistics import median

for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):  # they would time another processor's products
    os.environ.pop(name, None)

import numpy as np  # noqa: E402
from tqdm import tqdm  # noqa: E402

from benchmarks.ablations import machine  # noqa: E402
from benchmarks.compare import Side  # noqa: E402
from data_utils.datasets import open_data  # noqa: E402
from minispike import Tensor, create_model, load, no_grad, set_threads, trace  # noqa: E402
from minispike.kernels import events  # noqa: E402
from minispike.measure import viz  # noqa: E402
from minispike.nn import Conv2d, Linear  # noqa: E402
from minispike.parallel import blas_kernel, keep_freed_memory  # noqa: E402

RESULTS = Path(__file__).parent / "results"
SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
BATCH, T = 32, 4
LABELS = {
    "chosen": "chosen layer by layer", "events": "all by events", "dense": "all dense",
    "products": "the dense products alone", "jelly": "PyTorch + SpikingJelly",
}  # fmt: skip


def with_drawn_inputs(model, share_at: Callable[[str], float]) -> None:
    """Let each map compute with drawn spikes instead of what comes; one array for each shape and share.

    share_at: share_at(path) is the active share for the map at this place.
    """
    drawn: dict[tuple, Tensor] = {}
    rng = np.random.default_rng(0)

    def spikes(shape, share: float) -> Tensor:
        if (shape, share) not in drawn:
            drawn[shape, share] = Tensor((rng.random(shape, "float32") < share).astype("float32"))
        return drawn[shape, share]

    maps = [(path, each) for path, each in model.named_modules() if isinstance(each, (Conv2d, Linear))]
    for path, module in maps[1:-1]:  # not the first convolution, which sees the image, and not the head
        share = share_at(path)
        module.forward = lambda x, m=module, p=share: type(m).forward(m, spikes(x.shape, p))


def products_alone(model, x):
    """Return a function that computes the model's dense products, and nothing else."""
    shapes = []

    def look(function, inputs, output, path):
        if function.name in ("MatMulAdd", "Convolve2d"):
            w = inputs[1].data
            shapes.append((output.data.size // w.shape[-1], w.reshape(-1, w.shape[-1])))

    with no_grad(), trace(look):
        model(x)
    rows = {(n, len(w)): np.ones((n, len(w)), "float32") for n, w in shapes}

    def run():
        for n, w in shapes:
            events.product(rows[n, len(w)], w)

    return run


def times(share: float, turns: int, peer: Side | None) -> dict[str, float]:
    """Return the median seconds of each way at one active share."""
    model = create_model("spikformer_4_384_cifar10").eval()
    x = np.random.default_rng(1).standard_normal((BATCH, 32, 32, 3)).astype("float32")
    alone, pay = products_alone(model, x), events.Events.pay
    with_drawn_inputs(model, lambda _: share)

    def infer(choice):
        def run():
            events.Events.pay = choice
            with no_grad():
                model(x)

        return run

    ways = {"chosen": infer(pay), "events": infer(lambda *_: True), "dense": infer(lambda *_: False)}
    ways["products"] = alone
    seconds: dict[str, list[float]] = {name: [] for name in (*ways, *(["jelly"] if peer else []))}
    for turn in range(turns + 1):
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - start)
        if peer:
            taken, _ = peer.once()
            if turn:
                seconds["jelly"].append(taken)
    events.Events.pay = pay
    return {name: round(median(found), 3) for name, found in seconds.items()}


def layers(model, x) -> str:
    """Return a table of a model's products on x: active share, the limit for it, and what is chosen."""
    lines = ["| layer | active share | counts | events below | chosen |", "|---|---|---|---|---|"]

    def look(function, inputs, output, path):
        found = getattr(function, "events", None)
        if found and path:
            product = "linear" if function.name == "MatMulAdd" else "convolution"
            shape, what = inputs[1].shape, product if found.binary else f"{product}, counts"
            limit = events.limit(events._table()[events.products()][what], shape)
            way = "events" if found.pay(product, shape) else "dense"
            counts = "no" if found.binary else "yes"
            lines.append(f"| {path} | {found.share:.1%} | {counts} | {limit:.0%} | {way} |")

    with trace(look):  # with gradients, for only then the inputs are kept
        model.eval()(x)
    return "\n".join(lines)


def draw(rows: list[dict], path: Path) -> None:
    fig, ax = viz.figure(size=(7, 4))
    colours = dict(zip(LABELS, (viz.BLUE, viz.GREEN, viz.ORANGE, viz.GREY, viz.INK), strict=True))
    shares, height = [100 * row["share"] for row in rows], 0.0
    for name in sorted(LABELS.keys() & rows[0].keys(), key=lambda name: rows[-1][name]):
        style = "-" if name == "chosen" else "--" if name in ("products", "jelly") else "-."
        seconds = [row[name] for row in rows]
        ax.plot(shares, seconds, style, color=colours[name], lw=2.2 if name == "chosen" else 1.3)
        height = max(height + 0.3, seconds[-1])  # so that no label lies on another
        ax.text(shares[-1] + 1, height, LABELS[name], color=colours[name], va="center", fontsize=8)
    ax.set_xlabel("active entries in the input of every product, %")
    ax.set_ylabel("seconds for 32 images")
    ax.set_ylim(0)
    ax.set_xlim(0, 72)
    ax.set_xticks(range(0, 51, 10))
    ax.set_title("Inference of Spikformer-4-384: time falls with the spikes", fontsize=11, loc="left")
    fig.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=7, help="how often the ways take turns (default 7)")
    what = "print what is chosen in each layer of this model on test images of its size, and do nothing else"
    parser.add_argument("--layers", metavar="FILE", help=what)
    args = parser.parse_args()
    set_threads(2)
    if args.layers:
        model = load(args.layers)
        _, test, _ = open_data("digits" if model.img_size[0] == 8 else "fashion-mnist", batch_size=360)
        print(layers(model, test.spread(360)[0]))
        return
    keep_freed_memory()
    peer = Side("jelly", "infer") if find_spec("spikingjelly") else None
    rows: list[dict] = []
    for share in tqdm(SHARES, desc="shares"):  # the peer's time does not depend on it: once is enough
        row = {"share": share, **times(share, args.turns, None if rows else peer)}
        rows.append(row if peer is None else row | {"jelly": (rows or [row])[0]["jelly"]})
        print(rows[-1])
    record = {"command": f"python -m benchmarks.sparsity --turns {args.turns}", "date": str(date.today())}
    record |= {"machine": machine(), "kernel": blas_kernel(), "products": events.products(), "rows": rows}
    (RESULTS / "sparsity.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    draw(rows, RESULTS / "sparsity.png")
    if peer:
        peer.close()


if __name__ == "__main__":
    main()
