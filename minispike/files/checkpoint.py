"""A model in one file: safetensors, with the model's configuration in its metadata.

    save(model, "digits.safetensors")        model = load("digits.safetensors")

A safetensors file holds a JSON header and raw arrays, nothing that can be executed. It has no checksum, so we
put one into the metadata: otherwise a wrong bit in a weight would be loaded unnoticed.

A run's checkpoint is such a file with more in it: the optimizer's arrays as "optimizer.…", and under
"training" everything else that the next step needs, as JSON. `load` reads the model from both kinds.
"""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

import numpy as np
from safetensors.numpy import save as serialise

from ..backend import HOST, Array, get_device, get_xp, to_host
from ..configs import Config
from ..masked import MaskedAutoencoder, build_masked
from ..models import SpikingTransformer, build_model
from ..optim import SGD
from ..surrogate import Surrogate
from .torchfile import OF_SAFETENSORS, SIGNATURE, FileFormatError, Inert, bits, existing, what_it_is, widen

FORMAT = "minispike 2"  # the checksum covers the configuration, too
HEADER = 10**8  # bytes of a safetensors file's header at most: the safetensors library's own limit
ENCODER, OPTIMIZER = ("stem.", "blocks."), "optimizer."
IMPORT = (
    "to convert an authors' checkpoint: python -m minispike import FILE --model NAME --out NEW.safetensors"
)
SURROGATES = {cls.__name__: cls for cls in Surrogate.__subclasses__()}

# ---------------------------------------------------------------- a model, and its training


@dataclass
class Saved:
    """What a file holds: a model, and in a run's checkpoint the states of its optimizer and its training."""

    model: SpikingTransformer | MaskedAutoencoder
    optimizer: dict[str, Array]
    training: dict


def save(
    model: SpikingTransformer | MaskedAutoencoder,
    path: str | Path,
    *,
    optimizer: SGD | None = None,
    training: dict | None = None,
    previous: Path | None = None,
) -> None:
    """Write a model's weights, buffers and configuration, from any device, durably: see `write_durably`.

    optimizer: its state is written, too.    training: what else belongs to the training, as JSON can hold it.
    previous: the name under which an older file at `path` is kept; by default that file is replaced.
    Raises ValueError for a model that neither create_model nor masked_autoencoder has made, because its
    configuration is not known.
    """
    if getattr(model, "config", None) is None:
        raise ValueError("save needs a model made by create_model or masked_autoencoder")
    arrays = dict(model.state_dict())
    if optimizer:
        arrays |= {OPTIMIZER + name: array for name, array in optimizer.state_dict().items()}
    arrays = {name: np.asarray(array, order="C") for name, array in _all_to_host(arrays).items()}
    config, training = json.dumps(model.config, default=_encode), json.dumps(training or {})
    metadata = {"format": FORMAT, "config": config, "training": training}
    metadata["crc32"] = checksum(arrays, config + training)
    write_durably(path, serialise(arrays, metadata), previous)


def _all_to_host(arrays: dict[str, Array]) -> dict[str, np.ndarray]:
    """Return arrays of one device as NumPy arrays. Those of a GPU come in one copy for each dtype."""
    found = {name: x for name, x in arrays.items() if get_device(x) is HOST}
    away = {name: x for name, x in arrays.items() if name not in found}
    for dtype in sorted({x.dtype for x in away.values()}, key=str):
        alike = {name: x for name, x in away.items() if x.dtype == dtype}
        first, edges = next(iter(alike.values())), np.cumsum([x.size for x in alike.values()])
        flat = to_host(get_xp(first).concatenate([x.reshape(-1) for x in alike.values()]))
        parts = zip(alike.items(), np.split(flat, edges[:-1]), strict=True)
        found |= {name: part.reshape(x.shape) for (name, x), part in parts}
    return {name: found[name] for name in arrays}


def load(path: str | Path) -> SpikingTransformer | MaskedAutoencoder:
    """Return the model in a file that `save` wrote, with its weights, in training mode.

    Raises FileFormatError for a file that is damaged or that `save` did not write.
    """
    return load_all(path).model


def load_all(path: str | Path) -> Saved:
    """Return all that a file holds that `save` wrote; raises as `load`."""
    arrays, metadata = read_safetensors(path)
    if metadata.get("format") == "minispike":
        raise FileFormatError(
            f"{path}: of an older minispike, whose checksum did not cover the configuration"
        )
    if metadata.get("format") != FORMAT or "config" not in metadata:
        raise FileFormatError(f"{path}: holds arrays but no minispike configuration; {IMPORT}")
    foreign = [name for name, array in arrays.items() if isinstance(array, Inert)]
    if foreign:
        raise FileFormatError(
            f"{path}: {foreign[0]} is {arrays[foreign[0]].name}, which minispike never writes"
        )
    config, training = metadata["config"], metadata.get("training", "{}")
    if metadata.get("crc32") != checksum(arrays, config + training):
        raise FileFormatError(f"{path}: the checksum differs: some numbers are not those that were saved")
    try:
        config = json.loads(config, object_pairs_hook=lambda pairs: _decode(unique_names(pairs)))
        training = json.loads(training, object_pairs_hook=unique_names)
        model = _blank(config, arrays)
        names = [name for name in arrays if name.startswith(OPTIMIZER)]
        optimizer = {name.removeprefix(OPTIMIZER): arrays.pop(name) for name in names}
        model.load_state_dict(arrays)
    except Exception as error:  # a foreign configuration can fail anywhere
        raise FileFormatError(f"{path}: {error}") from error
    return Saved(model, optimizer, training)


def _blank(config: dict, arrays: dict[str, Array]) -> SpikingTransformer | MaskedAutoencoder:
    """Build a model with zero weights. ValueError if it would be larger than the file's arrays."""
    zeros = Zeros(sum(array.size for array in arrays.values()))
    encoder = Config.from_dict(config.get("encoder", config))
    if not set(encoder.pools) <= {True, False}:
        raise ValueError("pools are true or false")
    if "encoder" not in config:
        return build_model(encoder, rng=zeros)
    (h, w), dim = encoder.grid, config["decoder_dim"]
    found = list(arrays["positions"].shape)
    if found != [h * w, dim]:
        raise ValueError(f"{h}×{w} tokens need positions {[h * w, dim]}, the file holds {found}")
    model = build_masked(config | {"encoder": replace(encoder, num_classes=1)}, rng=zeros)  # it keeps no head
    model.config["encoder"] = encoder
    return model


class Zeros:
    """Instead of random numbers: zeros, which loaded weights replace, and at most `n` of them.

    Sizes come from a file's configuration, where a few bytes can ask for any amount of memory.
    """

    def __init__(self, n: int):
        self.n = n

    def standard_normal(self, shape: int | tuple[int, ...]) -> Array:
        sides = (shape,) if isinstance(shape, int) else shape
        self.n -= prod(sides)
        if not (min(sides) > 0 and self.n >= 0):
            raise ValueError("the configuration asks for more weights than the file holds")
        return np.zeros(shape)

    def uniform(self, low: float, high: float, shape: tuple[int, ...]) -> Array:
        return self.standard_normal(shape)


def load_encoder(model: SpikingTransformer, source: MaskedAutoencoder | str | Path) -> None:
    """Copy a pre-trained stem and blocks into a classifier by name; its head stays as it is.

    source: the masked autoencoder, or its file. Raises ValueError that names every weight that is missing,
    left over or misshapen.
    """
    source = load(source) if isinstance(source, (str, Path)) else source
    encoder = {path: array for path, array in source.state_dict().items() if path.startswith(ENCODER)}
    head = {path: array for path, array in model.state_dict().items() if not path.startswith(ENCODER)}
    model.load_state_dict(encoder | head)


# ---------------------------------------------------------------- trained weights

WEIGHTS = Path(__file__).parents[2] / "weights"
CHANGEABLE = ("T", "smooth", "detach_reset")  # what trained weights leave open


SPARSE = "sparse"


def trained_weights(name: str, which: bool | str, overrides: dict) -> dict[str, Array]:
    """Return the weights of a named model from the repository's folder weights/, as a state_dict.

    which: True, or "sparse" for those that were trained with a price on spikes.
    overrides: what the caller changes in the model; ValueError if the weights would no longer belong to it.
    FileNotFoundError without weights for the model.
    """
    fixed = sorted(overrides.keys() - set(CHANGEABLE))
    if fixed:
        allowed = ", ".join(("dtype", *CHANGEABLE))
        raise ValueError(
            f"trained weights fix {', '.join(fixed)}; with pretrained=True you may change {allowed}"
        )
    if which not in (True, SPARSE):
        raise ValueError(f"pretrained must be True, False or {SPARSE!r}, got {which!r}")
    name = name if which is True else f"{name}.{which}"
    path = WEIGHTS / f"{name}.safetensors"
    if not path.exists():
        there = ", ".join(sorted(each.stem for each in WEIGHTS.glob("*.safetensors")))
        known = f"there are weights of {there}" if there else "weights/ comes with a clone of the repository"
        raise FileNotFoundError(f"no trained weights of {name} in {WEIGHTS}: {known}")
    return load(path).state_dict()


# ---------------------------------------------------------------- files

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # a full disk, a user's share of it, a limit on files


class DiskFull(OSError):
    """There is no room for a file. The message names it, and says what is kept."""


def write_durably(path: str | Path, content: bytes, previous: Path | None = None) -> None:
    """Write a file under another name, and rename it to `path` only when all of it is on the disk.

    So even after a kill or a loss of power `path` is either the old file or the new one. With `previous`
    there is an instant in which `path` is missing; then `previous` is the old file. An incomplete file is
    always called <name>.part.
    Raises DiskFull if there is no room; then the incomplete file is removed and an older one stays.
    """
    path = Path(path)
    unfinished = path.with_name(path.name + ".part")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # the bytes before the name
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        with suppress(OSError):
            unfinished.unlink()
        older = ", the older file of this name is kept" if path.exists() else ""
        raise DiskFull(f"no room for {len(content):,} bytes in {path} ({error.strerror}){older}") from error
    if previous and path.exists():
        os.replace(path, previous)
    os.replace(unfinished, path)
    with suppress(PermissionError):  # Windows cannot open a folder, and need not
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)  # the names
        os.close(folder)


def read_safetensors(path: str | Path) -> tuple[dict[str, Array | Inert], dict[str, str]]:
    """Return a safetensors file's arrays and metadata, without more memory than the file has bytes.

    Dtypes become those that `read_torch` gives; an array of any other is an Inert record of its dtype.
    Raises FileFormatError for a damaged file, and for one of another kind, which it names.
    """
    path = existing(path)
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            start = file.read(SIGNATURE)
            length = header_length(start)
            if not length:
                instead = f"; {IMPORT}" if start.startswith((b"PK\x03\x04", b"\x80")) else ""
                raise FileFormatError(what_it_is(start) + instead)
            if length > size - 8:
                raise FileFormatError(f"its header of {length:,} bytes is cut short")
            file.seek(8)
            header = json.loads(file.read(length).decode(), object_pairs_hook=unique_names)
            metadata = header.pop("__metadata__", None) or {}
            if not all(isinstance(text, str) for text in metadata.values()):
                raise FileFormatError("its metadata is not text")
            places = _places(header, size - 8 - length)
            return {name: _read_array(file, 8 + length, *place) for name, place in places.items()}, metadata
    except FileFormatError as error:
        raise FileFormatError(f"{path}: not a readable safetensors file: {error}") from error
    except Exception as error:  # JSON's errors, or those of a header that is not built as it should be
        raise FileFormatError(
            f"{path}: not a readable safetensors file ({type(error).__name__}: {error})"
        ) from error


def header_length(start: bytes) -> int:
    """Return the length of a safetensors file's header from its first bytes, 0 for a file of another kind."""
    length = int.from_bytes(start[:8], "little")
    return length if start[8:9] == b"{" and length <= HEADER else 0


def unique_names(pairs: list) -> dict:
    """Return a JSON object as a dict. json calls this with its names and values.

    FileFormatError for two entries of one name, of which the last would win.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set = set()
        twin = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise FileFormatError(f"two entries of one name, {twin}")
    return found


def _places(header: dict, size: int) -> dict[str, tuple[str, list[int], int, int]]:
    """Return each array's (dtype, shape, first byte, bytes), after a check that they fill `size` bytes."""
    places, end = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        shape, (first, behind) = entry["shape"], entry["data_offsets"]
        if len(shape) > 32 or not all(type(n) is int and 0 <= n < 2**63 for n in (first, behind, *shape)):
            raise FileFormatError(f"{name} has a shape or a place that makes no sense")
        if first != end or behind < first:
            raise FileFormatError(f"{name} begins at byte {first}, where {end} is expected")
        kind, end = OF_SAFETENSORS.get(entry["dtype"]), behind
        if kind and prod(shape) * bits(kind).itemsize != behind - first:
            raise FileFormatError(f"{name} has {behind - first} bytes, which is not {entry['dtype']} {shape}")
        places[name] = entry["dtype"], shape, first, behind - first
    if end != size:
        raise FileFormatError(f"its arrays have {end:,} bytes, the file has {size:,}")
    return {name: places[name] for name in header}


def _read_array(
    file: BinaryIO, data: int, dtype: str, shape: list[int], first: int, size: int
) -> Array | Inert:
    kind = OF_SAFETENSORS.get(dtype)
    if kind is None:
        return Inert(f"an array of {dtype}")
    file.seek(data + first)
    flat = np.fromfile(file, bits(kind), size // bits(kind).itemsize)
    return widen(flat, kind).reshape(shape)


def checksum(arrays: dict[str, Array], text: str = "") -> str:
    """Return the CRC-32 of a text and of all arrays' names and bytes, by name, as eight hex digits."""
    crc = crc32(text.encode())
    for name in sorted(arrays):
        crc = crc32(arrays[name].tobytes(), crc32(name.encode(), crc))
    return f"{crc:08x}"


def _encode(value) -> dict:
    if isinstance(value, Config):
        return vars(value)
    if isinstance(value, Surrogate):
        return {"surrogate": type(value).__name__, **asdict(value)}
    raise ValueError(f"a {type(value).__name__} in a model's configuration cannot be written to a file")


def _decode(value: dict):
    if "surrogate" in value and isinstance(value["surrogate"], str):
        return SURROGATES[value["surrogate"]](value["alpha"])
    return value
