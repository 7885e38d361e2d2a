"""Threads and memory: what makes loops fast on a processor without changing their result.

`spans` splits a loop over range(n) into one span per thread. NumPy and compiled loops release the
interpreter's lock, so plain Python threads are enough. Where no thread can be started, as in a browser's
Python, the spans are computed one after another, with the same result.
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

from threadpoolctl import ThreadpoolController

# ---------------------------------------------------------------- threads

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


def spans(work: Callable[[int, int], Any], n: int, least: int = 1) -> list:
    """Split range(n) into one span per thread, none shorter than `least`; return work(start, stop) of each.

    The cuts depend only on the arguments and the number of threads, so a run repeats bit for bit. `work` must
    release the interpreter's lock, as NumPy's loops and compiled ones do. BLAS has one thread meanwhile:
    otherwise its threads and ours would compete for the cores.
    """
    count = max(1, min(_threads, n // max(1, least)))
    edges = [n * i // count for i in range(count + 1)]
    jobs = list(zip(edges, edges[1:], strict=False))
    if count == 1 or not _at_work.acquire(blocking=False):  # or another caller uses the threads
        return [work(*job) for job in jobs]
    try:
        with _one_blas_thread():  # without threads too, because BLAS's number of threads changes its rounding
            pool = _pool(_threads - 1)
            if pool is None:
                return [work(*job) for job in jobs]
            others = [pool.submit(work, *job) for job in jobs[1:]]
            return [work(*jobs[0])] + [other.result() for other in others]
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


@cache
def blas_kernel() -> str:
    """Return the name of the kernel that BLAS has chosen for this processor, such as Zen or SkylakeX."""
    names = (library.get("architecture") for library in _blas().info() if library["user_api"] == "blas")
    return next(filter(None, names), "unknown")


def _one_blas_thread():
    """Hold BLAS to one thread while our own threads are busy; otherwise they would compete for the cores."""
    return _blas().limit(limits=1, user_api="blas") if _threads > 1 else nullcontext()


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
