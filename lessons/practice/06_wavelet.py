"""Tasks for lesson 06: Haar's wavelet, taps of any family, a gradient through levels, a learned mixture."""

import numpy as np
import pywt

from minispike import LIF, Function, Spiking, Tensor, create_model, no_grad, ops
from minispike.autograd import as_tensor
from minispike.blocks.wavelet import Mixture, WaveletMix
from minispike.ops.transform import Wavelet, analysis
from minispike.train import calibrate, set_gains

from .checks import finite_differences, same, task

IMPORTS = """
import numpy as np
"""


def smooth():
    return LIF(smooth=True, detach_reset=False)


def in_a_model(name, change):
    """Compare a model's mixer, and its logits, with those after change(map) has put another map in place."""
    rng = np.random.default_rng(6)
    images = rng.random((4, 8, 8, 1))
    model = create_model(name, T=2, rng=0, dtype="float64")
    set_gains(model, 3)
    calibrate(model.train(), [(images, None)])
    mixer = model.eval().blocks[0].mixer
    with no_grad():
        tokens = model.stem(images[None], T=2)
        want, logits = mixer(tokens).data, model(images).data
        mixer.map = change(mixer.map)
        got = mixer(tokens).data, model(images).data
    if not 0.02 < want.mean() < 0.98:
        raise AssertionError("the library's mixer does not fire")
    same("the spikes of a model's mixer", got[0], want)
    same("the logits of the model", got[1], logits)


# ---------------------------------------------------------------- one level of Haar


def haar_cases(rng):
    for shape in ((2, 4), (6, 2), (2, 2), (3, 4, 8), (2, 1, 10, 6)):
        yield {"x": rng.standard_normal(shape)}


def library_haar(x):
    *lead, H, W = x.shape
    return ops.wavelet(x.reshape(*lead, H * W, 1), (H, W), "haar").data.reshape(x.shape)


def haar_mixer(haar):
    class Mine(WaveletMix):
        def forward(self, x):
            T, B, N, D = x.shape
            channels = as_tensor(x).data.swapaxes(2, 3).reshape(T, B, D, *self.grid)  # channels before places
            y = haar(channels).reshape(T, B, D, N)
            return Tensor(np.ascontiguousarray(y.swapaxes(2, 3)))

    in_a_model("attention_free_haar_1_64_digits", lambda old: Mine(64, old.grid))


@task(
    "★",
    hints=[
        "x[..., 0::2] are the first values of all pairs along a row, and x[..., 1::2] the second ones.",
        "Put the averages before the differences with np.concatenate along the last axis.",
        "Then do the same with the result along the axis before: [..., 0::2, :] and [..., 1::2, :].",
    ],
    cases=haar_cases,
    expected=library_haar,
    place=haar_mixer,
)
def haar(x):
    """Return one level of Haar's wavelet over the last two axes of x.

    x: [..., H, W], with any number of axes in front; H and W are even.
    Pairs along each row become averages (u + v)/√2 in its first half and differences (u − v)/√2 in its second
    half, and then the same along each column. Return an array of the shape of x.
    """
    for axis in (-1, -2):
        x = np.moveaxis(x, axis, 0)
        u, v = x[0::2], x[1::2]
        x = np.moveaxis(np.concatenate([u + v, u - v]) / 2**0.5, 0, axis)
    return x


# ---------------------------------------------------------------- taps of any family

FAMILIES = (("haar", 4), ("db2", 6), ("bior2.2", 8), ("sym4", 4), ("db2", 2), ("bior4.4", 10), ("rbio1.3", 2))


def taps_cases(rng):
    for family, n in FAMILIES:
        wavelet = pywt.Wavelet(family)
        yield {"low": np.array(wavelet.dec_lo), "high": np.array(wavelet.dec_hi), "n": n}


def library_taps(low, high, n):
    same_taps = [f for f, _ in FAMILIES if np.array_equal(pywt.Wavelet(f).dec_lo, low) and len(low) % 2 == 0]
    return analysis(same_taps[0], n).copy()


def matrices_in_a_mixer(taps):
    class Product(Function):
        def forward(self, x, *, grid, family):
            low, high = (np.array(getattr(pywt.Wavelet(family), which)) for which in ("dec_lo", "dec_hi"))
            rows, columns = (taps(low, high, n) for n in grid)
            self.W = np.kron(rows, columns)  # one level on a grid, as one matrix
            return self.W @ x

        def backward(self, gy):
            return self.W.T @ gy

    class Mine(WaveletMix):
        def forward(self, x):
            return Product.apply(x, grid=self.grid, family=self.family)

    in_a_model("attention_free_haar_1_64_digits", lambda old: Mine(64, old.grid))
    rng = np.random.default_rng(7)
    x = rng.standard_normal((3, 2, 24, 4))
    for family in ("db2", "bior2.2"):
        mine, library = (Spiking(kind(4, (4, 6), family), smooth()) for kind in (Mine, WaveletMix))
        same(f"a brick with {family} and a smooth neuron", mine(x).data, library(x).data)
        finite_differences(mine, x, *mine.parameters())


@task(
    "★★",
    hints=[
        "Start with zeros [n, n]. Row k belongs to low[…], row n/2 + k to high[…], for k = 0 … n/2 − 1.",
        "Tap j of row k is in column (2k + L/2 − j) mod n, where L is the number of taps.",
        "If a filter is longer than the line, two of its taps meet in one column: they add up.",
    ],
    cases=taps_cases,
    expected=library_taps,
    place=matrices_in_a_mixer,
)
def taps(low, high, n):
    """Return one level's analysis matrix A [n, n] along a line of n values, n even, with periodization.

    low, high: the taps of averages and of differences, both of the same even length L; L may exceed n.
    Coefficient k of either kind is Σ_j tap[j] · x[2k + L/2 − j], with places counted modulo n. The averages
    are rows 0 … n/2 − 1, the differences the other rows. Return A, so that A @ x are the coefficients of x.
    """
    A, L = np.zeros((n, n)), len(low)
    for k in range(n // 2):
        for j in range(L):
            A[k, (2 * k + L // 2 - j) % n] += low[j]
            A[n // 2 + k, (2 * k + L // 2 - j) % n] += high[j]
    return A


# ---------------------------------------------------------------- back through the levels


def backward_cases(rng):
    for (H, W), levels, lead, D in (
        ((2, 4), 1, (), 2),
        ((4, 8), 2, (), 1),
        ((8, 4), 2, (3, 2), 3),
        ((8, 8), 3, (2,), 5),
        ((6, 10), 1, (1, 4), 2),
    ):
        yield {"gY": rng.standard_normal((*lead, H * W, D)), "grid": (H, W), "levels": levels}


def library_backward(gY, grid, levels):
    leaf = Tensor(np.zeros_like(gY), requires_grad=True)
    ops.wavelet(leaf, grid, "haar", levels).backward(gY)
    return leaf.grad


def backward_of(backward):
    class Haar(Wavelet):
        def backward(self, gy):
            return backward(gy, self.grid, self.levels)

    class Mine(WaveletMix):
        def forward(self, x):
            return Haar.apply(x, grid=self.grid, family=self.family, levels=self.levels)

    x = np.random.default_rng(8).standard_normal((3, 2, 32, 4))
    for levels in (1, 2):
        brick = Spiking(Mine(4, (4, 8), "haar", levels), smooth())
        finite_differences(lambda x, brick=brick: brick(x), x, *brick.parameters())


@task(
    "★★",
    hints=[
        "Haar is orthogonal: its gradient undoes the transform. Undo the last level first.",
        "Level l worked on the upper left part of H/2^l rows and W/2^l columns, l = 0 … levels − 1.",
        "From an average p and a difference q the pair is (p + q)/√2 and (p − q)/√2: put these at the even "
        "and at the odd places of the part.",
    ],
    cases=backward_cases,
    expected=library_backward,
    place=backward_of,
)
def backward(gY, grid, levels):
    """Return ∂L/∂X for Y = Haar's wavelet of X with several levels, from gY = ∂L/∂Y.

    gY: [..., N, D], with any number of axes in front. The N = H·W tokens lie on the grid (H, W), row by row.
    Averages are in the first half of rows and columns, and each level after the first continues with the
    upper left quarter. Return an array of the shape of gY.
    """
    H, W = grid
    g = gY.reshape(*gY.shape[:-2], H, W, gY.shape[-1]).copy()
    for level in reversed(range(levels)):
        h, w = H >> level, W >> level
        part = g[..., :h, :w, :].copy()
        p, q = part[..., : h // 2, :, :], part[..., h // 2 :, :, :]
        rows = np.stack([p + q, p - q], -3).reshape(part.shape) / 2**0.5
        p, q = rows[..., : w // 2, :], rows[..., w // 2 :, :]
        g[..., :h, :w, :] = np.stack([p + q, p - q], -2).reshape(part.shape) / 2**0.5
    return g.reshape(gY.shape)


# ---------------------------------------------------------------- a learned mixture


def mixture_cases(rng):
    for lead, N, D, m in (((), 3, 2, 2), ((), 5, 1, 3), ((2, 3), 4, 6, 1), ((3, 1), 6, 5, 4)):
        yield {
            "X": rng.standard_normal((*lead, N, D)),
            "a": rng.standard_normal(m),
            "W": rng.standard_normal((m, N, N)),
            "gY": rng.standard_normal((*lead, N, D)),
        }


def library_mixture(X, a, W, gY):
    x, weights = (Tensor(each, requires_grad=True) for each in (X, a))
    Y = weights[0] * ops.matmul(W[0], x)
    for i in range(1, len(W)):
        Y = Y + weights[i] * ops.matmul(W[i], x)
    Y.backward(gY)
    return {"Y": Y.data, "ga": weights.grad, "gX": x.grad}


def mixture_of(mixture):
    class Mixed(Function):
        def forward(self, x, a, *, W):
            self.x, self.a, self.W = x, a, W
            return mixture(x, a, W, np.zeros_like(x))["Y"]

        def backward(self, gy):
            found = mixture(self.x, self.a, self.W, gy)
            return found["gX"], found["ga"]

    class Mine(Mixture):
        def forward(self, x):
            N = x.shape[-2]
            with no_grad():
                W = np.stack([basis(Tensor(np.eye(N)[None, None])).data[0, 0] for basis in self.bases])
            return Mixed.apply(x, self.a, W=W)

    def change(old):
        mine = Mine(old.out_channels, old.bases)
        mine.a.data[...] = old.a.data
        return mine

    in_a_model("attention_free_wavelets_1_64_digits", change)
    rng = np.random.default_rng(9)
    bases = [WaveletMix(4, (2, 4), family) for family in ("haar", "db2", "bior2.2")]
    brick = Spiking(Mine(4, bases), smooth())
    brick.map.a.data[...] = 0.7, -0.4, 0.2
    finite_differences(brick, rng.standard_normal((3, 2, 8, 4)), *brick.parameters())


@task(
    "★★★",
    hints=[
        "W_i @ X multiplies along the tokens for any number of axes in front.",
        "∂L/∂a_i = ⟨gY, W_i X⟩: multiply entry by entry and sum everything, the axes in front as well.",
        "∂L/∂X = Σ_i a_i W_iᵀ gY. Only the last two axes of W[i] change places.",
    ],
    cases=mixture_cases,
    expected=library_mixture,
    place=mixture_of,
)
def mixture(X, a, W, gY):
    """Return a learned mixture of transforms, Y = Σ_i a_i W_i X, and its gradients.

    X: [..., N, D], with any number of axes in front.    a: [m].    W: [m, N, N], not trained.
    gY: ∂L/∂Y, [..., N, D]. The matrices need not be orthogonal, nor symmetric.
    Return a dict: "Y", "ga" = ∂L/∂a [m] and "gX" = ∂L/∂X.
    """
    each = [W_i @ X for W_i in W]
    Y = sum(a_i * y for a_i, y in zip(a, each, strict=True))
    ga = np.array([(gY * y).sum() for y in each])
    gX = sum(a_i * (W_i.T @ gY) for a_i, W_i in zip(a, W, strict=True))
    return {"Y": Y, "ga": ga, "gX": gX}
