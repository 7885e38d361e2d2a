"""Two-dimensional convolutions over [..., H, W, C], channels last, hand-derived.

    y[p, q, o] = Σ_{i,j,c} x[p·s + i − pad, q·s + j − pad, c] · w[i, j, c, o]        (x is 0 outside)

A kernel offset (i, j) is a *tap*. For one tap the sum is a matrix product of a shifted copy of x, so laying
all taps' copies side by side (`unfold`) turns the convolution into one product, and both gradients into two
more:

    cols = unfold(x)   [rows, k·k·C]        y = cols @ w        gw = colsᵀ @ gy        gx = fold(gy @ wᵀ)

where `fold`, the transpose of `unfold`, adds each copy back to where it came from. No scatter is needed: the
copies of one tap never overlap. Images are taken a cache-sized chunk at a time, on every thread.
"""

from __future__ import annotations

from math import prod

from ..autograd import Function, Tensor, expect
from ..backend import Array, as_bytes, get_xp, parallel
from .matmul import column_sums

# ---------------------------------------------------------------- taps: which output meets which input


def out_size(size: int, k: int, stride: int, padding: int) -> int:
    """Return the number of window positions along one axis: ⌊(size + 2·padding − k) / stride⌋ + 1."""
    return (size + 2 * padding - k) // stride + 1


def taps(h: int, w: int, kh: int, kw: int, stride: int, padding: int) -> list[tuple]:
    """Return (i, j, out, in) for each kernel offset: y[out] meets x[in], the borders already cut off.

    `out` and `in` index [images, rows, columns]; the order is row-major.
    """

    def along(size: int, k: int, i: int) -> tuple[slice, slice]:
        first = max(0, -((i - padding) // stride))  # the first position whose tap lies inside
        last = min(out_size(size, k, stride, padding) - 1, (size - 1 + padding - i) // stride)
        start = first * stride + i - padding
        count = max(0, last - first + 1)
        stop = start + (count - 1) * stride + 1 if count else start
        return slice(first, first + count), slice(start, stop, stride)

    rows = [along(h, kh, i) for i in range(kh)]
    columns = [along(w, kw, j) for j in range(kw)]
    return [
        (i, j, (slice(None), rows[i][0], columns[j][0]), (slice(None), rows[i][1], columns[j][1]))
        for i in range(kh)
        for j in range(kw)
    ]


def unfold(x: Array, cols: Array, windows: list[tuple]) -> None:
    """Copy x [n, H, W, C] into cols [n, H', W', kh, kw, C], tap by tap; what lies outside stays 0."""
    for i, j, out, at in windows:
        cols[(*out, i, j)] = x[at]


def fold(cols: Array, x: Array, windows: list[tuple]) -> None:
    """Add cols [n, H', W', kh, kw, C] back into x [n, H, W, C]: the transpose of `unfold`."""
    for i, j, out, at in windows:
        x[at] += cols[(*out, i, j)]


def reach(x: Array, links: Array, stride: int, padding: int) -> tuple[Array]:
    """Return for each place and channel of x [..., H, W, C] the sum of the links [kh, kw, C] it is used by.

    A place near the border lies in fewer windows, and one that a stride steps over in none.
    """
    kh, kw, _ = links.shape
    fan = get_xp(x).zeros((1, *x.shape[-3:]), links.dtype)
    for i, j, _, at in taps(*x.shape[-3:-1], kh, kw, stride, padding):
        fan[at] += links[i, j]
    return (fan[0],)


def bias_gradient(gy: Array) -> Array:
    """Return Σ gy over everything but the channels."""
    return column_sums(gy.reshape(-1, gy.shape[-1])).astype(gy.dtype)


def check_window(
    name: str, x, channels: int | None, kernel: tuple[int, int], stride: int, padding: int
) -> None:
    """Raise unless x is [..., H, W, C] with the right channels and at least one window fits."""
    shape = list(x.shape)
    ok = len(shape) >= 3 and (channels is None or shape[-1] == channels)
    expect(ok, f"{name} expects x [..., H, W, {channels or 'C'}], got {shape}")
    ok = stride >= 1 and padding >= 0
    expect(ok, f"{name} needs stride >= 1 and padding >= 0, got {stride} and {padding}")
    fits = all(size + 2 * padding >= k for size, k in zip(shape[-3:-1], kernel, strict=True))
    expect(fits, f"{name} cannot place a {kernel[0]}×{kernel[1]} window with padding {padding} on x {shape}")


# ---------------------------------------------------------------- convolution


class Conv2d(Function):
    """y = unfold(x) @ w + b        gx = fold(gy @ wᵀ)        gw = unfold(x)ᵀ @ gy        gb = Σ gy"""

    def forward(self, x, w, b=None, *, stride, padding):
        self.x = as_bytes(x) if self.needs[1] else None  # not cols, k·k times larger: unfold again
        self.w, self.stride, self.padding, self.shape = w, stride, padding, x.shape
        self.has_bias = b is not None
        kh, kw, c, n_out = w.shape
        x = x.reshape(-1, *x.shape[-3:])  # [n, H, W, C]
        size = [out_size(s, k, stride, padding) for s, k in zip(x.shape[1:3], (kh, kw), strict=True)]
        y = self.xp.empty((len(x), *size, n_out), x.dtype)
        windows, matrix = taps(*x.shape[1:3], kh, kw, stride, padding), w.reshape(-1, n_out)

        def work(chunks):
            cols = self.xp.zeros((chunks[0].stop - chunks[0].start, *size, kh, kw, c), x.dtype)
            for images in chunks:
                part = cols[: images.stop - images.start]
                unfold(x[images], part, windows)
                self.xp.matmul(part.reshape(-1, kh * kw * c), matrix, out=y[images].reshape(-1, n_out))
                if b is not None:
                    y[images] += b

        parallel(work, len(x), cols_bytes(w, size, x), x)
        return y.reshape(*self.shape[:-3], *size, n_out)

    def backward(self, gy):
        kh, kw, c, n_out = self.w.shape
        size, g = gy.shape[-3:-1], gy.reshape(-1, *gy.shape[-3:])
        windows = taps(*self.shape[-3:-1], kh, kw, self.stride, self.padding)
        matrix = self.w.reshape(-1, n_out)
        x = self.x.reshape(-1, *self.shape[-3:]) if self.needs[1] else None
        gx = self.xp.zeros((len(g), *self.shape[-3:]), gy.dtype) if self.needs[0] else None

        def work(chunks):
            cols = self.xp.zeros((chunks[0].stop - chunks[0].start, *size, kh, kw, c), gy.dtype)
            gw = self.xp.zeros_like(matrix)
            for images in chunks:
                part = cols[: images.stop - images.start]
                rows, g_rows = part.reshape(-1, kh * kw * c), g[images].reshape(-1, n_out)
                if self.needs[1]:
                    unfold(x[images], part, windows)
                    gw += rows.T @ g_rows
                if self.needs[0]:
                    gcols = (g_rows @ matrix.T).reshape(part.shape)
                    fold(gcols, gx[images], windows)
            return gw

        gw = sum(parallel(work, len(g), cols_bytes(self.w, size, gy), gy)).reshape(self.w.shape)
        gx = gx.reshape(self.shape) if self.needs[0] else None
        return (gx, gw, bias_gradient(gy)) if self.has_bias else (gx, gw)

    @staticmethod
    def cost(x: tuple, w: tuple, b: tuple = (), *, stride: int, padding: int) -> int:
        """Multiply-accumulates: output positions · k·k·C · out."""
        size = [out_size(s, k, stride, padding) for s, k in zip(x[-3:-1], w, strict=False)]
        return prod(x[:-3]) * prod(size) * prod(w)

    @staticmethod
    def fan_out(x, w, b=None, *, stride, padding) -> tuple[Array]:
        """For each value of x: how many outputs it reaches by a weight other than 0, [H, W, C]."""
        return reach(x, (w != 0).sum(-1), stride, padding)


def conv2d(x, w, b=None, *, stride: int = 1, padding: int = 0) -> Tensor:
    """Convolve x [..., H, W, C] with w [kh, kw, C, out], add b [out] or None -> [..., H', W', out]."""
    check_window("conv2d", x, w.shape[2], w.shape[:2], stride, padding)
    bias = () if b is None else (b,)
    return Conv2d.apply(x, w, *bias, stride=stride, padding=padding)


def cols_bytes(w: Array, size, x: Array) -> int:
    """Return the memory that one image's unfolded copy takes."""
    return prod(w.shape[:3]) * prod(size) * x.dtype.itemsize


# ---------------------------------------------------------------- depthwise convolution


class DepthwiseConv2d(Function):
    """y[p, q, c] = Σ_{i,j} x[p·s + i − pad, q·s + j − pad, c] · w[i, j, c] + b[c]: each channel by itself.

    Tap by tap:    y[out] += x[in] · w[i,j]    gx[in] += gy[out] · w[i,j]    gw[i,j] = Σ x[in] · gy[out]
    """

    def forward(self, x, w, b=None, *, stride, padding):
        self.x, self.w, self.stride, self.padding, self.has_bias = x, w, stride, padding, b is not None
        kh, kw, c = w.shape
        windows = taps(*x.shape[-3:-1], kh, kw, stride, padding)
        size = [out_size(s, k, stride, padding) for s, k in zip(x.shape[-3:-1], (kh, kw), strict=True)]
        images = x.reshape(-1, *x.shape[-3:])
        y = self.xp.zeros((len(images), *size, c), x.dtype)

        def work(chunks):
            for at in chunks:
                for i, j, out, tap in windows:
                    y[at][out] += images[at][tap] * w[i, j]
                if b is not None:
                    y[at] += b

        parallel(work, len(images), 3 * prod(x.shape[-3:]) * x.dtype.itemsize, x)
        return y.reshape(*x.shape[:-3], *size, c)

    def backward(self, gy):
        kh, kw, c = self.w.shape
        windows = taps(*self.x.shape[-3:-1], kh, kw, self.stride, self.padding)
        images, g = self.x.reshape(-1, *self.x.shape[-3:]), gy.reshape(-1, *gy.shape[-3:])
        gx = self.xp.zeros_like(images)

        def work(chunks):
            gw = self.xp.zeros(self.w.shape, "float64")
            for at in chunks:
                for i, j, out, tap in windows:
                    gx[at][tap] += g[at][out] * self.w[i, j]
                    gw[i, j] += column_sums((images[at][tap] * g[at][out]).reshape(-1, c))
            return gw

        gw = sum(parallel(work, len(g), 4 * prod(gy.shape[-3:]) * gy.dtype.itemsize, gy)).astype(gy.dtype)
        gx = gx.reshape(self.x.shape)
        return (gx, gw, bias_gradient(gy)) if self.has_bias else (gx, gw)

    @staticmethod
    def cost(x: tuple, w: tuple, b: tuple = (), *, stride: int, padding: int) -> int:
        """Multiply-accumulates: output positions · k·k · C."""
        size = [out_size(s, k, stride, padding) for s, k in zip(x[-3:-1], w, strict=False)]
        return prod(x[:-3]) * prod(size) * prod(w)

    @staticmethod
    def fan_out(x, w, b=None, *, stride, padding) -> tuple[Array]:
        """For each value of x: how many outputs it reaches by a weight other than 0, [H, W, C]."""
        return reach(x, (w != 0).astype("int64"), stride, padding)


def depthwise_conv2d(x, w, b=None, *, stride: int = 1, padding: int = 0) -> Tensor:
    """Convolve each channel of x [..., H, W, C] with its own kernel, w [kh, kw, C], add b [C] or None."""
    check_window("depthwise_conv2d", x, w.shape[2], w.shape[:2], stride, padding)
    bias = () if b is None else (b,)
    return DepthwiseConv2d.apply(x, w, *bias, stride=stride, padding=padding)
