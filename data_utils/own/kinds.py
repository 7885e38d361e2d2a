"""Which kind of one's own data a path holds."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from ..errors import DataFileError, kind_of
from ..listing import files
from .arrays import Arrays
from .description import Description, name_of
from .pictures import Pictures
from .recordings import Recordings

KINDS: dict[str, type[Description]] = {each.kind: each for each in (Pictures, Arrays, Recordings)}
TAKEN = "a folder of pictures or of event recordings, one folder per class, or an .npz file of x and y"


def kind_at(path: str | Path) -> type[Description]:
    """Return the class whose look_at describes what is at a path.

    Raises DataFileError for a folder that holds pictures and recordings, or neither, and for a file that is
    no .npz; FileNotFoundError if there is nothing.
    """
    path = Path(path).expanduser()
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(512)
        if head.startswith(b"PK") and path.suffix.lower() == ".npz":
            return Arrays
        raise DataFileError(path, None, kind_of(head) or "a file of an unknown kind", TAKEN)
    if not path.is_dir():
        raise FileNotFoundError(f"there is no {path}; expected {TAKEN}")
    found = {kind: files(path, kind.suffixes) for kind in (Pictures, Recordings)}
    there = [kind for kind, paths in found.items() if paths]
    if len(there) == 1:
        return there[0]
    if there:
        names = " and ".join(f"the {kind.one} {name_of(found[kind][0], path)}" for kind in there)
        raise DataFileError(path, None, names, "pictures or event recordings, not both")
    suffixes = ", ".join(sorted(Pictures.suffixes | Recordings.suffixes))
    raise DataFileError(path, None, f"no file {suffixes}", TAKEN)


def description(found: dict) -> Description:
    """Return the description with these fields, as `Description.as_dict` gives them.

    ValueError, which names the fields, if they cannot be those of a description.
    """
    given = dict(found) if isinstance(found, dict) else {}
    kind = KINDS.get(str(given.pop("kind", None)))
    if kind is None:
        raise ValueError(f"a description of data has the kind {', '.join(KINDS)}")
    types = {entry.name: entry.type for entry in fields(kind)}
    wrong = sorted(types.keys() ^ given.keys())
    wrong = wrong or [name for name, value in given.items() if not _is(value, types[name])]
    wrong = wrong or kind(**given).impossible()
    if wrong:
        raise ValueError(f"the description of {kind.kind} has no good {', '.join(wrong)}"[:200])
    return kind(**given)


def _is(value, type_: str) -> bool:
    """Return whether a value that JSON gave has a type, such as "dict[str, int]"."""
    outer, _, inner = type_.removesuffix("]").partition("[")
    *_, each = inner.split(", ")
    values = value.values() if isinstance(value, dict) else value if inner else ()
    return type(value).__name__ == outer and all(type(one).__name__ == each for one in values)
