"""The command line: python -m minispike import FILE --model NAME --out model.safetensors"""

from __future__ import annotations

import argparse
import sys

from .checkpoint import save
from .interop import load_official
from .models import create_model, list_models
from .torchfile import FileFormatError


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the process's exit code: 0, or 1 after a message that says what was wrong."""
    parser = argparse.ArgumentParser(prog="python -m minispike", description="Spiking transformers in NumPy.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    importer = commands.add_parser(
        "import", help="turn an authors' checkpoint (.pth, .pth.tar, .npz, .safetensors) into one of ours"
    )
    importer.add_argument(
        "file", help="the checkpoint; a .pth file is read without PyTorch and never executed"
    )
    importer.add_argument("--model", required=True, metavar="NAME", help=", ".join(list_models()))
    importer.add_argument("--out", required=True, metavar="FILE", help="the safetensors file to write")
    importer.add_argument("--num-classes", type=int, metavar="K", help="if it differs from the model's own")
    args = parser.parse_args(arguments)
    try:
        overrides = {} if args.num_classes is None else {"num_classes": args.num_classes}
        model = create_model(args.model, **overrides)
        print(load_official(args.file, model))
        save(model, args.out)
    except (FileFormatError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{model.num_params():,} parameters written to {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
