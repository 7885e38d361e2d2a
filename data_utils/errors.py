"""How a reader refuses a file."""

from __future__ import annotations

from pathlib import Path


class DataFileError(ValueError):
    """A data file is not what it claims to be.

    path: the file.
    offset: the byte where the fault is, counted in the unpacked file; None where the format hides the offset.
    found, expected: what the file has there, and what it should have.
    """

    def __init__(self, path: str | Path, offset: int | None, found: str, expected: str):
        place = f"{path}" if offset is None else f"{path}, byte {offset:,}"
        super().__init__(f"{place}: {found}; expected {expected}")
