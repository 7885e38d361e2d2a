"""`python -m lessons` lists the lessons, one line each; `python -m lessons 3` or `… 03_ssa` runs one."""

import runpy
import sys
from pathlib import Path

PATHS = sorted(Path(__file__).parent.glob("[0-9][0-9]_*.py"))


def main(arguments: list[str]) -> None:
    """List the lessons, or run the one that is named by its number or its name."""
    if not arguments:
        for path in PATHS:
            title = path.read_text(encoding="utf-8").split("\n")[1].removeprefix("# # ")
            print(f"python -m lessons.{path.stem:<16} {title}")
        return
    wanted = arguments[0]
    found = [
        p.stem for p in PATHS if wanted == p.stem or (wanted.isdigit() and int(p.stem[:2]) == int(wanted))
    ]
    if len(arguments) > 1 or not found:
        sys.exit(f"no lesson {' '.join(arguments)!r}; python -m lessons lists them")
    runpy.run_module(f"lessons.{found[0]}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
