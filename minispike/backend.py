"""Where arrays live: devices, and the array module of each.

Every other file of the learning path asks an array for its module (`xp = get_xp(x)`) and then writes plain
array code. So the same op runs on NumPy and on CuPy, side by side in one process. Nothing is switched
globally; only `to_device` and `to_host` move data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.fft

Array = Any  # numpy.ndarray or cupy.ndarray

# ---------------------------------------------------------------- devices


@dataclass(frozen=True)
class Device:
    """One kind of array: its type, the module that computes on it, how to move it, and its fft module."""

    name: str
    array_type: type | tuple[type, ...]
    xp: Any
    from_host: Callable[[np.ndarray], Array]
    to_host: Callable[[Array], np.ndarray]
    fft: Any = None

    @cached_property
    def twins(self) -> dict:
        """The table of this device's faster forms: {op: twin}."""
        return TWINS.get(self.name, dict)()


TWINS: dict[str, Callable[[], dict]] = {}  # for each device, the function that makes its table of twins
HOST = Device("cpu", (np.ndarray, np.generic), np, np.asarray, np.asarray, scipy.fft)
DEVICES = {"cpu": HOST}


def get_device(x: Array) -> Device:
    """Return the device that an array lives on. TypeError for anything but a NumPy or CuPy array."""
    device = _find_device(x)
    if device is None:
        raise TypeError(f"expected an array (NumPy or CuPy), got {type(x).__name__}")
    return device


def _find_device(x: Any) -> Device | None:
    for device in DEVICES.values():
        if isinstance(x, device.array_type):
            return device
    return _cuda() if type(x).__module__.partition(".")[0] == "cupy" else None


def get_xp(x: Array) -> Any:
    """Return the array module of `x`: numpy or cupy."""
    return get_device(x).xp


def to_host(x: Array) -> np.ndarray:
    """Return an array as a NumPy array; a NumPy array is returned as it is."""
    return get_device(x).to_host(x)


def to_device(x: Array, device: str) -> Array:
    """Return an array on a device, "cpu" or "cuda"; an array that is already there is returned as it is."""
    if device == "cuda" and device not in DEVICES:
        _cuda()
    if device not in DEVICES:
        raise ValueError(f"unknown device {device!r}; known: {', '.join(sorted(DEVICES | {'cuda': None}))}")
    target = DEVICES[device]
    return x if isinstance(x, target.array_type) else target.from_host(to_host(x))


def _cuda() -> Device:
    try:
        import cupy
        import cupyx.scipy.fft
    except ImportError as error:
        raise ImportError(
            "device 'cuda' needs CuPy: pip install 'minispike[cuda12]' (or [cuda13])"
        ) from error
    return DEVICES.setdefault(
        "cuda", Device("cuda", cupy.ndarray, cupy, cupy.asarray, cupy.asnumpy, cupyx.scipy.fft)
    )


_plain: ContextVar[bool] = ContextVar("plain", default=False)


def twin(op: Any, x: Array) -> Any:
    """Return the faster form of an op that the device of x has, or the op itself if there is none.

    op: a Function's class, or a plain function over arrays. The tables stand in minispike/kernels.
    """
    return op if _plain.get() else get_device(x).twins.get(op, op)


@contextmanager
def plain() -> Iterator[None]:
    """Inside the block every op runs as it is written to be read, without a twin."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def all_finite(*arrays: Array) -> bool:
    """Return whether arrays of one device hold neither NaN nor Inf. On a GPU the host waits once."""
    xp = get_xp(arrays[0])
    return bool(xp.stack([xp.isfinite(x).all() for x in arrays]).all())


def to_floats(values: dict[str, Any]) -> dict[str, float]:
    """Return numbers, and arrays of one element, as Python floats. Those on a GPU come in one copy."""
    away = {name: x for name, x in values.items() if is_array(x) and get_device(x) is not HOST}
    found = {name: float(asarray(x).item()) for name, x in values.items() if name not in away}
    if away:
        xp = get_xp(next(iter(away.values())))
        column = xp.stack([x.reshape(()).astype("float64", copy=False) for x in away.values()])
        found |= zip(away, to_host(column).tolist(), strict=True)
    return {name: found[name] for name in values}


def asarray(x: Any) -> Array:
    """Return a device's array as it is, and anything else (a list, a number) as a NumPy array."""
    return np.asarray(x) if _find_device(x) in (None, HOST) else x


def is_array(x: Any) -> bool:
    """Return whether x is an array of a known device. NumPy's single numbers do not count."""
    return _find_device(x) is not None and not isinstance(x, np.generic)


def zeros(*shape: int) -> np.ndarray:
    """Return float64 zeros on the host, as a layer's parameters start."""
    return np.zeros(shape)


def ones(*shape: int) -> np.ndarray:
    """Return float64 ones on the host."""
    return np.ones(shape)


def orthogonal(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return a random orthogonal n×n matrix, uniformly distributed, in float64 on the host."""
    q, r = np.linalg.qr(rng.standard_normal((n, n)))
    return q * np.sign(np.diag(r))


def make_rng(seed: int | np.random.Generator) -> np.random.Generator:
    """Return a random generator (on the host) for a seed; a generator is returned as it is, to be shared."""
    return seed if hasattr(seed, "standard_normal") else np.random.default_rng(seed)
