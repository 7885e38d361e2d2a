"""A twin in array code, for every device: the convolution as one large product.

`unfold` lays every window's kh·kw·C values in a row, so that a convolution is a matrix product. The rows of
all images would take k·k times the images' memory (0.9 GB at 32×32×192 and batch 128), so they are made in
pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from math import prod
from operator import add

from ..backend import HOST, Array, get_device, get_xp
from ..ops.conv import Convolve2d
from ..ops.matmul import column_sums
from ..ops.windows import out_sizes
from ..parallel import spans


class UnfoldedConvolve2d(Convolve2d):
    """The convolution by large products. `unfold` lays every window's k·k·C values in a row:

        y = unfold(x) @ w        gw = unfold(x)ᵀ @ gy        gx = unfold(spread(gy)) @ w'

    The gradient of x is a convolution again. x[a, b] meets w[i, j] in the window that starts at a − i, b − j,
    so it collects from there: from gy with s − 1 zeros between its places, by the kernel turned round,
    w'[i, j, o, c] = w[k − 1 − i, k − 1 − j, c, o], at stride 1.

    Each thread takes a cache-sized chunk of images at a time. What is kept is x, and not its windows, which
    are k·k times larger: backward unfolds again.
    """

    def forward(self, x, w, b=None, *, stride, padding):
        self.prepare(x, w, b, stride, padding)
        self.x, over = x if self.needs[1] else None, self.windows
        x, matrix = x.reshape(-1, *x.shape[-3:]), w.reshape(-1, w.shape[-1])
        y = self.xp.empty((len(x), *over.size, w.shape[-1]), x.dtype)

        def work(chunks):
            for images, cols in over.unfold(x, chunks, x.dtype):
                self.xp.matmul(cols, matrix, out=y[images].reshape(-1, w.shape[-1]))
                if b is not None:
                    y[images] += b

        in_chunks(work, len(x), over.bytes_each(w.shape[2], x.dtype.itemsize), x)
        return y.reshape(*self.shape[:-3], *y.shape[1:])

    def prepare(self, x, w, b, stride, padding) -> None:
        """Keep what backward needs apart from x itself."""
        self.w, self.padding, self.shape, self.has_bias = w, padding, x.shape, b is not None
        self.windows = windows(x.shape, w.shape[:2], stride, padding)

    def backward(self, gy):
        g = gy.reshape(-1, *gy.shape[-3:])
        gx = self.gradient_of_x(g).reshape(self.shape) if self.needs[0] else None
        gw = self.gradient_of_w(g) if self.needs[1] else None
        if not self.has_bias:
            return gx, gw
        return gx, gw, column_sums(gy).astype(gy.dtype)

    def gradient_of_w(self, g):
        x, n_out = self.x.reshape(-1, *self.shape[-3:]), g.shape[-1]

        def work(chunks):
            unfolded = self.windows.unfold(x, chunks, g.dtype)
            return reduce(add, (cols.T @ g[images].reshape(-1, n_out) for images, cols in unfolded))

        bytes_each = self.windows.bytes_each(x.shape[-1], g.dtype.itemsize)
        return reduce(add, in_chunks(work, len(x), bytes_each, g)).reshape(self.w.shape)

    def gradient_of_x(self, g):
        back = windows_back(self.shape, self.windows, self.padding)
        gx = self.xp.empty((len(g), *self.shape[-3:]), g.dtype)
        turned = self.w[::-1, ::-1].swapaxes(2, 3).reshape(-1, gx.shape[-1])  # [k·k·out, C]

        def work(chunks):
            for images, cols in back.unfold(g, chunks, g.dtype):
                self.xp.matmul(cols, turned, out=gx[images].reshape(-1, gx.shape[-1]))

        in_chunks(work, len(g), back.bytes_each(g.shape[-1], g.dtype.itemsize), g)
        return gx


# ---------------------------------------------------------------- windows in rows


@dataclass(frozen=True)
class Windows:
    """`size` = (H', W') windows of kernel (kh, kw), one every `stride`, over a frame of zeros (H, W).

    The images lie in the frame at `place`: a slice of its rows and one of its columns.
    """

    kernel: tuple[int, int]
    stride: int
    size: tuple[int, int]
    frame: tuple[int, int]
    place: tuple[slice, slice]

    def bytes_each(self, channels: int, itemsize: int) -> int:
        """Return the memory that the frame and the rows of one image take."""
        return (prod(self.frame) + prod(self.size) * prod(self.kernel)) * channels * itemsize

    def unfold(self, x: Array, chunks: list[slice], dtype) -> Iterator[tuple[slice, Array]]:
        """Yield each chunk of the images x [n, h, w, C] with its windows in rows [n·H'·W', kh·kw·C].

        The memory is used again for the next chunk. A window's row of kw·C values lies together in the frame
        and is copied in one piece.
        """
        xp, C, (kh, kw), (rows, columns) = get_xp(x), x.shape[-1], self.kernel, self.place
        most, last = chunks[0].stop - chunks[0].start, self.stride * (self.size[0] - 1) + 1
        frame = xp.zeros((most, *self.frame, C), dtype)
        cols = xp.empty((most, *self.size, kh, kw * C), dtype)
        image, row, pixel, value = frame.strides
        shape, strides = (most, self.frame[0], self.size[1], kw * C), (image, row, self.stride * pixel, value)
        pieces = xp.lib.stride_tricks.as_strided(frame, shape, strides)  # each row of each window, in place
        for images in chunks:
            n = images.stop - images.start
            frame[:n, rows, columns] = x[images]
            for i in range(kh):
                cols[:n, :, :, i] = pieces[:n, i : i + last : self.stride]
            yield images, cols[:n].reshape(-1, kh * kw * C)


def windows(shape: tuple, kernel: tuple[int, int], stride: int, padding: int) -> Windows:
    """Return a convolution's windows over images [..., H, W, C]."""
    size, sides = tuple(out_sizes(shape, kernel, stride, padding)), shape[-3:-1]
    frame = tuple(side + 2 * padding for side in sides)
    return Windows(kernel, stride, size, frame, tuple(slice(padding, padding + side) for side in sides))


def windows_back(shape: tuple, forward: Windows, padding: int) -> Windows:
    """Return the windows over gy that gather the gradient of images [..., H, W, C]: one for each pixel."""
    frame, place = [], []
    for side, k, n in zip(shape[-3:-1], forward.kernel, forward.size, strict=True):
        first = k - 1 - padding
        frame.append(side + k - 1)
        place.append(slice(first, first + (n - 1) * forward.stride + 1, forward.stride))
    return Windows(forward.kernel, 1, tuple(shape[-3:-1]), tuple(frame), tuple(place))


# ---------------------------------------------------------------- images in chunks

CHUNK_BYTES = 4 * 1024 * 1024  # what one chunk of images touches: it fits the cache


def in_chunks(work: Callable[[list[slice]], Array | None], n: int, bytes_each: int, like: Array) -> list:
    """Split range(n) into one span per thread and each span into chunks; return `work(chunks)` of each span.

    bytes_each: the memory that one index touches.    like: an array of the device. A device other than the
    host gets one span and, up to 1 GiB, one chunk, because its array library has its own threads.
    """
    on_host = get_device(like) is HOST
    step = max(1, (CHUNK_BYTES if on_host else 2**30) // max(1, bytes_each))

    def chunked(start: int, stop: int) -> Array | None:
        return work([slice(a, min(a + step, stop)) for a in range(start, stop, step)])

    return spans(chunked, n, 2 * step) if on_host else [chunked(0, n)]  # waking a thread costs time
