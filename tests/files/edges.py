"""What the tests of foreign files share: small models, and files written by hand."""

import io
import json
import tracemalloc
import warnings
import zipfile
from contextlib import contextmanager

import numpy as np

from .common import small
from .torch_writer import (
    Call,
    Name,
    tensor,
)

OLD = Name("torch._utils", "_rebuild_tensor")
V3 = Name("torch._utils", "_rebuild_tensor_v3")
HEAD = "head.weight"
ORDERED = Name("collections", "OrderedDict")
NONE = Call(ORDERED)


@contextmanager
def memory_below(limit):
    """Fail if more than `limit` bytes are allocated at any moment inside."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def tensors(state: dict, first=0) -> dict:
    """Return a state dict for write_torch: each array on a storage of its own."""
    return {name: tensor(array, f"{first + i}") for i, (name, array) in enumerate(state.items())}


def prefixed(state: dict, prefix: str) -> dict:
    return {prefix + name: value for name, value in state.items()}


def blank():
    """Return a model like `small` whose parameters and buffers are 0."""
    model = small()
    for array in model.state_dict().values():
        array[...] = 0
    return model


def safetensors_bytes(header: dict | str, data: bytes = b"") -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return len(text).to_bytes(8, "little") + text + data


def zip_of(path, entries):
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name, data in entries:
            archive.writestr(name, data)


def npy(array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()
