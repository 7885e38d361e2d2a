"""A model in one file: safetensors, with the model's configuration in its metadata.

    save(model, "digits.safetensors")        model = load("digits.safetensors")

safetensors holds a JSON header and raw arrays, nothing that can be executed. It has no checksum, so ours
stands in the metadata: a wrong bit in a weight would otherwise be loaded as if it were true.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from zlib import crc32

from safetensors import safe_open
from safetensors.numpy import save_file

from .backend import HOST, Array, to_host
from .masked import MaskedAutoencoder, build_masked
from .models import SpikingTransformer, build_model
from .surrogate import Surrogate
from .torchfile import FileFormatError

ENCODER = "stem.", "blocks."
SURROGATES = {cls.__name__: cls for cls in Surrogate.__subclasses__()}


def save(model: SpikingTransformer | MaskedAutoencoder, path: str | Path) -> None:
    """Write a model's weights, buffers and configuration, from any device; replace an existing file at once.

    Raises ValueError for a model that neither create_model nor masked_autoencoder made: its configuration is
    not known.
    """
    if getattr(model, "config", None) is None:
        raise ValueError("save needs a model made by create_model or masked_autoencoder, which note how")
    path, np = Path(path), HOST.xp
    arrays = {name: np.ascontiguousarray(to_host(array)) for name, array in model.state_dict().items()}
    config = json.dumps(model.config, default=_encode)
    unfinished = path.with_name(path.name + ".part")
    save_file(
        arrays, unfinished, metadata={"format": "minispike", "config": config, "crc32": checksum(arrays)}
    )
    os.replace(unfinished, path)


def load(path: str | Path) -> SpikingTransformer | MaskedAutoencoder:
    """Return the model that a file written by `save` describes, with its weights, in training mode.

    Raises FileFormatError for a file that is damaged or was not written by `save`.
    """
    arrays, metadata = read_safetensors(path)
    if metadata.get("format") != "minispike" or "config" not in metadata:
        raise FileFormatError(
            f"{path}: holds arrays but no minispike configuration; "
            "for an authors' file build the model with create_model and use interop.load_official"
        )
    if metadata.get("crc32") != checksum(arrays):
        raise FileFormatError(
            f"{path}: the checksum differs: some of its numbers are not those that were saved"
        )
    try:
        config = json.loads(metadata["config"], object_hook=_decode)
        masked = config.get("family") == "masked_autoencoder"
        model = build_masked(config) if masked else build_model(config)
        model.load_state_dict(arrays)
    except (ValueError, TypeError, KeyError) as error:
        raise FileFormatError(f"{path}: {error}") from error
    return model


def load_encoder(model: SpikingTransformer, source: MaskedAutoencoder | str | Path) -> None:
    """Copy a pre-trained stem and blocks into a classifier by name; its head stays as it is.

    source: the masked autoencoder, or a file that `save` wrote of it. Raises ValueError that names every
    weight that is missing, left over or misshapen.
    """
    source = load(source) if isinstance(source, (str, Path)) else source
    encoder = {path: array for path, array in source.state_dict().items() if path.startswith(ENCODER)}
    head = {path: array for path, array in model.state_dict().items() if not path.startswith(ENCODER)}
    model.load_state_dict(encoder | head)


def read_safetensors(path: str | Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Return a safetensors file's arrays and metadata. Raises FileFormatError for a damaged one."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except Exception as error:  # the library's own error, and NumPy's for a dtype that it lacks
        raise FileFormatError(f"{path}: not a readable safetensors file ({error})") from error


def checksum(arrays: dict[str, Array]) -> str:
    """Return the CRC-32 of all arrays' names and bytes, in the order of their names, as eight hex digits."""
    crc = 0
    for name in sorted(arrays):
        crc = crc32(arrays[name].tobytes(), crc32(name.encode(), crc))
    return f"{crc:08x}"


def _encode(value) -> dict:
    if isinstance(value, Surrogate):
        return {"surrogate": type(value).__name__, **asdict(value)}
    raise ValueError(f"a {type(value).__name__} in a model's configuration cannot be written to a file")


def _decode(value: dict):
    if "surrogate" in value and isinstance(value["surrogate"], str):
        return SURROGATES[value["surrogate"]](value["alpha"])
    return value
