"""How loops are compiled: by Numba, from `pip install "minispike[fast]"`, and kept on disk.

Numba takes seconds to import and to compile, so nothing here imports it before the first op that is large
enough to gain from it (`worth`). Without Numba every op runs in array code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import ModuleType

LEAST = 2**15  # values in an op's input, below which a loop saves less than a millisecond
ADVICE = 'pip install "minispike[fast]" makes training up to twice as fast'


def worth(size: int) -> bool:
    """Return whether an op on so many values is worth a compiled loop, and there is Numba to compile it."""
    return size >= LEAST and why_not() is None


@cache
def why_not() -> str | None:
    """Return why loops cannot be compiled here, or None if they can."""
    try:
        import_module("numba")
    except ImportError as error:  # Numba raises it, too, where it does not know the version of NumPy
        return f"compiled loops, which there are not ({error}): {ADVICE}"
    return None


@cache
def tell_what_is_missing() -> None:
    """Say once what would make this faster and is not installed."""
    if why_not():
        print(f"note: this runs without {why_not()}", file=sys.stderr)


@cache
def loops(name: str) -> ModuleType:
    """Return a module of loops, which are compiled when they are first called."""
    return import_module(f"minispike.kernels.{name}")


# ---------------------------------------------------------------- for the modules of loops


def compile_with(fastmath: bool | set[str], inline: str = "never") -> Callable:
    """Return a decorator: compile a function when it is called, without the interpreter's lock.

    The result is kept on disk, next to the source or in the user's cache folder. Where neither can be
    written, each process compiles again.
    """
    from numba import njit

    _tell_once()
    options = {"nogil": True, "error_model": "numpy", "fastmath": fastmath, "inline": inline}

    def decorate(function: Callable):
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # no place to write to
            _say("compiled loops cannot be kept on disk: no folder for them can be written")
            return njit(**options)(function)

    return decorate


@cache
def _say(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


@cache
def _tell_once() -> None:
    """Say in one line that Numba compiles, when it first does."""
    from numba.core import event

    class Listener(event.Listener):
        def on_start(self, _):
            _say("compiling fast loops, once for this machine; the next runs find them on disk")

        def on_end(self, _):
            pass

    event.register("numba:compile", Listener())
