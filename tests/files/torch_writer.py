"""Write PyTorch's .pth files byte by byte, as torch.save writes them, harmless and hostile ones.

The oracle tests read files that torch itself has written.
"""

import collections
import io
import os
import pickle
import zipfile

import numpy as np

TYPES = {"f4": "Float", "f8": "Double", "f2": "Half", "i8": "Long", "i4": "Int", "i2": "Short", "i1": "Char",
         "u1": "Byte", "b1": "Bool"}  # fmt: skip


class Tensor:
    """Pickles as torch._utils._rebuild_tensor_v2 on a storage."""

    def __init__(self, storage, offset, size, stride):
        self.parts = storage, offset, size, stride, False, collections.OrderedDict()


class Storage:
    """Pickles as a persistent id; its bytes go to data/<key>."""

    def __init__(self, key, kind, data, length):
        self.key, self.kind, self.data, self.length = key, kind, data, length


class Name:
    """Pickles as the global module.name, whether or not it exists."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    """Pickles as a call of a global: GLOBAL … REDUCE."""

    def __init__(self, function, *args):
        self.function, self.args = function, args


def tensor(array, key="0"):
    array = np.ascontiguousarray(array)
    strides = tuple(step // array.itemsize for step in array.strides)
    storage = Storage(key, TYPES[array.dtype.str[1:]], array.tobytes(), array.size)
    return Tensor(storage, 0, array.shape, strides)


def pickled(tree, *, legacy=False, protocol=2):
    """Return a tree of dicts, lists, numbers, text and Tensors as torch.save pickles it, and its Storages."""
    out, storages = io.BytesIO(), {}

    class Pickler(pickle._Pickler):
        def persistent_id(self, value):
            if isinstance(value, Storage):
                storages[value.key] = value
                name = Name("torch", f"{value.kind}Storage")
                return ("storage", name, value.key, "cpu", value.length, *([None] if legacy else []))

        def save(self, value, save_persistent_id=True):
            if isinstance(value, Name):
                self.write(b"c" + f"{value.module}\n{value.name}\n".encode())
            elif isinstance(value, Tensor):
                self.save(Name("torch._utils", "_rebuild_tensor_v2"))
                self.save(value.parts)
                self.write(b"R")
            elif isinstance(value, Call):
                self.save(value.function)
                self.save(value.args)
                self.write(b"R")
            else:
                super().save(value, save_persistent_id)

    Pickler(out, protocol=protocol).dump(tree)
    return out.getvalue(), storages


def write_torch(path, tree, *, compress=zipfile.ZIP_STORED, extra=(), byteorder=b"little"):
    """Write a tree as torch.save does since version 1.6 (protocol 2)."""
    program, storages = pickled(tree)
    with zipfile.ZipFile(path, "w", compress) as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", byteorder)
        for key, storage in storages.items():
            archive.writestr(f"archive/data/{key}", storage.data)
        archive.writestr("archive/version", b"3")
        for name, data in extra:
            archive.writestr(name, data)


def write_legacy(path, tree, *, protocol=2, keys=None, lengths=None, version=1001):
    """Write a tree as torch.save did before. keys, lengths: of the storages, where they shall be wrong."""
    program, storages = pickled(tree, legacy=True, protocol=protocol)
    system = {
        "protocol_version": 1001,
        "little_endian": True,
        "type_sizes": {"short": 2, "int": 4, "long": 4},
    }
    head = [pickle.dumps(value, protocol) for value in (0x1950A86A20F9469CFC6C, version, system)]
    keys = sorted(storages) if keys is None else keys
    tail = [pickle.dumps(keys, protocol)]
    for key in keys:
        length = (lengths or {}).get(key, storages[key].length if key in storages else 0)
        tail += [length.to_bytes(8, "little"), storages[key].data if key in storages else b""]
    path.write_bytes(b"".join([*head, program, *tail]))


# ---------------------------------------------------------------- hostile files


class Evil:
    """What a malicious checkpoint holds: a call that an ordinary unpickler makes."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


MARKER = "minispike_was_here"


PAYLOADS = {
    "os.system": Evil(os.system, f"touch {MARKER}"),
    "eval": Evil(eval, f"open('{MARKER}', 'w')"),
    "exec": Evil(exec, f"open('{MARKER}', 'w')"),
    "open": Evil(open, MARKER, "w"),
    "getattr chain": Evil(getattr, Evil(__import__, "os"), "system"),
    "in a list": [1, {"deep": (Evil(os.mkdir, MARKER),)}],
}
