"""Pooling over [..., H, W, C], tap by tap (windows.py): y[out] collects x[at], or is compared with it."""

from __future__ import annotations

from math import prod

from ..autograd import Function, Tensor, where
from ..parallel import parallel
from .windows import check_window, out_sizes, taps


class AvgPool2d(Function):
    """y = (Σ_taps x[at]) / k²        gx[at] += gy[out] / k²        (padding counts as zeros)"""

    def forward(self, x, *, k, stride, padding):
        self.k, self.shape = k, x.shape
        self.taps = taps(*x.shape[-3:-1], k, k, stride, padding)
        size = out_sizes(x.shape, (k, k), stride, padding)
        y = self.xp.zeros((*x.shape[:-3], *size, x.shape[-1]), x.dtype)  # [..., H', W', C]
        for _, _, out, at in self.taps:
            y[out] += x[at]
        return y / (k * k)

    def backward(self, gy):
        gx = self.xp.zeros(self.shape, gy.dtype)
        for _, _, out, at in self.taps:
            gx[at] += gy[out] / (self.k * self.k)
        return gx


class MaxPool2d(Function):
    """y = max_taps x[at]        gx[at] += gy[out] where `at` was the window's first maximum, row by row

    On binary spikes most windows tie, so the rule for ties decides where gradients go: the first maximum
    takes all, as in PyTorch. `winner` holds the number of each window's winning tap. Padding never wins.
    """

    def forward(self, x, *, k, stride, padding):
        self.k, self.shape = k, x.shape
        self.taps = taps(*x.shape[-3:-1], k, k, stride, padding)
        size = out_sizes(x.shape, (k, k), stride, padding)
        y = self.xp.full((*x.shape[:-3], *size, x.shape[-1]), -float("inf"), x.dtype)  # [..., H', W', C]
        self.winner = self.xp.zeros(y.shape, "uint8")
        for i, j, out, at in self.taps:
            self.winner[out] = self.xp.where(x[at] > y[out], i * k + j, self.winner[out])
            y[out] = self.xp.maximum(y[out], x[at])
        return y

    def backward(self, gy):
        gx = self.xp.zeros(self.shape, gy.dtype)
        for i, j, out, at in self.taps:
            gx[at] += gy[out] * (self.winner[out] == i * self.k + j)
        return gx


class MaxPool2d_fast(MaxPool2d):
    """The same, each thread taking a cache-sized chunk of images through all taps."""

    def forward(self, x, *, k, stride, padding):
        self.k, self.shape = k, x.shape
        self.taps = taps(*x.shape[-3:-1], k, k, stride, padding)
        size = out_sizes(x.shape, (k, k), stride, padding)
        images = x.reshape(-1, *x.shape[-3:])
        y = self.xp.full((len(images), *size, x.shape[-1]), -float("inf"), x.dtype)
        self.winner = self.xp.zeros(y.shape, "uint8") if self.needs[0] else None

        def work(chunks):
            for chunk in chunks:
                for i, j, out, at in self.taps:
                    best, candidate = y[chunk][out], images[chunk][at]
                    if self.needs[0]:
                        winner, number = self.winner[chunk][out], self.xp.asarray(i * k + j, "uint8")
                        self.xp.maximum(winner, (candidate > best) * number, out=winner)  # numbers only grow
                    self.xp.maximum(best, candidate, out=best)

        parallel(work, len(images), 2 * prod(x.shape[-3:]) * x.dtype.itemsize, x)
        return y.reshape(*x.shape[:-3], *y.shape[1:])

    def backward(self, gy):
        g = gy.reshape(self.winner.shape)
        gx = self.xp.zeros((len(g), *self.shape[-3:]), gy.dtype)

        def work(chunks):
            for chunk in chunks:
                for i, j, out, at in self.taps:
                    gx[chunk][at] += g[chunk][out] * (self.winner[chunk][out] == i * self.k + j)

        parallel(work, len(g), 2 * prod(self.shape[-3:]) * gy.dtype.itemsize, gy)
        return gx.reshape(self.shape)


def avg_pool2d(x, k: int, *, stride: int | None = None, padding: int = 0) -> Tensor:
    """Average each k×k window of x [..., H, W, C]; stride defaults to k, padding counts as zeros."""
    return _pool(AvgPool2d, "avg_pool2d", x, k, stride, padding)


def max_pool2d(x, k: int, *, stride: int | None = None, padding: int = 0) -> Tensor:
    """Take the maximum of each k×k window of x [..., H, W, C]; stride defaults to k, padding never wins."""
    return _pool(MaxPool2d_fast, "max_pool2d", x, k, stride, padding)


def _pool(function, name, x, k, stride, padding):
    stride = k if stride is None else stride
    check_window(name, x, None, (k, k), stride, padding)
    if k > 15 or 2 * padding > k:
        raise ValueError(f"{where()}{name} needs k <= 15 and padding <= k / 2, got k={k}, padding={padding}")
    return function.apply(x, k=k, stride=stride, padding=padding)
