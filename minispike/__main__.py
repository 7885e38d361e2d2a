"""The command line: python -m minispike info MODEL, profile MODEL, import FILE --model NAME --out OUT"""

from __future__ import annotations

import argparse
import json
import sys
from math import ceil

from data_utils.digits import load_digits

from . import viz
from .backend import keep_freed_memory, make_rng
from .checkpoint import load, save
from .energy import Count, count
from .interop import load_official
from .models import SpikingTransformer, create_model, list_models
from .profile import as_dicts, profile, table
from .torchfile import FileFormatError


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the process's exit code: 0, or 1 after a message that says what was wrong."""
    parser = argparse.ArgumentParser(prog="python -m minispike", description="Spiking transformers in NumPy.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    importer = commands.add_parser(
        "import", help="turn an authors' checkpoint (.pth, .pth.tar, .npz, .safetensors) into one of ours"
    )
    importer.set_defaults(run=run_import)
    importer.add_argument(
        "file", help="the checkpoint; a .pth file is read without PyTorch and never executed"
    )
    importer.add_argument("--model", required=True, metavar="NAME", help=", ".join(list_models()))
    importer.add_argument("--out", required=True, metavar="FILE", help="the safetensors file to write")
    importer.add_argument("--num-classes", type=int, metavar="K", help="if it differs from the model's own")
    info = commands.add_parser("info", help="count a model's operations, firing rates and energy by layer")
    info.set_defaults(run=run_info)
    info.add_argument("model", metavar="MODEL", help="a model's name, or a .safetensors file that holds one")
    info.add_argument("--data", choices=["digits"], help="real test images; otherwise the input is random")
    info.add_argument("--json", action="store_true", help="print JSON in place of the table")
    info.add_argument("--figure", metavar="FILE", help="draw rates and energies as bars")
    profiler = commands.add_parser("profile", help="time a model's training step, layer by layer")
    profiler.set_defaults(run=run_profile)
    profiler.add_argument("model", metavar="MODEL", help="a model's name, or a .safetensors file")
    profiler.add_argument("--batch", type=int, default=8, help="images at a time (default 8)")
    profiler.add_argument("--json", action="store_true", help="print JSON in place of the table")
    profiler.add_argument("--figure", metavar="FILE", help="draw times and memory as bars")
    args = parser.parse_args(arguments)
    try:
        args.run(args)
    except (FileFormatError, ImportError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def run_import(args) -> None:
    overrides = {} if args.num_classes is None else {"num_classes": args.num_classes}
    model = create_model(args.model, **overrides)
    print(load_official(args.file, model))
    save(model, args.out)
    print(f"{model.num_params():,} parameters written to {args.out}")


def run_info(args) -> None:
    saved = args.model.endswith(".safetensors")
    model = find_model(args.model)
    dtype = model.head.weight.dtype
    x = load_digits()[1][0].astype(dtype) if args.data else random_input(model).astype(dtype)
    found = count(model, x)
    source = f"{found.images} real test images ({args.data})" if args.data else "one random input"
    source += "" if saved else ", untrained weights"
    if args.json:
        print(json.dumps({"model": args.model, "input": source, **found.as_dict()}, indent=1))
    else:
        print(found)
        print(f"\nInput: {source}, T = {found.steps}. Operations and energies (nJ) are those of one image.")
        print(f"{model.num_params():,} parameters; dense, {found.macs() / 1e6:.1f} M MACs a step.")
    if args.figure:
        draw(found, args.figure)
    if not (saved and args.data):
        print("Rates and energies of noise or of untrained weights are no claim.", file=sys.stderr)


def run_profile(args) -> None:
    model = find_model(args.model)
    x = random_input(model, args.batch).astype(model.head.weight.dtype)
    keep_freed_memory()  # as fit does
    rows = profile(model, x, make_rng(0).integers(0, model.head.out_channels, args.batch))
    print(json.dumps(as_dicts(rows), indent=1) if args.json else table(rows))
    if args.figure:
        fig, axes = viz.figure(1, 2, size=(11, 1.5 + len(rows) / 14), sharey=True)
        viz.profile_bars(axes, rows)
        fig.savefig(args.figure)


def find_model(name: str) -> SpikingTransformer:
    model = load(name) if name.endswith(".safetensors") else create_model(name)
    if not isinstance(model, SpikingTransformer):
        raise ValueError(f"{name} holds a {type(model).__name__}; a classifier is wanted")
    return model


def random_input(model: SpikingTransformer, batch: int = 1):
    """Normal images, or where there are two channels, polarities: frames of event counts."""
    rng, shape = make_rng(0), (batch, *model.img_size, model.in_channels)
    return rng.poisson(0.1, (model.T, *shape)) if shape[-1] == 2 else rng.standard_normal(shape)


def draw(found: Count, path: str) -> None:
    rows = found.rows
    fig, axes = viz.figure(2, 1, size=(max(8, ceil(len(rows) / 4)), 6), height_ratios=(2, 3))
    joules = {
        c: [getattr(r, c).joules(found.picojoules) / found.images for r in rows] for c in ("paper", "events")
    }
    viz.layer_bars(axes, [r.label for r in rows], [r.part for r in rows], [r.rate for r in rows], joules)
    fig.savefig(path)


if __name__ == "__main__":
    sys.exit(main())
