"""Threads, bytes and memory: what makes array code fast on a processor without changing its result.

`parallel` splits a loop over range(n) into one span per thread, and each span into chunks that fit the cache.
NumPy releases the interpreter's lock inside its loops, so plain Python threads are enough. Where no thread
can be started, as in a browser's Python, the spans are computed one after another, with the same result.
"""

from __future__ import annotations

import ctypes
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from functools import cache
from threading import Barrier, Lock
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from .backend import HOST, Array, get_xp

# ---------------------------------------------------------------- threads

CHUNK_BYTES = (
    4 * 1024 * 1024
)  # what one chunk of a loop touches: it fits the cache, and the overhead per chunk is small
_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_threads(n: int) -> None:
    """Use `n` threads from now on, in our own loops and in BLAS. `n` changes results only by rounding."""
    global _threads
    if n < 1:
        raise ValueError(f"set_threads needs n >= 1, got {n}")
    _threads = int(n)
    _blas().limit(limits=_threads, user_api="blas")


def get_threads() -> int:
    """Return the number of threads in use."""
    return _threads


def parallel(work: Callable[[list[slice]], Any], n: int, bytes_each: int, like: Array) -> list:
    """Split range(n) into one span per thread and each span into chunks; return `work(chunks)` of each span.

    bytes_each: the memory that one index touches; a chunk's fits the cache.    like: an array of the device.
    A device other than the host gets a single span and, up to 1 GiB, a single chunk, because its array
    library has its own threads. The cuts depend only on the arguments and the number of threads, so a run
    repeats bit for bit.
    """
    on_host = isinstance(like, HOST.array_type)
    step = max(1, (CHUNK_BYTES if on_host else 2**30) // max(1, bytes_each))
    spans = max(1, min(_threads, n // (2 * step))) if on_host else 1  # waking a thread costs time
    edges = [n * i // spans for i in range(spans + 1)]
    jobs = [
        [slice(a, min(a + step, stop)) for a in range(start, stop, step)]
        for start, stop in zip(edges, edges[1:], strict=False)
    ]
    if len(jobs) == 1 or not _at_work.acquire(blocking=False):  # or another caller uses the threads
        return [work(job) for job in jobs]
    try:
        with _one_blas_thread():  # without threads too, because BLAS's number of threads changes its rounding
            pool = _pool(_threads - 1)
            if pool is None:
                return [work(job) for job in jobs]
            others = [pool.submit(work, job) for job in jobs[1:]]
            return [work(jobs[0])] + [other.result() for other in others]
    finally:
        _at_work.release()


_at_work = Lock()


def threads_start() -> bool:
    """Return whether the threads in use can be started."""
    return _threads == 1 or _pool(_threads - 1) is not None


@cache
def _pool(workers: int) -> ThreadPoolExecutor | None:
    """Return a pool of threads that all run, or None, with a warning, if they cannot be started."""
    pool, all_run = ThreadPoolExecutor(workers, thread_name_prefix="minispike"), Barrier(workers + 1)
    try:
        for _ in range(workers):
            pool.submit(all_run.wait)
        all_run.wait()
    except RuntimeError as error:
        all_run.abort()  # those that were started end
        pool.shutdown(cancel_futures=True)
        warnings.warn(f"minispike computes without threads: {error}", RuntimeWarning, stacklevel=3)
        return None
    return pool


def _after_fork() -> None:
    """Start with new threads in a forked process: it inherits the pool, but not the pool's threads."""
    global _at_work
    _at_work = Lock()
    _pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def _one_blas_thread():
    """Hold BLAS to one thread while our own threads are busy; otherwise they would compete for the cores."""
    return _blas().limit(limits=1, user_api="blas") if _threads > 1 else nullcontext()


def as_bytes(x: Array) -> Array:
    """Return x as uint8 where that loses nothing, as for spikes and small counts; otherwise return x itself.

    An op that keeps x until its backward then needs a quarter of float32's memory. `.astype(gy.dtype)` gives
    the values back.
    """
    flat = x.reshape(-1)
    small = get_xp(x).empty(flat.shape, "uint8")

    def work(chunks):
        with np.errstate(invalid="ignore"):  # a value that does not fit into a byte is found by comparing
            for at in chunks:
                small[at] = flat[at]
                if not (small[at] == flat[at]).all():
                    return False
        return True

    return small.reshape(x.shape) if all(parallel(work, flat.size, 2 * x.dtype.itemsize, x)) else x


def keep_freed_memory() -> None:
    """Ask the C library to keep freed memory for the next step (glibc; other libraries: no effect).

    Each training step frees the same large arrays and allocates them again. If the memory goes back to the
    system in between, every page of it faults again, which can take as long as the arithmetic.
    """
    with suppress(OSError, AttributeError, TypeError):  # TypeError: on Windows
        libc = ctypes.CDLL(None)
        thresholds = {-1: 2**31 - 1, -2: 2**26, -3: 2**30}  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD
        for parameter, size in thresholds.items():
            libc.mallopt(parameter, size)
