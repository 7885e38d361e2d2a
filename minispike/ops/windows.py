"""Windows that slide over a grid: for each offset (i, j) inside the window, which output meets which input.

A window of kernel (kh, kw) starts at every `stride`-th place of a grid [..., H, W, C] that is surrounded by
`padding` zeros. Convolutions and pools go through its offsets, the *taps*.
"""

from __future__ import annotations

from ..autograd import where
from ..backend import Array, get_xp


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
