"""python -m book: write the book to site/, which any static host can serve, or a browser can open as files.

Lessons whose output is not in the cache (build/book) are run first; `pytest -m lessons` fills the cache, too.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from .runner import ROOT

HERE = Path(__file__).parent


def main(arguments: list[str] | None = None) -> int:
    """Build the book; return Sphinx's exit status."""
    parser = argparse.ArgumentParser(prog="python -m book", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--out", type=Path, default=ROOT / "site", help="the folder to write to (default site)"
    )
    args = parser.parse_args(arguments)
    try:
        from sphinx.cmd.build import main as build

        from .pages import write_all
    except ImportError as error:
        print(f'the book needs its extra: pip install -e ".[book]" ({error})', file=sys.stderr)
        return 1
    source = ROOT / "build" / "book-pages"
    write_all(source)
    shutil.rmtree(args.out, ignore_errors=True)
    options = ["-W", "-n", "--keep-going", "-q", "-b", "html", "-c", str(HERE)]
    doctrees = ["-d", str(ROOT / "build" / "book-doctrees")]
    status = build([*options, *doctrees, str(source), str(args.out)])
    (args.out / ".nojekyll").touch()
    if not status:
        print(
            f"written: {args.out / 'index.html'}; open it, or serve it: python -m http.server -d {args.out}"
        )
    return status


if __name__ == "__main__":
    sys.exit(main())
