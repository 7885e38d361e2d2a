"""Tasks for lesson 10: taps on a grid, the module from tokens to spikes, and a convolution's gradients."""

from functools import partial

import numpy as np

from minispike import LIF, Module, Tensor, create_model, lif, no_grad, ops
from minispike.blocks.dwc import DWC
from minispike.blocks.sasa import SASA, Global
from minispike.ops.conv import ConvolveDepthwise2d
from minispike.train import calibrate, set_gains

from .checks import Wrong, finite_differences, same, task

IMPORTS = """
import numpy as np

from minispike import lif, ops
"""

# ---------------------------------------------------------------- what a spike reaches


def library_reach(H, W, k):
    """Every output counts the inputs that it reads; backwards, every input the outputs that read it."""
    x = Tensor(np.zeros((H, W, 1)), requires_grad=True)
    y = ops.depthwise_conv2d(x, np.ones((k, k, 1)), padding=k // 2)
    y.backward(np.ones(y.shape))
    return x.grad[..., 0]


@task(
    "★",
    hints=[
        "Rows and columns are independent: count the outputs along each axis, then multiply.",
        "A spike in row r reaches the rows r − k//2 … r + k//2, as far as they exist.",
        "Along an axis of length n: min(r + k//2, n − 1) − max(r − k//2, 0) + 1.",
    ],
    cases=lambda rng: [
        {"H": H, "W": W, "k": k}
        for H, W, k in ((4, 3, 3), (1, 1, 3), (5, 2, 5), (2, 7, 3), (3, 4, 1), (1, 6, 7), (8, 8, 3))
    ],
    expected=library_reach,
)
def reach(H, W, k):
    """Return how many outputs of a depthwise convolution a spike reaches, for each place of a grid: [H, W].

    H, W: the grid.    k: the side of the kernel, odd. The output has the size of the grid, and outside the
    grid there are zeros. All k·k weights of a channel differ from 0. Each output reached costs one addition.
    """

    def along(n):
        place = np.arange(n)
        return np.minimum(place + k // 2, n - 1) - np.maximum(place - k // 2, 0) + 1.0

    return np.outer(along(H), along(W))


# ---------------------------------------------------------------- two maps in one


def library_full(w, W):
    """Feed one spike in every channel alone: what comes out, turned around, is the kernel."""
    k, D = len(w), len(W)
    spike = np.zeros((D, 2 * k - 1, 2 * k - 1, D))
    spike[np.arange(D), k - 1, k - 1, np.arange(D)] = 1
    y = ops.linear(ops.depthwise_conv2d(spike, w, padding=k // 2), W).data  # [D, 2k − 1, 2k − 1, out]
    near = slice(k - 1 - k // 2, k + k // 2)
    return y[:, near, near][:, ::-1, ::-1].transpose(1, 2, 0, 3)


def full_cases(rng):
    for k, D, out in ((3, 2, 4), (1, 3, 2), (5, 1, 3), (3, 4, 1), (3, 5, 5)):
        yield {"w": rng.standard_normal((k, k, D)), "W": rng.standard_normal((D, out))}


def in_convolutions_place(full):
    rng = np.random.default_rng(8)
    x = (rng.random((3, 2, 5, 4, 6)) < 0.4).astype(float)  # [T, B, H, W, D]
    dwc = DWC(6, (5, 4), rng=1)
    W = 2 * rng.standard_normal((6, 3))
    w = dwc.conv.map.weight.data
    w[...] = rng.standard_normal(w.shape)
    got = lif(ops.conv2d(x, full(w, W), padding=1)).data
    want = lif(dwc.conv.map(x).data @ W).data
    if not 0.02 < want.mean() < 0.98:
        raise AssertionError("no network that fires")
    same("the spikes behind one ordinary convolution", got, want)


@task(
    "★★",
    hints=[
        "Write the output channel o as a sum over channels c and taps (i, j). What multiplies x[…, c]?",
        "The kernel from channel c to output o at tap (i, j) is w[i, j, c] · W[c, o].",
        "Broadcasting does it: w needs one more axis at its end.",
    ],
    cases=full_cases,
    expected=library_full,
    place=in_convolutions_place,
)
def full(w, W):
    """Return the kernel of the one ordinary convolution that equals a depthwise one and the map behind it.

    w: [k, k, D], the depthwise kernels, k odd.    W: [D, out], the map; no bias, and nothing in between.
    Return an array [k, k, D, out]: ops.conv2d(x, it, padding=k // 2) = ops.depthwise_conv2d(x, w, …) W.
    """
    return w[..., None] * W


# ---------------------------------------------------------------- the module


def module_cases(rng):
    for T, B, H, W, D, k in ((2, 1, 2, 3, 2, 3), (4, 3, 5, 2, 7, 3), (1, 2, 4, 6, 3, 5), (5, 2, 3, 1, 1, 3)):
        yield {
            "K": (rng.random((T, B, H * W, D)) < 0.4).astype(float),
            "w": rng.standard_normal((k, k, D)),
            "gain": rng.uniform(1, 3, D),
            "shift": rng.uniform(0, 1.5, D),
            "grid": (H, W),
        }


def library_module(K, w, gain, shift, grid):
    dwc = DWC(K.shape[-1], grid, len(w), rng=0)
    for parameter, value in zip(dwc.parameters(), (w, gain, shift), strict=True):
        parameter.data[...] = value
    current = dwc.conv.map(K.reshape(*K.shape[:2], *grid, -1))
    normed = dwc.conv.norm(current)
    return {"current": current.data, "normed": normed.data, "S": dwc(K).data}


def dwc_of(module):
    """Put it in the place of DWC in a mixer that fires."""

    class Mine(Module):
        def __init__(self, dwc):
            self.dwc = dwc

        def forward(self, x):
            w, gain, shift = (p.data for p in self.dwc.parameters())
            return Tensor(module(x.data, w, gain, shift, self.dwc.grid)["S"])

    rng = np.random.default_rng(9)
    x = rng.integers(0, 3, (4, 2, 15, 6)).astype(float)  # [T, B, N, D], on 5×3 tokens
    mixer = SASA(6, 2, Global(), DWC(6, (5, 3), rng=1), rng=2)
    set_gains(mixer, 2)
    with no_grad():
        silent = mixer.dwc(mixer.k(x)).data.mean()
        want = mixer(x).data
        mixer.dwc = Mine(mixer.dwc)
        got = mixer(x).data
    if not (0.02 < silent < 0.98 and 0.02 < want.mean() < 0.98):
        raise AssertionError("no mixer that fires")
    same("the spikes of SASA with your module", got, want)
    images = rng.random((4, 8, 8, 1))
    model = create_model("saformer_1_64_digits", T=2, rng=0, dtype="float64")
    set_gains(model, 3)
    calibrate(model.train(), [(images, None)])
    with no_grad():
        model.train()
        want = model(images).data
        model.blocks[0].mixer.dwc = Mine(model.blocks[0].mixer.dwc)
        got = model(images).data
    same("the logits of a model with your module", got, want)


@task(
    "★★",
    hints=[
        "N = H·W tokens, row by row: K.reshape(T, B, H, W, D). ops.depthwise_conv2d(…, padding=k // 2).data",
        "Batch norm: subtract the mean and divide by √(variance + 1e-5), one of each per channel, over all "
        "other axes. Then gain and shift.",
        "Time is the first axis, as lif expects it. At the end go back to [T, B, N, D].",
    ],
    cases=module_cases,
    expected=library_module,
    place=dwc_of,
)
def module(K, w, gain, shift, grid):
    """Return DWC(K) = LIF(BN(DepthwiseConv(K))) in training, step by step.

    K: spikes [T, B, N, D] of the tokens on a grid (H, W), numbered row by row.    w: [k, k, D], k odd.
    gain, shift: [D], batch norm's γ and β.    The neurons are the library's, with τ = 2 and threshold 1.
    Return a dict: "current", the convolution's output, and "normed", batch norm's, both [T, B, H, W, D], and
    the spikes "S" [T, B, N, D].
    """
    T, B, N, D = K.shape
    current = ops.depthwise_conv2d(K.reshape(T, B, *grid, D), w, padding=len(w) // 2).data
    every = (0, 1, 2, 3)
    normed = gain * (current - current.mean(every)) / np.sqrt(current.var(every) + 1e-5) + shift
    return {"current": current, "normed": normed, "S": lif(normed).data.reshape(T, B, N, D)}


# ---------------------------------------------------------------- the convolution and its gradients


def depthwise_cases(rng):
    for *lead, H, W, C, k in (
        (3, 2, 2, 3),
        (4, 5, 1, 3),
        (2, 3, 6, 4, 2, 5),
        (2, 1, 3, 3, 3),
        (3, 2, 4, 3, 1),
    ):
        yield {
            "x": rng.standard_normal((*lead, H, W, C)),
            "w": rng.standard_normal((k, k, C)),
            "gY": rng.standard_normal((*lead, H, W, C)),
        }


def library_depthwise(x, w, gY):
    leaves = [Tensor(a, requires_grad=True) for a in (x, w)]
    y = ops.depthwise_conv2d(*leaves, padding=len(w) // 2)
    y.backward(gY)
    return {"Y": y.data, "gX": leaves[0].grad, "gw": leaves[1].grad}


def convolution_of(depthwise):
    """Put it in the place of the library's convolution, in a DWC with smooth neurons."""

    class Mine(ConvolveDepthwise2d):
        def forward(self, x, w, b=None, *, stride, padding):
            self.x, self.w = x, w
            return depthwise(x, w, np.zeros_like(x))["Y"]

        def backward(self, gy):
            found = depthwise(self.x, self.w, gy)
            return found["gX"], found["gw"]

    class Convolution(Module):
        def __init__(self, map):
            self.weight, self.out_channels = map.weight, map.out_channels

        def forward(self, x):
            return Mine.apply(x, self.weight, stride=1, padding=self.weight.shape[0] // 2)

    rng = np.random.default_rng(10)
    x = (rng.random((4, 2, 8, 3)) < 0.5).astype(float)
    spiking = DWC(3, (4, 2), rng=0)
    spiking.conv.norm.weight.data[...] = 2
    want = spiking(x).data
    spiking.conv.map = Convolution(spiking.conv.map)
    if not want.any():
        raise Wrong("in the library's place: no neuron fires")
    same("the spikes of DWC(K)", spiking(x).data, want)
    smooth = DWC(3, (4, 2), neuron=partial(LIF, smooth=True, detach_reset=False), rng=0)
    smooth.conv.map = Convolution(smooth.conv.map)
    finite_differences(smooth, rng.standard_normal(x.shape), *smooth.parameters())


@task(
    "★★★",
    hints=[
        "Surround x with zeros, k//2 on each side of both grid axes: np.pad. Then tap (i, j) reads the same "
        "slice for all outputs at once, padded[..., i : i + H, j : j + W, :].",
        "Loop over the k·k taps alone. Forward: Y += slice · w[i, j]. Backward: the same slice of a padded "
        "gradient gets += gY · w[i, j].",
        "gw[i, j] is the sum of slice · gY over every axis but the channels. At the end cut off gX's border.",
    ],
    cases=depthwise_cases,
    expected=library_depthwise,
    place=convolution_of,
)
def depthwise(x, w, gY):
    """Return a depthwise convolution and both of its gradients.

    x: [..., H, W, C], with any number of axes in front.    w: [k, k, C], k odd.
    The output Y has the shape of x; outside the grid there are zeros.    gY: ∂L/∂Y.
    Return a dict: "Y", "gX" = ∂L/∂x and "gw" = ∂L/∂w.
    """
    *lead, H, W, C = x.shape
    r = len(w) // 2
    border = [(0, 0)] * len(lead) + [(r, r), (r, r), (0, 0)]
    padded = np.pad(x, border)
    Y, gw, gP = np.zeros_like(x), np.zeros_like(w), np.zeros_like(padded)
    for i, j in np.ndindex(w.shape[:2]):
        part = (..., slice(i, i + H), slice(j, j + W), slice(None))
        Y += padded[part] * w[i, j]
        gP[part] += gY * w[i, j]
        gw[i, j] = (padded[part] * gY).reshape(-1, C).sum(0)
    return {"Y": Y, "gX": gP[..., r : r + H, r : r + W, :], "gw": gw}
