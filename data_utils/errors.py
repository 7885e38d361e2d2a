"""How a reader refuses a file."""

from __future__ import annotations

from pathlib import Path


class DataFileError(ValueError):
    """A data file that is not what it claims to be; says which file, at which byte, and what was expected.

    offset: the byte of the (unpacked) file where the fault is seen, or None where its format hides that.
    """

    def __init__(self, path: str | Path, offset: int | None, found: str, expected: str):
        place = f"{path}" if offset is None else f"{path}, byte {offset:,}"
        super().__init__(f"{place}: {found}; expected {expected}")
