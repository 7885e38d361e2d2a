"""The files and folders of a data set, without those that systems and programs leave in between."""

from __future__ import annotations

from pathlib import Path

LONGEST = 255  # bytes of a file's name, the most that file systems take
LEFT_BEHIND = {  # in lower case
    "__macosx",  # macOS, in archives
    "thumbs.db",  # Windows
    "ehthumbs.db",
    "desktop.ini",
    "$recycle.bin",
    "system volume information",
    "lost+found",  # Linux
    "__pycache__",  # Python
}


def is_left_behind(name: str) -> bool:
    """Return whether a file or folder of this name is not data. Every reader of folders follows this rule.

    Not data are the names in LEFT_BEHIND, in upper or lower case, and every name that begins with

        .    hidden files: .DS_Store and ._x.png of macOS, .ipynb_checkpoints of Jupyter
        @ #  what network storage keeps: @eaDir, @tmp, #recycle and #snapshot of Synology, @Recycle of QNAP

    So a class needs a name that begins with another character.
    """
    return name.startswith((".", "@", "#")) or name.lower() in LEFT_BEHIND


def is_file_name(name: str) -> bool:
    """Return whether a name that a list gives can be that of a file in a folder, and not a path."""
    short = 0 < len(name.encode("utf-8", "replace")) <= LONGEST
    return short and Path(name).name == name != ".." and "\0" not in name


def folders(root: Path) -> list[Path]:
    """Return the folders in root, in the order of their names. This order is the same on every system."""
    return sorted((path for path in _entries(root) if path.is_dir()), key=lambda path: path.name)


def files(root: Path, suffixes: set[str]) -> list[Path]:
    """Return the files with these suffixes in root and in all folders below it, in the order of their names.

    suffixes: in lower case, for example {".png"}. The suffix of a file may be in upper case.
    A folder is not a file, even if its name ends in .png. Folders that were left behind are not searched.
    Two files whose names differ only in their suffix or in upper and lower case, such as cat.jpg and cat.JPG,
    are two files.
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
