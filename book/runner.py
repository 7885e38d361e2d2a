"""Run a lesson cell by cell, in one namespace, and keep what each cell prints and draws.

A lesson is a .py file in cells: `# %% [markdown]` begins text, `# %%` begins code. `pytest -m lessons` runs
each lesson through here, and so the book finds its output and figures in the cache and runs nothing twice.
Nothing here needs Sphinx. The cache is build/book: a folder for each lesson and for each state of what its
output depends on.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
from dataclasses import asdict, dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).parent.parent
LESSONS = ROOT / "lessons"
NAMES = [path.stem for path in sorted(LESSONS.glob("[0-9][0-9]_*.py"))]
CACHE = ROOT / "build" / "book"

# ---------------------------------------------------------------- cells


@dataclass
class Cell:
    """A part of a lesson: kind ("markdown" or "code") and text; what it prints, and its figures' files."""

    kind: str
    text: str
    printed: str = ""
    figures: list[str] = field(default_factory=list)


def cells(text: str) -> list[Cell]:
    """Split a lesson's text into cells. ValueError for text before the first one."""
    parts = re.split(r"^# %%(.*)\n", text, flags=re.M)
    if parts[0].strip():
        raise ValueError(f"text before the first cell: {parts[0].strip()[:60]!r}")
    found = []
    for head, body in zip(parts[1::2], parts[2::2], strict=True):
        if "[markdown]" in head:
            found.append(Cell("markdown", re.sub(r"^# ?", "", body, flags=re.M).strip()))
        else:
            found.append(Cell("code", body.strip("\n")))
    return found


def execute(path: Path, folder: Path) -> list[Cell]:
    """Run a lesson's cells in `folder`, where its figures go, and return them with what they did.

    What a cell raises comes through, as it would from the lesson itself. Standard error, where progress bars
    are, is not kept.
    """
    found, names = cells(path.read_text("utf-8")), {"__name__": "__main__", "__file__": str(path)}
    lines_before = _first_lines(path.read_text("utf-8"))
    before = Path.cwd()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    try:
        for cell, line in zip(found, lines_before, strict=True):
            if cell.kind == "code":
                code = compile("\n" * line + cell.text, str(path), "exec")  # errors name the file's own lines
                with contextlib.redirect_stdout(io.StringIO()) as out:
                    exec(code, names)
                cell.figures = re.findall(r"^figure: (.*)$", out.getvalue(), re.M)
                cell.printed = re.sub(r"^figure: .*\n", "", out.getvalue(), flags=re.M)
    finally:
        os.chdir(before)
    return found


def _first_lines(text: str) -> list[int]:
    """Return the number of lines before each cell's own text."""
    return [number for number, line in enumerate(text.split("\n"), start=1) if line.startswith("# %%")]


# ---------------------------------------------------------------- the cache


@cache
def key_of_everything_else() -> str:
    """Return a hash of all that every lesson's output may depend on, apart from the lesson itself."""
    files = [path for path in LESSONS.rglob("*.py") if not re.match(r"\d\d_", path.name)]
    for part in ("minispike", "data_utils"):
        files += [path for path in (ROOT / part).rglob("*") if path.suffix in (".py", ".cu", ".json")]
    files += [path for part in ("benchmarks/results", "weights") for path in (ROOT / part).rglob("*.*")]
    return _hash(sorted(files))


def _hash(files: list[Path]) -> str:
    found = sha256()
    for path in files:
        found.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def place(name: str) -> Path:
    """Return the folder in the cache for a lesson as it is now."""
    own = _hash([LESSONS / f"{name}.py", LESSONS / "solutions" / f"{name}.py"])
    return CACHE / name / sha256((own + key_of_everything_else()).encode()).hexdigest()[:16]


def run(name: str) -> list[Cell]:
    """Run a lesson now, keep what it did in the cache in place of older states, and return its cells."""
    folder = place(name)
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    found = execute(LESSONS / f"{name}.py", part)
    (part / "cells.json").write_text(
        json.dumps([asdict(cell) for cell in found], ensure_ascii=False), "utf-8"
    )
    for old in folder.parent.iterdir():
        if old != part:
            shutil.rmtree(old)
    part.rename(folder)
    return found


def output(name: str) -> tuple[list[Cell], Path]:
    """Return a lesson's cells and the folder of its figures, from the cache or by running it."""
    folder = place(name)
    if not (folder / "cells.json").exists():
        print(f"running lesson {name} …", flush=True)
        run(name)
    kept = json.loads((folder / "cells.json").read_text("utf-8"))
    return [Cell(**each) for each in kept], folder
