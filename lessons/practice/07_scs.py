"""Tasks for lesson 07: what an OR tells, a stride as one product, who covers a pixel, a strided gradient."""

import numpy as np

from minispike import LIF, Conv2d, Tensor, ops
from minispike.blocks.scs import SCS
from minispike.ops.conv import Convolve2d

from .checks import Wrong, finite_differences, same, task

IMPORTS = """
import numpy as np
"""

# ---------------------------------------------------------------- predict


def wrong_rate(value):
    if not isinstance(value, (int, float)) or not 0 <= value <= 1:
        return f"a probability is a number from 0 to 1, not {value!r}"
    windows = (np.arange(2**9)[:, None] >> np.arange(9) & 1).reshape(-1, 3, 3, 1).astype(float)
    ones = windows.sum((1, 2, 3))
    chance = value**ones * (1 - value) ** (9 - ones)  # of each of the 512 windows
    fires = float((chance * ops.max_pool2d(windows, 3).data.ravel()).sum())
    if abs(fires - 0.5) > 1e-3:
        return f"over all 512 windows, a max-pool fires with probability {fires:.4f} at p = {value:.6g}"
    return ""


@task(
    "★",
    hints=[
        "A yes-or-no answer carries one full bit if both answers are equally probable.",
        "The OR is silent if all nine are: with which probability?",
    ],
    answer=wrong_rate,
)
def or_of_nine():
    """Return the probability p at which the OR of nine independent neurons carries one full bit.

    Each of the nine fires with probability p. Three digits are enough.
    """
    return 1 - 0.5 ** (1 / 9)


# ---------------------------------------------------------------- a stride as one product


def halve_cases(rng):
    for T, B, H, W, C, out in (
        (2, 1, 2, 4, 2, 3),
        (1, 3, 6, 2, 1, 5),
        (3, 2, 4, 8, 3, 1),
        (4, 1, 2, 2, 5, 2),
    ):
        x = rng.integers(0, 3, (T, B, H, W, C)).astype(float)
        yield {"x": x, "w": rng.standard_normal((2, 2, C, out))}


def library_halve(x, w):
    """What the library's convolution does; its windows through a kernel that only copies."""
    C = x.shape[-1]
    copy = np.eye(4 * C).reshape(2, 2, C, 4 * C)
    return {"windows": ops.conv2d(x, copy, stride=2).data, "y": ops.conv2d(x, w, stride=2).data}


def halve_of(halve):
    """Put it in the place of the strided convolutions of a stem."""

    class Halve(Convolve2d):
        def forward(self, x, w, *, stride, padding):
            super().forward(x, w, stride=stride, padding=padding)
            return halve(x, w)["y"]

    class Strided(Conv2d):
        def forward(self, x):
            return Halve.apply(x, self.weight, stride=self.stride, padding=self.padding)

    rng = np.random.default_rng(5)
    ours, theirs = (SCS(2, 16, (True, True, False, False), rng=6) for _ in range(2))
    for stage in ours.stages[:2]:
        n_in, n_out = stage.down.map.weight.shape[2:]
        strided = Strided(n_in, n_out, 2, stride=2, padding=0, rng=0)
        strided.weight.data[...] = stage.down.map.weight.data
        stage.down.map = strided
    for stem in (ours, theirs):
        for stage in stem.stages:
            for brick in (stage.down, stage.expand, stage.contract):
                brick.norm.weight.data[...] = 3
    images = rng.standard_normal((1, 3, 8, 12, 2))
    tokens = theirs(images, T=2).data
    if tokens.std() < 0.1:
        raise Wrong("this stem is silent")
    same("the tokens of a stem", ours(images, T=2).data, tokens)


@task(
    "★★",
    hints=[
        "Windows of 2×2 with stride 2 do not overlap, so a reshape separates them; then move the axes.",
        "x.reshape(T, B, H // 2, 2, W // 2, 2, C) has the axes p, i, q, j, c. You need p, q, i, j, c.",
        "y = windows @ w.reshape(-1, out)",
    ],
    cases=halve_cases,
    expected=library_halve,
    place=halve_of,
)
def halve(x, w):
    """Compute a 2×2 convolution with stride 2, without padding, as one matrix product and without a loop.

    x: [T, B, H, W, C], H and W even.    w: [2, 2, C, out]; w[i, j] meets row i and column j of a window.
    Return a dict: "windows" [T, B, H/2, W/2, 4·C], the values of each window in the order of w's axes (row,
    column, channel), and "y" [T, B, H/2, W/2, out].
    """
    T, B, H, W, C = x.shape
    windows = x.reshape(T, B, H // 2, 2, W // 2, 2, C).transpose(0, 1, 2, 4, 3, 5, 6)
    windows = windows.reshape(T, B, H // 2, W // 2, 4 * C)
    return {"windows": windows, "y": windows @ w.reshape(4 * C, -1)}


# ---------------------------------------------------------------- how many windows cover a pixel


def cover_cases(rng):
    for H, W in ((4, 6), (7, 5), (8, 3), (5, 10)):
        for k, stride, padding in ((3, 2, 1), (2, 2, 0), (3, 1, 1), (3, 3, 0)):
            yield {"H": H, "W": W, "k": k, "stride": stride, "padding": padding}


def collected(H, W, k, stride, padding):
    """Return what gradient each pixel collects if every window sends 1 to each pixel that it covers."""
    x = Tensor(np.zeros((H, W, 1)), requires_grad=True)
    y = ops.conv2d(x, np.ones((k, k, 1, 1)), stride=stride, padding=padding)
    y.backward(np.ones_like(y.data))
    return x.grad[..., 0]


@task(
    "★★",
    hints=[
        "Do one axis at a time: in two axes the numbers multiply (np.outer).",
        "An axis of n pixels has (n + 2·padding − k) // stride + 1 windows.",
        "Window p begins at pixel p·stride − padding and covers k of them. Add 1 to each that exists.",
    ],
    cases=cover_cases,
    expected=collected,
)
def coverage(H, W, k, stride, padding):
    """Count for each pixel of an H×W image how many windows of a convolution cover it.

    The kernel is k×k. Places of the padding are not pixels. Windows that would reach beyond the padding do
    not exist. Return an array [H, W] of floats.
    """

    def along(n):
        count = np.zeros(n)
        for p in range((n + 2 * padding - k) // stride + 1):
            begin = p * stride - padding
            count[max(begin, 0) : begin + k] += 1
        return count

    return np.outer(along(H), along(W))


# ---------------------------------------------------------------- the gradient of a strided convolution


def gradient_cases(rng):
    for N, H, W, k, stride, padding, C, out in (
        (2, 4, 6, 2, 2, 0, 1, 2),
        (1, 5, 4, 2, 2, 0, 3, 2),
        (3, 7, 6, 3, 2, 1, 2, 1),
        (2, 6, 8, 3, 2, 1, 1, 4),
        (1, 8, 11, 3, 3, 0, 2, 3),
        (2, 3, 5, 3, 1, 1, 3, 2),
    ):
        h, w = ((n + 2 * padding - k) // stride + 1 for n in (H, W))
        x, kernel = rng.standard_normal((N, H, W, C)), rng.standard_normal((k, k, C, out))
        gy = rng.standard_normal((N, h, w, out))
        yield {"x": x, "w": kernel, "gy": gy, "stride": stride, "padding": padding}


def library_gradient(x, w, gy, stride, padding):
    x, w = (Tensor(each, requires_grad=True) for each in (x, w))
    ops.conv2d(x, w, stride=stride, padding=padding).backward(gy)
    return {"gx": x.grad, "gw": w.grad}


def gradient_of(strided_backward):
    """Put it in the place of the backward of every convolution of a stem."""

    class Mine(Convolve2d):
        def forward(self, x, w, *, stride, padding):
            self.stride, self.padding = stride, padding
            return super().forward(x, w, stride=stride, padding=padding)

        def backward(self, gy):
            *lead, H, W, C = self.x.shape
            x, gy = self.x.reshape(-1, H, W, C), gy.reshape(-1, *gy.shape[-3:])
            found = strided_backward(x, self.w, gy, self.stride, self.padding)
            return found["gx"].reshape(*lead, H, W, C), found["gw"]

    class Conv(Conv2d):
        def forward(self, x):
            return Mine.apply(x, self.weight, stride=self.stride, padding=self.padding)

    def neuron(**constants):
        return LIF(smooth=True, detach_reset=False, **constants)

    rng = np.random.default_rng(7)
    stem = SCS(1, 8, (True, False, False, False), neuron=neuron, rng=rng)
    stem.stages = stem.stages[:2]
    for stage in stem.stages:
        for brick in (stage.down, stage.expand, stage.contract):
            n_in, n_out = brick.map.weight.shape[2:]
            shape = dict(k=brick.map.weight.shape[0], stride=brick.map.stride, padding=brick.map.padding)
            brick.map = Conv(n_in, n_out, **shape, rng=rng)
    finite_differences(lambda x: stem(x, T=2), rng.standard_normal((1, 2, 4, 6, 1)), *stem.parameters())


@task(
    "★★★",
    hints=[
        "Pad x and make gx of the padded size. Go over the taps (i, j): which rows of x meet w[i, j]?",
        "Tap (i, j) meets the slice that begins at (i, j), has step `stride` and as many places as gy.",
        "gx[slice] += gy @ w[i, j].T, and gw[i, j] is the sum of the outer products of x[slice] and gy. Cut "
        "the padding off gx at the end.",
    ],
    cases=gradient_cases,
    expected=library_gradient,
    place=gradient_of,
)
def strided_backward(x, w, gy, stride, padding):
    """Compute both gradients of a k×k convolution whose windows may overlap, or leave the last rows unused.

    x: [N, H, W, C].    w: [k, k, C, out].    gy = ∂L/∂y: [N, H', W', out].
    Forward: y[n, p, q] = Σ_ij x[n, stride·p + i − padding, stride·q + j − padding] @ w[i, j], where x counts
    as 0 outside the image. Return a dict: "gx" = ∂L/∂x and "gw" = ∂L/∂w.
    """
    k, (_, H, W, _), (_, h, wide, _) = len(w), x.shape, gy.shape
    border = (padding, padding)
    padded = np.pad(x, ((0, 0), border, border, (0, 0)))
    gx, gw = np.zeros_like(padded), np.zeros_like(w)
    for i, j in np.ndindex(k, k):
        at = slice(None), slice(i, i + stride * h, stride), slice(j, j + stride * wide, stride)
        gx[at] += gy @ w[i, j].T
        gw[i, j] = np.einsum("npqc,npqo->co", padded[at], gy)
    return {"gx": gx[:, padding : padding + H, padding : padding + W], "gw": gw}
