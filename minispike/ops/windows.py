"""Windows that slide over a grid: which output meets which input, and windows laid out in rows.

A window of kernel (kh, kw) starts at every `stride`-th place of a grid [..., H, W, C] that is surrounded by
`padding` zeros. Convolutions and pools need two views of it:

    taps       for each offset (i, j) inside the window: the outputs and the inputs that meet there
    unfold     for each window: its kh·kw·C values in a row, so that a convolution is a matrix product
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from ..autograd import where
from ..backend import Array, get_xp

# ---------------------------------------------------------------- taps


def out_size(size: int, k: int, stride: int, padding: int) -> int:
    """Return the number of window positions along one axis: ⌊(size + 2·padding − k) / stride⌋ + 1."""
    return (size + 2 * padding - k) // stride + 1


def out_sizes(shape: tuple, kernel: tuple[int, int], stride: int, padding: int) -> list[int]:
    """Return the number of window positions along rows and columns of images [..., H, W, C]: [H', W']."""
    sides = zip(shape[-3:-1], kernel, strict=True)
    return [out_size(side, k, stride, padding) for side, k in sides]


def taps(h: int, w: int, kh: int, kw: int, stride: int, padding: int) -> list[tuple]:
    """Return (i, j, out, at) for each offset of the window, a *tap*: y[out] meets x[at], borders cut off.

    `out` and `at` index [..., rows, columns, channels]. The taps come row by row.
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
    every = slice(None)
    return [
        (i, j, (..., rows[i][0], columns[j][0], every), (..., rows[i][1], columns[j][1], every))
        for i in range(kh)
        for j in range(kw)
    ]


def reach(x: Array, links: Array, stride: int, padding: int) -> tuple[Array]:
    """Return, for each place and channel of x [..., H, W, C], the sum of the links [kh, kw, C] that use it.

    A place near the border lies in fewer windows; a place that a stride steps over lies in none.
    """
    kh, kw, _ = links.shape
    fan = get_xp(x).zeros(x.shape[-3:], links.dtype)
    for i, j, _, at in taps(*x.shape[-3:-1], kh, kw, stride, padding):
        fan[at] += links[i, j]
    return (fan,)


def check_window(
    name: str, x, channels: int | None, kernel: tuple[int, int], stride: int, padding: int
) -> None:
    """Raise ValueError unless x is [..., H, W, C] with the right channels and at least one window fits."""
    shape = list(x.shape)
    if len(shape) < 3 or channels not in (None, shape[-1]):
        raise ValueError(f"{where()}{name} expects x [..., H, W, {channels or 'C'}], got {shape}")
    if stride < 1 or padding < 0:
        raise ValueError(f"{where()}{name} needs stride >= 1 and padding >= 0, got {stride} and {padding}")
    if any(size + 2 * padding < k for size, k in zip(shape[-3:-1], kernel, strict=True)):
        window = f"a {kernel[0]}×{kernel[1]} window with padding {padding}"
        raise ValueError(f"{where()}{name} cannot place {window} on x {shape}")


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
