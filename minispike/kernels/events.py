"""Twins of the products that spikes enter: they add rows of W where there is a spike, if that is faster.

A product looks at its input first: whole numbers from 0 to 255 are kept as bytes, a quarter of float32's
memory, and counted. If few enough are not 0, the *active share*, the product and the gradient of W go by
events (event_loops.py). Otherwise, and always for the gradient of x, they are dense, on our own threads.

What is few enough is measured for each processor by `python -m benchmarks.spikes` and stands in
crossings.json. The choice depends on the input and on a row of that table, never on time or threads, so a run
repeats bit for bit where it has the same row (`use_products`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path

import numpy as np

from ..ops.conv import Convolve2d
from ..ops.matmul import MatMulAdd, column_sums
from ..parallel import blas_kernel, spans
from .compiled import loops, why_not, worth
from .host import SPAN, ready
from .unfolded import UnfoldedConvolve2d

WIDTH = 32  # outputs that a loop of event_loops.py adds up at a time

# ---------------------------------------------------------------- when to go by events

DENSE = "dense"  # the name of no row: every product is dense
_chosen: str | None = None


def use_products(name: str | None) -> None:
    """Choose by this row of the table from now on; "dense" for none, None for the row of this processor.

    ValueError for a row that the table does not have, and for any row where there is no Numba.
    """
    global _chosen
    if name not in (None, DENSE, *_table()):
        raise ValueError(f"no products {name!r}; there are {', '.join((DENSE, *_table()))}")
    if name not in (None, DENSE) and why_not():
        raise ValueError(f"products {name!r} need {why_not()}")
    _chosen = name


def products() -> str:
    """Return the name of the row in use: "dense" without Numba, a cautious row for an unknown processor."""
    return _chosen or (DENSE if why_not() else _own_row())


@cache
def _own_row() -> str:
    return blas_kernel() if blas_kernel() in _table() else "unknown"


@cache
def _table() -> dict[str, dict[str, list[float]]]:
    return json.loads(Path(__file__).with_name("crossings.json").read_text("utf-8"))["rows"]


@dataclass(frozen=True)
class Events:
    """Whole numbers as bytes, with their active share; `binary` if none is above 1."""

    x: np.ndarray
    share: float
    binary: bool

    def pay(self, what: str, w_shape: tuple) -> bool:
        """Return whether a product goes by events: "linear", "convolution", or a "… gradient" of W."""
        what = what if self.binary else f"{what}, counts"
        return products() != DENSE and self.share < limit(_table()[products()][what], w_shape)


def limit(row: list[float], w_shape: tuple) -> float:
    """Return the active share below which a product with a weight [..., D] of K rows goes by events.

        share · (1 + per_output / D) · rows/K, from a fifth to one        row: share, per_output, rows

    per_output < 0: to list the events takes a time that does not grow with D; > 0: nor does it to unfold
    windows for the dense product. rows: so many rows of W, 32 outputs wide, stay in the cache. The loops
    round the outputs up to whole 32s.
    """
    share, per_output, rows = row
    K, D = prod(w_shape[:-1]), w_shape[-1]
    return share * max(0.0, 1 + per_output / D) * min(1.0, max(0.2, rows / K)) * D / _rounded(D)


def as_events(x: np.ndarray) -> Events | None:
    """Return float32 x as bytes, or None if it holds anything but whole numbers from 0 to 255."""
    flat = ready(x).reshape(-1)
    small = np.empty(flat.shape, "uint8")
    to_bytes = loops("event_loops").to_bytes
    found = spans(lambda start, stop: to_bytes(flat, small, start, stop), flat.size, SPAN)
    if any(active < 0 for active, _ in found):
        return None
    share = sum(active for active, _ in found) / flat.size
    return Events(small.reshape(x.shape), share, max(largest for _, largest in found) <= 1)


def _rounded(outputs: int) -> int:
    return -(-outputs // WIDTH) * WIDTH


def _aligned(*shape: int) -> np.ndarray:
    """Return a new float32 array that begins at a line of the cache, of 64 bytes.

    Elsewhere each 32 entries would touch three lines instead of two: a product with few spikes would take
    twice the time, because it writes for most of it.
    """
    memory = np.empty(4 * prod(shape) + 64, "uint8")
    first = -memory.ctypes.data % 64
    return memory[first : first + 4 * prod(shape)].view("float32").reshape(shape)


def _packed(w: np.ndarray) -> np.ndarray:
    """Return w [rows, D] as [D/32, rows, 32], filled up with zeros."""
    (rows, D), n = w.shape, len(w.T) // WIDTH
    packed = _aligned(_rounded(D) // WIDTH, rows, WIDTH)
    packed[:n] = w[:, : n * WIDTH].reshape(rows, n, WIDTH).swapaxes(0, 1)
    packed[n:] = 0
    packed[n:, :, : D - n * WIDTH] = w[:, n * WIDTH :]
    return packed


def _widened(x: np.ndarray) -> np.ndarray:
    """Return x [..., D] filled up with zeros to whole 32s, for loops to read."""
    D = x.shape[-1]
    if D % WIDTH == 0:
        return ready(x)
    wide = np.zeros((*x.shape[:-1], _rounded(D)), x.dtype)
    wide[..., :D] = x
    return wide


def _bias(b: np.ndarray | None, D: int) -> np.ndarray:
    return np.zeros(_rounded(D), "float32") if b is None else _widened(b)


# ---------------------------------------------------------------- linear maps


class EventMatMulAdd(MatMulAdd):
    """y = x w + b by events where they pay, else dense."""

    @staticmethod
    def takes(x, w, b=None) -> bool:
        return x.dtype == "float32" and worth(x.size)

    def forward(self, x, w, b=None):
        self.w, self.has_bias, self.lead = w, b is not None, x.shape[:-1]
        rows, D = x.reshape(-1, w.shape[0]), w.shape[1]
        self.events = as_events(rows)
        self.x = None if self.events else rows
        if self.events and self.events.pay("linear", w.shape):
            small, binary = self.events.x, self.events.binary
            y, packed, bias = _aligned(len(rows), _rounded(D)), _packed(w), _bias(b, D)
            linear = loops("event_loops").linear
            spans(lambda *at: linear(small, packed, bias, binary, y, *at), len(rows), SPAN // w.shape[0] + 1)
            y = y[:, :D]
        else:
            y = product(rows, w)
            y = y if b is None else y + b
        if not self.needs[1]:
            self.x = self.events = None
        return y.reshape(*self.lead, D)

    def backward(self, gy):
        n_in, D = self.w.shape
        g = gy.reshape(-1, D)
        gx = product(g, self.w.T).reshape(*self.lead, n_in) if self.needs[0] else None
        gw = self.gradient_of_w(g) if self.needs[1] else None
        return (gx, gw, column_sums(gy).astype(gy.dtype)) if self.has_bias else (gx, gw)

    def gradient_of_w(self, g):
        n_in, D = self.w.shape
        if not (self.events and self.events.pay("linear gradient", self.w.shape)):
            x = self.x if self.events is None else self.events.x.astype(g.dtype)
            return product(x.T, g)
        small, binary, g = self.events.x, self.events.binary, _widened(g)
        gw = np.zeros((n_in, _rounded(D)), g.dtype)
        gradient = loops("event_loops").linear_gradient
        spans(lambda *at: gradient(small, g, binary, gw, *at), n_in, SPAN // len(g) + 1)
        return np.ascontiguousarray(gw[:, :D])


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a @ b, each of our threads computing some rows of it.

    BLAS's own threads would go on spinning when the product is done, in the way of ours.
    """
    y = np.empty((len(a), b.shape[1]), a.dtype)
    spans(lambda start, stop: np.matmul(a[start:stop], b, out=y[start:stop]), len(a), 2**22 // b.size + 1)
    return y


# ---------------------------------------------------------------- convolutions


class EventConvolve2d(UnfoldedConvolve2d):
    """The convolution without unfolding, by events where they pay, else unfolded."""

    @staticmethod
    def takes(x, w, b=None, **_) -> bool:
        return x.dtype == "float32" and worth(x.size)

    def forward(self, x, w, b=None, *, stride, padding):
        self.stride, self.events, D = stride, as_events(x), w.shape[-1]
        if not (self.events and self.events.pay("convolution", w.shape)):
            y = super().forward(x, w, *(() if b is None else (b,)), stride=stride, padding=padding)
            if self.events and self.needs[1]:
                self.x = self.events.x
            return y
        self.prepare(x, w, b, stride, padding)
        small, binary = self.events.x.reshape(-1, *x.shape[-3:]), self.events.binary
        self.x = self.events.x if self.needs[1] else None
        y = _aligned(len(small), *self.windows.size, _rounded(D))
        settings = (_packed(w.reshape(-1, D)), _bias(b, D), binary, *w.shape[:2], stride, padding, y)
        convolve = loops("event_loops").convolve
        spans(lambda *at: convolve(small, *settings, *at), len(small), SPAN // y[0].size + 1)
        return np.ascontiguousarray(y[..., :D]).reshape(*x.shape[:-3], *y.shape[1:3], D)

    def gradient_of_w(self, g):
        D = g.shape[-1]
        if not (self.events and self.stride == 1 and self.events.pay("convolution gradient", self.w.shape)):
            return super().gradient_of_w(g)
        small, g = self.x.reshape(-1, *self.shape[-3:]), _widened(g)
        gradient, settings = loops("event_loops").convolve_gradient, (*self.w.shape[:2], 1, self.padding)

        def work(start, stop):
            gw = np.zeros((*self.w.shape[:3], _rounded(D)), g.dtype)
            gradient(small, g, self.events.binary, *settings, gw, start, stop)
            return gw

        return np.ascontiguousarray(sum(spans(work, len(small), SPAN // small[0].size + 1))[..., :D])


TWINS = {MatMulAdd: EventMatMulAdd, Convolve2d: EventConvolve2d}
