"""Downloads into a cache folder, each file checked against its MD5: one function over pooch.

pooch writes to a temporary file beside the target and moves it there only when the checksum is right. So what
is in the cache is whole, and a failed download leaves neither a piece behind nor an older file touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


class DownloadError(OSError):
    """A file that could not be brought here; says why, and what to put where by hand."""


def fetch(name: str, url: str, md5: Mapping[str, str], call: str) -> Path:
    """Return the cache folder `name` with the files of md5 (file name → checksum), from url + file name.

    A file that is there already, with the right checksum, is not asked for again.
    call: the function that reads the files, for the error's advice.
    Raises DownloadError (no connection, no such file, wrong checksum), ImportError where pooch is missing.
    """
    by_hand = (
        f"By hand: put {', '.join(md5)} into one folder and call {call}(root=folder), or say --root folder"
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
        except (OSError, ValueError) as error:  # requests' errors are OSErrors; a wrong checksum a ValueError
            raise DownloadError(f"{url + file} was not downloaded: {error}. {by_hand}") from error
    return folder


def cache_folder() -> Path:
    """Return where downloads are kept: the system's cache folder for minispike."""
    try:
        import pooch
    except ImportError as error:
        remedy = "pip install 'minispike[data]', or say which folder to use"
        raise ImportError(f"the cache folder is found by pooch: {remedy}") from error
    return Path(pooch.os_cache("minispike"))


def require(root: str | Path, files: list[tuple[str, ...]], call: str) -> list[Path]:
    """Return, for each tuple of alternative names, the first that is a file in root.

    Raises FileNotFoundError that names all that is needed, and all that is missing.
    """
    root = Path(root)
    found = [next((root / name for name in names if (root / name).is_file()), None) for names in files]
    if None not in found:
        return found
    wanted = [" or ".join(names) for names in files]
    missing = [each for each, path in zip(wanted, found, strict=True) if path is None]
    raise FileNotFoundError(f"{call} needs in {root}: {', '.join(wanted)}; missing: {', '.join(missing)}")
