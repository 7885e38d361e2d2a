"""Which kind of one's own data a path holds."""

from __future__ import annotations

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
    """Return the description with these fields, as `Description.as_dict` gives them."""
    fields = dict(found)
    return KINDS[fields.pop("kind")](**fields)
