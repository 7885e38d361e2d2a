"""Downloads into a cache folder; the MD5 checksum of each file is checked.

The downloads are made by pooch. pooch writes to a temporary file next to the target, and moves that file to
the target only if the checksum is right. So every file in the cache is complete. A failed download leaves no
partial file behind, and does not change an older file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .errors import kind_of

SEVERAL = 5  # how many names of files an error message lists


class DownloadError(OSError):
    """A file could not be downloaded; the message says why, and where to put the file by hand."""


def fetch(name: str, url: str, md5: Mapping[str, str], call: str) -> Path:
    """Return the cache folder `name`, after each file that is not yet there was downloaded from url + file.

    md5: file name → checksum. A file that is there with the right checksum is not downloaded again.
    call: the name of the function that reads the files, for the advice in an error message.
    Raises DownloadError if there is no connection, no such file, or if a checksum is wrong.
    Raises ImportError if pooch is missing.
    """
    by_hand = (
        f"By hand: put {', '.join(md5)} into one folder and call {call}(root=folder), "
        "or use --root folder on the command line"
    )
    try:
        import pooch
    except ImportError as error:
        raise ImportError(
            f"downloading {name} needs pooch: pip install 'minispike[data]'. {by_hand}"
        ) from error
    folder = cache_folder() / name
    for file, checksum in md5.items():
        try:
            pooch.retrieve(
                url + file,
                f"md5:{checksum}",
                fname=file,
                path=folder,
                downloader=pooch.HTTPDownloader(progressbar=True, timeout=30, chunk_size=2**16),
            )
        except (OSError, ValueError) as error:  # OSError: from requests; ValueError: a wrong checksum
            raise DownloadError(f"{url + file} was not downloaded: {error}. {by_hand}") from error
    return folder


def cache_folder() -> Path:
    """Return the folder where downloads are kept: minispike's folder in the system's cache.

    Raises ImportError if pooch, which finds this folder, is missing.
    """
    try:
        import pooch
    except ImportError as error:
        remedy = "pip install 'minispike[data]', or say which folder to use"
        raise ImportError(f"finding the cache folder needs pooch: {remedy}") from error
    return Path(pooch.os_cache("minispike"))


def require(places: list[Path], files: list[tuple[str, ...]], call: str) -> list[list[Path]]:
    """Return the paths of each file in the first of these folders that has all the files.

    files: for each file, the names that it may have; a file may be there under several of its names.
    call: the name of the function that reads the files, for the error message.
    Raises FileNotFoundError, which says what the first folder lacks and what it holds. The message calls each
    file by its first name.
    """
    for place in places:
        found = [[place / name for name in names if (place / name).is_file()] for names in files]
        if all(found):
            return found
    root = places[0]
    if not root.is_dir():
        raise FileNotFoundError(f"{call} needs in {root}: {_first(files)}; but {_no_folder(root)}")
    missing = [names for names in files if not any((root / name).is_file() for name in names)]
    raise FileNotFoundError(
        f"{call} needs in {root}: {_first(files)}; missing: {_first(missing)}. {contents(root)}"
    )


def contents(folder: Path) -> str:
    """Return a sentence about what a folder holds, for an error message."""
    names = sorted(path.name for path in folder.iterdir())
    more = f" and {len(names) - SEVERAL} more" if len(names) > SEVERAL else ""
    return f"The folder holds: {', '.join(names[:SEVERAL]) or 'nothing'}{more}"


def _first(files: list[tuple[str, ...]]) -> str:
    return ", ".join(names[0] for names in files)


def _no_folder(path: Path) -> str:
    if not path.exists():
        return "there is no such folder"
    with path.open("rb") as file:
        kind = kind_of(file.read(512)) or "a file"
    return f"this is {kind}: name a folder, and unpack an archive first"
