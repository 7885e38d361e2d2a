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


def write_torch(path, tree, *, compress=zipfile.ZIP_STORED, extra=(), byteorder=b"little"):
    """Write a tree of dicts, lists, numbers, text and Tensors as torch.save does (protocol 2)."""
    out, storages = io.BytesIO(), {}

    class Pickler(pickle._Pickler):
        def persistent_id(self, value):
            if isinstance(value, Storage):
                storages[value.key] = value.data
                return ("storage", Name("torch", f"{value.kind}Storage"), value.key, "cpu", value.length)

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

    Pickler(out, protocol=2).dump(tree)
    with zipfile.ZipFile(path, "w", compress) as archive:
        archive.writestr("archive/data.pkl", out.getvalue())
        archive.writestr("archive/byteorder", byteorder)
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
        archive.writestr("archive/version", b"3")
        for name, data in extra:
            archive.writestr(name, data)


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
