"""Pooling over [..., H, W, C], tap by tap as in conv.py: y[out] is compared with, or collects, x[in]."""

from __future__ import annotations

from math import prod

from ..autograd import Function, Tensor, expect
from ..parallel import parallel
from .conv import check_window, out_size, taps


class AvgPool2d(Function):
    """y = (Σ_taps x[in]) / k²        gx[in] += gy[out] / k²        (padding counts as zeros)"""

    def forward(self, x, *, k, stride, padding):
        self.k, self.shape = k, x.shape
        self.windows = taps(*x.shape[-3:-1], k, k, stride, padding)
        size = [out_size(s, k, stride, padding) for s in x.shape[-3:-1]]
        images = x.reshape(-1, *x.shape[-3:])
        y = self.xp.zeros((len(images), *size, x.shape[-1]), x.dtype)
        for _, _, out, tap in self.windows:
            y[out] += images[tap]
        y /= k * k
        return y.reshape(*x.shape[:-3], *y.shape[1:])

    def backward(self, gy):
        g = gy.reshape(-1, *gy.shape[-3:]) / (self.k * self.k)
        gx = self.xp.zeros((len(g), *self.shape[-3:]), gy.dtype)
        for _, _, out, tap in self.windows:
            gx[tap] += g[out]
        return gx.reshape(self.shape)


class MaxPool2d(Function):
    """y = max_taps x[in]        gx[in] += gy[out] where in was the window's first maximum, in row-major order

    On binary spikes most windows tie, so the rule for ties decides where gradients go: the first maximum
    takes all, as in PyTorch. `winner` holds each window's tap number in one byte. Padding never wins.
    """

    def forward(self, x, *, k, stride, padding):
        self.k, self.shape = k, x.shape
        self.windows = taps(*x.shape[-3:-1], k, k, stride, padding)
        size = [out_size(s, k, stride, padding) for s in x.shape[-3:-1]]
        images = x.reshape(-1, *x.shape[-3:])
        y = self.xp.full((len(images), *size, x.shape[-1]), -float("inf"), x.dtype)
        self.winner = self.xp.zeros(y.shape, "uint8") if self.needs[0] else None

        def work(chunks):
            for at in chunks:
                for i, j, out, tap in self.windows:
                    best, candidate = y[at][out], images[at][tap]
                    if self.needs[0]:
                        winner, number = self.winner[at][out], self.xp.asarray(i * k + j, "uint8")
                        self.xp.maximum(winner, (candidate > best) * number, out=winner)  # numbers only grow
                    self.xp.maximum(best, candidate, out=best)

        parallel(work, len(images), 2 * prod(x.shape[-3:]) * x.dtype.itemsize, x)
        return y.reshape(*x.shape[:-3], *y.shape[1:])

    def backward(self, gy):
        g = gy.reshape(self.winner.shape)
        gx = self.xp.zeros((len(g), *self.shape[-3:]), gy.dtype)

        def work(chunks):
            for at in chunks:
                for i, j, out, tap in self.windows:
                    gx[at][tap] += g[at][out] * (self.winner[at][out] == i * self.k + j)

        parallel(work, len(g), 2 * prod(self.shape[-3:]) * gy.dtype.itemsize, gy)
        return gx.reshape(self.shape)


def avg_pool2d(x, k: int, *, stride: int | None = None, padding: int = 0) -> Tensor:
    """Average each k×k window of x [..., H, W, C]; stride defaults to k, padding counts as zeros."""
    return _pool(AvgPool2d, "avg_pool2d", x, k, stride, padding)


def max_pool2d(x, k: int, *, stride: int | None = None, padding: int = 0) -> Tensor:
    """Take the maximum of each k×k window of x [..., H, W, C]; stride defaults to k, padding never wins."""
    return _pool(MaxPool2d, "max_pool2d", x, k, stride, padding)


def _pool(function, name, x, k, stride, padding):
    stride = k if stride is None else stride
    check_window(name, x, None, (k, k), stride, padding)
    ok = k <= 15 and 2 * padding <= k
    expect(ok, f"{name} needs k <= 15 and padding <= k / 2, got k={k}, padding={padding}")
    return function.apply(x, k=k, stride=stride, padding=padding)
