"""A stand-in for a GPU: an array that is on no host, and a module `xp` that computes on it.

As CuPy, it refuses NumPy's functions, ufuncs together with host arrays, indices that are host arrays, and any
implicit conversion. So whatever runs on it has no stray NumPy. Registered as device "stand_in".

It also counts what would happen on a GPU (`counting`): a launch for each operation that writes an array, none
for a view; and a synchronisation wherever the host waits for a value.
"""

from collections import Counter
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from weakref import WeakValueDictionary

import numpy as np
import scipy.fft

from minispike import backend, kernels

from . import cxx

counted = Counter()  # "launches", "synchronisations"; and each by the name of its operation


@contextmanager
def counting():
    """Yield a Counter of the launches and synchronisations inside the block."""
    counted.clear()
    yield counted
    counted["launches"] = sum(n for (kind, _), n in list_of(counted) if kind == "launch")
    counted["synchronisations"] = sum(n for (kind, _), n in list_of(counted) if kind == "wait")


def list_of(counts):
    return [(key, n) for key, n in counts.items() if isinstance(key, tuple)]


NO_LAUNCH = {"empty", "empty_like", "broadcast_to", "as_strided", "finfo", "result_type"}
AT_MOST_A_COPY = {"ascontiguousarray", "astype"}  # they may return the array that they are given
WAITS = {"item", "tolist", "sliding_window_view"}  # CuPy tests the last one's sizes on the device


def count(name, arguments, result):
    """Count an operation by its name, its arguments and what came out, all as NumPy has them."""
    if name in WAITS:
        counted["wait", name] += 1
    elif name not in NO_LAUNCH and isinstance(result, (np.ndarray, np.generic)):
        arrays = [x for x in flat(arguments) if isinstance(x, np.ndarray)]
        is_view = isinstance(result, np.ndarray) and any(np.may_share_memory(result, x) for x in arrays)
        same = any(result is x for x in arrays)  # in place, or with out=
        if not is_view or (same and name not in AT_MOST_A_COPY):
            counted["launch", name] += 1


def flat(x):
    return [z for y in x for z in flat(y)] if isinstance(x, (tuple, list)) else [x]


_wrapped = WeakValueDictionary()  # the DeviceArray of each host array, by its id


class DeviceArray:
    """Holds a NumPy array where nothing but the stand-in's own module reaches it."""

    __array_ufunc__ = None  # host_array + device_array comes to __radd__, which refuses

    def __init__(self, host):
        self._host = np.asarray(host)
        _wrapped[id(self._host)] = self

    @property
    def base(self):
        """The array that a view is of: always the same object, as in NumPy and CuPy."""
        return None if self._host.base is None else _wrapped.get(id(self._host.base))

    def __array__(self, *_, **__):
        raise TypeError("implicit conversion of a device array to NumPy")

    def __array_function__(self, function, *_, **__):
        raise TypeError(f"numpy.{function.__name__} called on a device array")

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)  # no __array_interface__: that too would be a way out
        value = getattr(self._host, name)
        return wrap_call(value, self._host) if callable(value) else wrap(value)

    def __getitem__(self, index):
        result = self._host[unwrap(index)]
        if isinstance(result, np.ndarray):  # one entry is a view on a GPU, and NumPy's number here
            count("getitem", [self._host], result)
        return wrap(result)

    def __setitem__(self, index, value):
        counted["launch", "setitem"] += 1
        self._host[unwrap(index)] = unwrap(value)

    def __len__(self):
        return len(self._host)

    def __iter__(self):
        return (wrap(x) for x in self._host)

    def __float__(self):
        counted["wait", "float"] += 1
        return float(self._host)

    def __int__(self):
        counted["wait", "int"] += 1
        return int(self._host)

    def __bool__(self):
        counted["wait", "bool"] += 1
        return bool(self._host)


def _operator(name, in_place=False):
    def apply(self, *others):
        counted["launch", name.strip("_")] += 1
        result = getattr(self._host, name)(*(unwrap(x) for x in others))
        if in_place:
            self._host = result
            return self
        return result if result is NotImplemented else wrap(result)

    return apply


OPERATORS = "add sub mul truediv floordiv matmul pow mod and or xor".split()
for name in OPERATORS:
    for prefix in ("", "r", "i"):
        setattr(DeviceArray, f"__{prefix}{name}__", _operator(f"__{prefix}{name}__", prefix == "i"))
for name in "neg abs invert lt le gt ge eq ne".split():
    setattr(DeviceArray, f"__{name}__", _operator(f"__{name}__"))
DeviceArray.__hash__ = object.__hash__


def wrap(x):
    """Arrays come out on the device, zero-dimensional ones too; shapes, dtypes and None as they are."""
    if isinstance(x, (np.ndarray, np.generic)):
        return DeviceArray(x)
    return [wrap(y) for y in x] if isinstance(x, list) else x


def unwrap(x):
    """Take the device's arrays apart; refuse the host's."""
    if isinstance(x, DeviceArray):
        return x._host
    if isinstance(x, (np.ndarray, np.generic)):
        raise TypeError("a host array met a device array")
    if isinstance(x, (tuple, list)):
        return type(x)(unwrap(y) for y in x)
    return x


def wrap_call(function, *owner):
    def call(*args, **kwargs):
        args, kwargs = [unwrap(x) for x in args], {key: unwrap(x) for key, x in kwargs.items()}
        result = function(*args, **kwargs)
        count(function.__name__, [*owner, args, list(kwargs.values())], result)
        return wrap(result)

    return call


class Module:
    """The stand-in's array module: NumPy's functions over DeviceArrays; `used` collects their names."""

    used: set = set()
    ndarray = DeviceArray

    def __init__(self, within=np):
        self._within = within

    def __getattr__(self, name):
        self.used.add(name)
        value = getattr(self._within, name)
        if isinstance(value, ModuleType):  # xp.lib.stride_tricks
            return Module(value)
        return wrap_call(value) if callable(value) else value

    def asarray(self, x, dtype=None):
        """The one explicit way in."""
        self.used.add("asarray")
        if not isinstance(x, DeviceArray):
            counted["launch", "asarray"] += 1  # a copy from the host
        return DeviceArray(np.array(x._host if isinstance(x, DeviceArray) else x, dtype))


class FFT:
    """The stand-in's fft module: SciPy's functions over DeviceArrays."""

    def __getattr__(self, name):
        return wrap_call(getattr(scipy.fft, name))


XP = Module()


def to_host(x):
    counted["wait", "to_host"] += 1
    return x._host


class Kernels(cxx.RawModule):
    """The stand-in's RawModule: each call of a kernel is a launch."""

    def get_function(self, name):
        kernel = super().get_function(name)

        def launch(grid, block, arguments):
            counted["launch", name] += 1
            kernel(grid, block, [unwrap(x) if isinstance(x, DeviceArray) else x for x in arguments])

        return launch


if cxx.COMPILER:
    XP.RawModule, XP.cuda = Kernels, SimpleNamespace(Device=lambda: "cpu")  # what a NumPy array's device is
    backend.TWINS["stand_in"] = kernels.on_cuda

DEVICE = backend.Device("stand_in", DeviceArray, XP, lambda x: DeviceArray(x.copy()), to_host, FFT())
backend.DEVICES["stand_in"] = DEVICE
