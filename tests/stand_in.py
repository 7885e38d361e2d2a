"""A stand-in for a GPU: an array that is on no host, and a module `xp` that computes on it.

As CuPy, it refuses NumPy's functions, ufuncs together with host arrays, indices that are host arrays, and any
implicit conversion. So whatever runs on it has no stray NumPy. Registered as device "stand_in".
"""

from types import ModuleType

import numpy as np
import scipy.fft

from minispike import backend


class DeviceArray:
    """Holds a NumPy array where nothing but the stand-in's own module reaches it."""

    __array_ufunc__ = None  # host_array + device_array comes to __radd__, which refuses

    def __init__(self, host):
        self._host = np.asarray(host)

    def __array__(self, *_, **__):
        raise TypeError("implicit conversion of a device array to NumPy")

    def __array_function__(self, function, *_, **__):
        raise TypeError(f"numpy.{function.__name__} called on a device array")

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)  # no __array_interface__: that too would be a way out
        value = getattr(self._host, name)
        return wrap_call(value) if callable(value) else wrap(value)

    def __getitem__(self, index):
        return wrap(self._host[unwrap(index)])

    def __setitem__(self, index, value):
        self._host[unwrap(index)] = unwrap(value)

    def __len__(self):
        return len(self._host)

    def __iter__(self):
        return (wrap(x) for x in self._host)

    def __float__(self):
        return float(self._host)

    def __int__(self):
        return int(self._host)

    def __bool__(self):
        return bool(self._host)


def _operator(name, in_place=False):
    def apply(self, *others):
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


def wrap_call(function):
    def call(*args, **kwargs):
        result = function(*(unwrap(x) for x in args), **{key: unwrap(x) for key, x in kwargs.items()})
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
        return DeviceArray(np.array(x._host if isinstance(x, DeviceArray) else x, dtype))


class FFT:
    """The stand-in's fft module: SciPy's functions over DeviceArrays."""

    def __getattr__(self, name):
        return wrap_call(getattr(scipy.fft, name))


XP = Module()
DEVICE = backend.Device(
    "stand_in", DeviceArray, XP, lambda x: DeviceArray(x.copy()), lambda x: x._host, FFT()
)
backend.DEVICES["stand_in"] = DEVICE
