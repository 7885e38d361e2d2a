"""The files and folders of a data set, without those that systems and programs leave in between."""

from __future__ import annotations

from pathlib import Path

LEFT_BEHIND = {  # in lower case; every name that starts with a dot counts too
    "__macosx",  # macOS, in archives
    "thumbs.db",  # Windows
    "ehthumbs.db",
    "desktop.ini",
    "$recycle.bin",
    "system volume information",
    "@eadir",  # Synology
    "#recycle",
    "@recycle",  # QNAP
    "lost+found",  # Linux
}


def is_left_behind(name: str) -> bool:
    """Return whether a file or folder of this name is not data: for example .DS_Store, ._x.png, Thumbs.db."""
    return name.startswith(".") or name.lower() in LEFT_BEHIND


def folders(root: Path) -> list[Path]:
    """Return the folders in root, in the order of their names. This order is the same on every system."""
    return sorted((path for path in _entries(root) if path.is_dir()), key=lambda path: path.name)


def files(root: Path, suffixes: set[str]) -> list[Path]:
    """Return the files with these suffixes in root and in all folders below it, in the order of their names.

    suffixes: in lower case, for example {".png"}. The suffix of a file may be in upper case.
    A folder is not a file, even if its name ends in .png. Folders that were left behind are not searched.
    """
    found = []
    for path in _entries(root):
        if path.is_dir():
            found += files(path, suffixes)
        elif path.suffix.lower() in suffixes:
            found.append(path)
    return sorted(found, key=lambda path: path.relative_to(root).parts)


def _entries(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if not is_left_behind(path.name)]
