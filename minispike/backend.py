"""Where arrays live: the one file of the learning path that imports NumPy, CuPy or SciPy.

Everything above this file asks an array for its module (`xp = get_xp(x)`) and then writes plain array code.
So the same op runs on NumPy and on CuPy, side by side in one process; nothing is switched globally and only
`to_device` and `to_host` move data.

The second half is about cores: `parallel` cuts a loop into cache-sized chunks and walks them on every thread.
NumPy releases the interpreter's lock inside its loops, so plain Python threads are enough.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
import scipy.fft
from threadpoolctl import ThreadpoolController

Array = Any  # numpy.ndarray or cupy.ndarray

# ---------------------------------------------------------------- devices


@dataclass(frozen=True)
class Device:
    """One kind of array: its type, the module that computes on it, the way in and out, and its fft module."""

    name: str
    array_type: type | tuple[type, ...]
    xp: Any
    from_host: Callable[[np.ndarray], Array]
    to_host: Callable[[Array], np.ndarray]
    fft: Any = None


HOST = Device("cpu", (np.ndarray, np.generic), np, np.asarray, np.asarray, scipy.fft)
DEVICES = {"cpu": HOST}


def get_device(x: Array) -> Device:
    """Return the device an array lives on. TypeError if it is no array we know."""
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
    """Copy an array to NumPy; a NumPy array comes back as it is."""
    return get_device(x).to_host(x)


def to_device(x: Array, device: str) -> Array:
    """Move an array to a device by name: "cpu" or "cuda". An array already there comes back as it is."""
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


def asarray(x: Any) -> Array:
    """Keep a device's array where it is; make a NumPy array of anything else (a list, a number)."""
    return np.asarray(x) if _find_device(x) in (None, HOST) else x


def is_array(x: Any) -> bool:
    """Return whether x is an array of a known device; NumPy's numbers are none."""
    return _find_device(x) is not None and not isinstance(x, np.generic)


def zeros(*shape: int) -> np.ndarray:
    """Return float64 zeros on the host: where a layer's parameters begin."""
    return np.zeros(shape)


def ones(*shape: int) -> np.ndarray:
    """Return float64 ones on the host."""
    return np.ones(shape)


def orthogonal(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return a random orthogonal n×n matrix, uniformly distributed, in float64 on the host."""
    q, r = np.linalg.qr(rng.standard_normal((n, n)))
    return q * np.sign(np.diag(r))


def make_rng(seed: int | np.random.Generator) -> np.random.Generator:
    """Return the host's random generator for a seed; a generator passes through, so callers can share one."""
    return seed if hasattr(seed, "standard_normal") else np.random.default_rng(seed)


# ---------------------------------------------------------------- threads

CHUNK_BYTES = 4 * 1024 * 1024  # what one step of a chunked loop touches: cached, and with few hand-overs
_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_threads(n: int) -> None:
    """Use `n` threads from now on, in our own loops and in BLAS. Results depend on `n` only by rounding."""
    global _threads
    if n < 1:
        raise ValueError(f"set_threads needs n >= 1, got {n}")
    _threads = int(n)
    _blas().limit(limits=_threads, user_api="blas")


def get_threads() -> int:
    """Return the number of threads in use."""
    return _threads


def parallel(work: Callable[[list[slice]], Any], n: int, bytes_each: int, like: Array) -> list:
    """Cut range(n) into a span a thread, each span into cache-sized chunks; return the spans' `work(chunks)`.

    `bytes_each` is the memory one index touches. A device array gets a single span and, up to 1 GiB, a single
    chunk: there the array library has its own threads. The cuts depend only on the arguments and the number
    of threads, so a run repeats bit for bit.
    """
    on_host = isinstance(like, HOST.array_type)
    step = max(1, (CHUNK_BYTES if on_host else 2**30) // max(1, bytes_each))
    spans = max(1, min(_threads, n // (2 * step))) if on_host else 1  # waking a thread is not free
    edges = [n * i // spans for i in range(spans + 1)]
    jobs = [
        [slice(a, min(a + step, stop)) for a in range(start, stop, step)]
        for start, stop in zip(edges, edges[1:], strict=False)
    ]
    if len(jobs) == 1 or not _at_work.acquire(blocking=False):  # or another caller has the threads
        return [work(job) for job in jobs]
    try:
        with _one_blas_thread():
            others = [_pool(_threads - 1).submit(work, job) for job in jobs[1:]]
            return [work(jobs[0])] + [other.result() for other in others]
    finally:
        _at_work.release()


_at_work = Lock()


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="minispike")


def _after_fork() -> None:
    """Begin with threads of one's own: a forked process inherits the pool, but not its threads."""
    global _at_work
    _at_work = Lock()
    _pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def _one_blas_thread():
    """Hold BLAS to one thread while our own threads are busy, so that the cores are not asked twice."""
    return _blas().limit(limits=1, user_api="blas") if _threads > 1 else nullcontext()


def as_bytes(x: Array) -> Array:
    """Return x as uint8 where that loses nothing, as of spikes and their small sums; otherwise x itself.

    For what an op keeps until its backward: a quarter of float32's memory. `.astype(gy.dtype)` brings x back.
    """
    flat = x.reshape(-1)
    small = get_xp(x).empty(flat.shape, "uint8")

    def work(chunks):
        with np.errstate(invalid="ignore"):  # a value that no byte can hold is found by comparing
            for at in chunks:
                small[at] = flat[at]
                if not (small[at] == flat[at]).all():
                    return False
        return True

    return small.reshape(x.shape) if all(parallel(work, flat.size, 2 * x.dtype.itemsize, x)) else x


def keep_freed_memory() -> None:
    """Ask the C library to keep freed memory for the next step, not to return it (glibc; elsewhere: nothing).

    A training step frees and asks again for the same large arrays. Returned to the system in between, they
    come back as page faults, which can take as long as the arithmetic.
    """
    with suppress(OSError, AttributeError, TypeError):  # the last on Windows, where None names no library
        libc = ctypes.CDLL(None)
        thresholds = {-1: 2**31 - 1, -2: 2**26, -3: 2**30}  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD
        for parameter, size in thresholds.items():
            libc.mallopt(parameter, size)
