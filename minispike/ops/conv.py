"""Two-dimensional convolutions over [..., H, W, C], channels last, hand-derived.

    y[p, q, o] = Σ_{i,j,c} x[p·s + i − pad, q·s + j − pad, c] · w[i, j, c, o]        (x is 0 outside)

Laying every window's k·k·C values in a row (`unfold`) turns the convolution into one matrix product, and the
gradient of w into another. The gradient of x is a convolution again. x[a, b] has met w[i, j] in the window
that starts at a − i, b − j, so it collects from there: from gy, with s − 1 zeros put between its places, by
the kernel turned round, w'[i, j, o, c] = w[k − 1 − i, k − 1 − j, c, o], at stride 1:

    y = unfold(x) @ w        gw = unfold(x)ᵀ @ gy        gx = unfold(spread(gy)) @ w'

Images are taken a cache-sized chunk at a time, on every thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from ..autograd import Function, Tensor, expect
from ..backend import Array, get_xp
from ..parallel import as_bytes, parallel
from .matmul import check_bias, column_sums

# ---------------------------------------------------------------- which output meets which input


def out_size(size: int, k: int, stride: int, padding: int) -> int:
    """Return the number of window positions along one axis: ⌊(size + 2·padding − k) / stride⌋ + 1."""
    return (size + 2 * padding - k) // stride + 1


def taps(h: int, w: int, kh: int, kw: int, stride: int, padding: int) -> list[tuple]:
    """Return (i, j, out, in) for each kernel offset, a *tap*: y[out] meets x[in], the borders cut off.

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


# ---------------------------------------------------------------- windows, laid out in rows


@dataclass(frozen=True)
class Windows:
    """Windows of kernel (kh, kw), size (H', W') of them, one every `stride`, over a frame of zeros (H, W) in
    which the images stand at `place`, a slice of its rows and one of its columns.
    """

    kernel: tuple[int, int]
    stride: int
    size: tuple[int, int]
    frame: tuple[int, int]
    place: tuple[slice, slice]

    def bytes_each(self, channels: int, itemsize: int) -> int:
        """Return the memory that one image's frame and rows take."""
        return (prod(self.frame) + prod(self.size) * prod(self.kernel)) * channels * itemsize

    def unfold(self, x: Array, chunks: list[slice], dtype) -> Iterator[tuple[slice, Array]]:
        """Yield each chunk of the images x [n, h, w, C] with its windows [n·H'·W', kh·kw·C]; then reuse them.

        A window's row of kw·C values lies together in the frame, and is copied in one piece.
        """
        xp, C, (kh, kw), (rows, columns) = get_xp(x), x.shape[-1], self.kernel, self.place
        most, last = chunks[0].stop - chunks[0].start, self.stride * (self.size[0] - 1) + 1
        frame = xp.zeros((most, *self.frame, C), dtype)
        cols = xp.empty((most, *self.size, kh, kw * C), dtype)
        lines = frame.reshape(most, self.frame[0], -1)  # [n, H, W·C]
        pieces = xp.lib.stride_tricks.sliding_window_view(lines, kw * C, 2)[:, :, :: self.stride * C]
        for images in chunks:
            n = images.stop - images.start
            frame[:n, rows, columns] = x[images]
            for i in range(kh):
                cols[:n, :, :, i] = pieces[:n, i : i + last : self.stride]
            yield images, cols[:n].reshape(-1, kh * kw * C)


def windows(shape: tuple, kernel: tuple[int, int], stride: int, padding: int) -> Windows:
    """Return a convolution's windows over images [..., H, W, C]."""
    sides = list(zip(shape[-3:-1], kernel, strict=True))
    size = tuple(out_size(side, k, stride, padding) for side, k in sides)
    frame = tuple(side + 2 * padding for side, _ in sides)
    return Windows(kernel, stride, size, frame, tuple(slice(padding, padding + side) for side, _ in sides))


def windows_back(shape: tuple, forward: Windows, padding: int) -> Windows:
    """Return the windows over gy that gather the gradient of images [..., H, W, C]: one for each pixel."""
    frame, place = [], []
    for side, k, n in zip(shape[-3:-1], forward.kernel, forward.size, strict=True):
        first = k - 1 - padding
        frame.append(side + k - 1)
        place.append(slice(first, first + (n - 1) * forward.stride + 1, forward.stride))
    return Windows(forward.kernel, 1, tuple(shape[-3:-1]), tuple(frame), tuple(place))


# ---------------------------------------------------------------- convolution


class Conv2d(Function):
    """y = unfold(x) @ w + b    gw = unfold(x)ᵀ @ gy    gx = unfold(spread(gy)) @ w'    gb = Σ gy"""

    def forward(self, x, w, b=None, *, stride, padding):
        self.x = as_bytes(x) if self.needs[1] else None  # not its windows, k·k times larger: unfold again
        self.w, self.padding, self.shape, self.has_bias = w, padding, x.shape, b is not None
        self.windows = over = windows(x.shape, w.shape[:2], stride, padding)
        x, matrix = x.reshape(-1, *x.shape[-3:]), w.reshape(-1, w.shape[-1])
        y = self.xp.empty((len(x), *over.size, w.shape[-1]), x.dtype)

        def work(chunks):
            for images, cols in over.unfold(x, chunks, x.dtype):
                self.xp.matmul(cols, matrix, out=y[images].reshape(-1, w.shape[-1]))
                if b is not None:
                    y[images] += b

        parallel(work, len(x), over.bytes_each(w.shape[2], x.dtype.itemsize), x)
        return y.reshape(*self.shape[:-3], *y.shape[1:])

    def backward(self, gy):
        g = gy.reshape(-1, *gy.shape[-3:])
        gx = self.pixels(g).reshape(self.shape) if self.needs[0] else None
        gw = self.weights(g) if self.needs[1] else None
        return (gx, gw, bias_gradient(gy)) if self.has_bias else (gx, gw)

    def weights(self, g):
        """gw = unfold(x)ᵀ @ gy"""
        x, n_out = self.x.reshape(-1, *self.shape[-3:]), g.shape[-1]

        def work(chunks):
            spans = self.windows.unfold(x, chunks, g.dtype)
            return sum(cols.T @ g[images].reshape(-1, n_out) for images, cols in spans)

        bytes_each = self.windows.bytes_each(x.shape[-1], g.dtype.itemsize)
        return sum(parallel(work, len(x), bytes_each, g)).reshape(self.w.shape)

    def pixels(self, g):
        """gx = unfold(spread(gy)) @ w'"""
        back = windows_back(self.shape, self.windows, self.padding)
        gx = self.xp.empty((len(g), *self.shape[-3:]), g.dtype)
        turned = self.w[::-1, ::-1].swapaxes(2, 3).reshape(-1, gx.shape[-1])  # [k·k·out, C]

        def work(chunks):
            for images, cols in back.unfold(g, chunks, g.dtype):
                self.xp.matmul(cols, turned, out=gx[images].reshape(-1, gx.shape[-1]))

        parallel(work, len(g), back.bytes_each(g.shape[-1], g.dtype.itemsize), g)
        return gx

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
    check_bias("conv2d", b, w)
    expect(0 not in x.shape, f"conv2d got no images: x is {list(x.shape)}")
    kh, kw = w.shape[:2]
    expect(padding < min(kh, kw), f"conv2d's {kh}×{kw} windows would see padding {padding} alone")
    bias = () if b is None else (b,)
    return Conv2d.apply(x, w, *bias, stride=stride, padding=padding)


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
    check_bias("depthwise_conv2d", b, w)
    bias = () if b is None else (b,)
    return DepthwiseConv2d.apply(x, w, *bias, stride=stride, padding=padding)
