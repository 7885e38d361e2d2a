"""Downloads into a cache folder; the MD5 checksum of each file is checked.

The downloads are made by pooch. pooch writes to a temporary file next to the target, and moves that file to
the target only if the checksum is right. So every file in the cache is complete. A failed download leaves no
partial file behind, and does not change an older file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


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


def require(root: str | Path, files: list[tuple[str, ...]], call: str) -> list[Path]:
    """Return the path of each file in the folder root; a file is given as a tuple of the names it may have.

    If root has files of several of these names, the first name in the tuple is taken.
    call: the name of the function that reads the files, for the error message.
    Raises FileNotFoundError, which lists all files that are needed and all that are missing.
    """
    root = Path(root)
    found = [next((root / name for name in names if (root / name).is_file()), None) for names in files]
    if None not in found:
        return found
    wanted = [" or ".join(names) for names in files]
    missing = [names for names, path in zip(wanted, found, strict=True) if path is None]
    raise FileNotFoundError(f"{call} needs in {root}: {', '.join(wanted)}; missing: {', '.join(missing)}")
