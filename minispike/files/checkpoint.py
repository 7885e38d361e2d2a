"""A model in one file: safetensors, with the model's configuration in its metadata.

    save(model, "digits.safetensors")        model = load("digits.safetensors")

A safetensors file holds a JSON header and raw arrays, nothing that can be executed. It has no checksum, so we
put one into the metadata: otherwise a wrong bit in a weight would be loaded unnoticed.

A run's checkpoint is such a file with more in it: the optimizer's arrays as "optimizer.…", and under
"training" everything else that the next step needs, as JSON. `load` reads the model from both kinds.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from zlib import crc32

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save as serialise

from ..backend import Array, to_host
from ..configs import Config
from ..masked import MaskedAutoencoder, build_masked
from ..models import SpikingTransformer, build_model
from ..optim import SGD
from ..surrogate import Surrogate
from .torchfile import FileFormatError

FORMAT = "minispike 2"  # the checksum covers the configuration, too
ENCODER, OPTIMIZER = ("stem.", "blocks."), "optimizer."
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
    arrays = {name: np.asarray(to_host(array), order="C") for name, array in arrays.items()}
    config, training = json.dumps(model.config, default=_encode), json.dumps(training or {})
    metadata = {"format": FORMAT, "config": config, "training": training}
    metadata["crc32"] = checksum(arrays, config + training)
    write_durably(path, serialise(arrays, metadata), previous)


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
        raise FileFormatError(
            f"{path}: holds arrays but no minispike configuration; "
            "for an authors' file build the model with create_model and use interop.load_official"
        )
    config, training = metadata["config"], metadata.get("training", "{}")
    if metadata.get("crc32") != checksum(arrays, config + training):
        raise FileFormatError(f"{path}: the checksum differs: some numbers are not those that were saved")
    try:
        config, training = json.loads(config, object_hook=_decode), json.loads(training)
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


# ---------------------------------------------------------------- files


def write_durably(path: str | Path, content: bytes, previous: Path | None = None) -> None:
    """Write a file under another name, and rename it to `path` only when all of it is on the disk.

    So even after a kill or a loss of power `path` is either the old file or the new one. With `previous`
    there is an instant in which `path` is missing; then `previous` is the old file. An incomplete file is
    always called <name>.part.
    """
    path = Path(path)
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # the bytes before the name
    if previous and path.exists():
        os.replace(path, previous)
    os.replace(unfinished, path)
    with suppress(PermissionError):  # Windows cannot open a folder, and need not
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)  # the names
        os.close(folder)


def read_safetensors(path: str | Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Return a safetensors file's arrays and metadata. Raises FileFormatError for a damaged one."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except Exception as error:  # the library's error, or NumPy's for an unknown dtype
        raise FileFormatError(f"{path}: not a readable safetensors file ({error})") from error


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
