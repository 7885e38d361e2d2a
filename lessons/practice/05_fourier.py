"""Tasks for lesson 05: what the real part of a Fourier transform keeps, how it mixes, and its gradients."""

import numpy as np

from minispike import LIF, Function, Module, Spiking, Tensor, create_model, no_grad, ops
from minispike.blocks.fourier import FourierMix
from minispike.ops.transform import cosines, sines
from minispike.train import calibrate, set_gains

from .checks import Wrong, finite_differences, same, task

IMPORTS = """
import numpy as np
"""

BOTH = "tokens and channels"


def smooth():
    return LIF(smooth=True, detach_reset=False)


class Mixing(Function):
    """A linear map that is its own adjoint, computed by a learner's function."""

    def forward(self, x, *, mix):
        self.mix = mix
        return mix(x)

    def backward(self, gy):
        return self.mix(gy)


# ---------------------------------------------------------------- what is left


def library_rank(N, D):
    if D is None:
        return int(np.linalg.matrix_rank(ops.fourier(np.eye(N)).data))
    plane = ops.fourier(np.eye(N * D).reshape(N * D, N, D), BOTH).data
    return int(np.linalg.matrix_rank(plane.reshape(N * D, N * D)))


@task(
    "★",
    hints=[
        "The rank is the number of values that an even signal can choose freely.",
        "Positions that stay where they are have one value each; the others share one value with a partner.",
        "Along an axis of even length two places stay, of odd length one. In 2-D a position stays if both of "
        "its coordinates do.",
    ],
    cases=lambda rng: [
        {"N": N, "D": D}
        for N, D in (
            (4, None),
            (5, None),
            (1, None),
            (2, None),
            (6, 4),
            (5, 4),
            (4, 3),
            (3, 5),
            (1, 6),
            (7, 1),
        )
    ],
    expected=library_rank,
)
def rank(N, D):
    """Return the rank of the real Fourier transform of N tokens with D channels, without computing it.

    D: None for the 1-D transform, a matrix [N, N] along the tokens; or the number of channels, for the 2-D
    transform along tokens and channels, a matrix [N·D, N·D]. Both N and D may be even or odd.
    Return an integer.
    """
    stay = 2 - N % 2
    if D is None:
        return (N + stay) // 2
    stay *= 2 - D % 2
    return (N * D + stay) // 2


# ---------------------------------------------------------------- the 2-D transform


def mix_cases(rng):
    for shape in ((4, 3), (3, 4), (1, 5), (6, 1), (3, 2, 5, 8)):
        yield {"X": rng.standard_normal(shape)}


def library_mix(X):
    N, D = X.shape[-2:]
    parts = {"cosines": cosines(N) @ X @ cosines(D), "sines": sines(N) @ X @ sines(D)}
    return parts | {"Y": ops.fourier(X, BOTH).data}


def mixer_of(mix):
    """Put it in the place of the transform in a model that fires, and let it be its own backward."""

    class Mine(Module):
        def __init__(self, dim):
            self.out_channels = dim

        def forward(self, x):
            return Mixing.apply(x, mix=lambda x: mix(x)["Y"])

    rng = np.random.default_rng(5)
    images = rng.random((6, 8, 8, 1))
    model = create_model("attention_free_fft2d_1_64_digits", rng=0, T=2, dtype="float64")
    set_gains(model, 3)
    calibrate(model.train(), [(images, None)])
    with no_grad():
        tokens = model.eval().stem(images[None], T=2)  # [T, B, N, D]
        want = model.blocks[0].mixer(tokens).data
        model.blocks[0].mixer.map = Mine(64)
        got = model.blocks[0].mixer(tokens).data
    if not 0.02 < want.mean() < 0.98:
        raise AssertionError("the library's mixer does not fire")
    same("the spikes of a model's mixer", got, want)
    brick = Spiking(Mine(3), smooth())
    finite_differences(lambda x: brick(x), rng.standard_normal((3, 2, 5, 3)))


@task(
    "★★",
    hints=[
        "C[k, n] = cos(2πkn/N)/√N, S likewise with sin: np.outer(np.arange(N), np.arange(N)) holds all kn.",
        "Tokens are the last axis but one: a matrix times X. Channels are the last: X times a matrix.",
        "cos(a + b) = cos a cos b − sin a sin b: Y is the difference of the two products.",
    ],
    cases=mix_cases,
    expected=library_mix,
    place=mixer_of,
)
def mix(X):
    """Return the real part of the 2-D orthonormal Fourier transform of X, computed with real numbers only.

    X: [..., N, D], with any number of axes in front. All values have the shape of X.
    Return a dict: "cosines" = C_N X C_D, "sines" = S_N X S_D, and "Y" = Re(F_N X F_D).
    In a model your function is also the backward pass.
    """
    N, D = X.shape[-2:]
    angle = {n: 2 * np.pi * np.outer(np.arange(n), np.arange(n)) / n for n in (N, D)}
    C_N, C_D = (np.cos(angle[n]) / n**0.5 for n in (N, D))
    S_N, S_D = (np.sin(angle[n]) / n**0.5 for n in (N, D))
    from_cosines, from_sines = C_N @ X @ C_D, S_N @ X @ S_D
    return {"cosines": from_cosines, "sines": from_sines, "Y": from_cosines - from_sines}


# ---------------------------------------------------------------- two in a row


def twice_cases(rng):
    for shape in ((4, 2), (5, 3), (1, 4), (2, 2), (6, 6), (3, 2, 7, 4)):
        yield {"X": rng.standard_normal(shape)}


def two_mixers(twice):
    """Put it in the place of two transforms in a row, before a smooth neuron."""

    class Two(Module):
        def __init__(self, transform):
            self.out_channels, self.transform = 3, transform

        def forward(self, x):
            return self.transform(x)

    x = np.random.default_rng(6).standard_normal((4, 2, 7, 3))
    mine = Spiking(Two(lambda x: Mixing.apply(x, mix=twice)), smooth())
    library = Spiking(Two(lambda x: ops.fourier(ops.fourier(x))), smooth())
    same("the output of a smooth neuron behind it", mine(x).data, library(x).data)
    finite_differences(lambda x: mine(x), x)


@task(
    "★★",
    hints=[
        "What happens to the odd part of X? And to the even part?",
        "The even part of X is the mean of X and X counted backwards.",
        "To count backwards: np.flip puts token N − 1 first; np.roll by 1 puts token 0 first again.",
    ],
    cases=twice_cases,
    expected=lambda X: ops.fourier(ops.fourier(X)).data,
    place=two_mixers,
)
def twice(X):
    """Return what two 1-D transforms in a row make of X, without any sine, cosine or Fourier transform.

    X: [..., N, D]; the transform is the real part of the orthonormal transform along the tokens, axis N.
    Return an array of the shape of X.
    """
    return (X + np.roll(np.flip(X, -2), 1, -2)) / 2


# ---------------------------------------------------------------- another interpretation


def library_power(X, gY):
    leaf = Tensor(X, requires_grad=True)
    real, imaginary = ops.fourier(leaf), ops.matmul(-sines(X.shape[-2]), leaf)
    Y = real * real + imaginary * imaginary
    Y.backward(gY)
    return {"Y": Y.data, "gX": leaf.grad}


def power_cases(rng):
    for shape in ((3, 2), (4, 5), (1, 3), (6, 1), (3, 2, 5, 4)):
        X, gY = rng.standard_normal((2, *shape))
        yield {"X": X, "gY": gY}


def power_mixer(power):
    """Put it in the place of FourierMix, in a brick with a smooth neuron."""

    class Power(Function):
        def forward(self, x):
            self.x = x
            return power(x, np.zeros_like(x))["Y"]

        def backward(self, gy):
            return power(self.x, gy)["gX"]

    class Mine(FourierMix):
        def forward(self, x):
            return Power.apply(x)

    rng = np.random.default_rng(7)
    x = rng.standard_normal((3, 2, 5, 4))
    finite_differences(lambda x: Power.apply(x), x)
    brick = Spiking(Mine(4), smooth())
    finite_differences(lambda x: brick(x), x, *brick.parameters())
    spikes = [Spiking(Mine(4))(np.roll(x, shift, -2)).data for shift in (0, 2)]
    if not spikes[0].any():
        raise Wrong("in the library's place: the neurons behind it never fire")
    same("the spikes when all tokens move by two places", spikes[1], spikes[0])


@task(
    "★★★",
    hints=[
        "The squared length of the complex number a + ib is a² + b². Here a = C X and b = −S X.",
        "The chain rule goes through a and b: ∂L/∂a = 2 a ∂L/∂Y, and likewise for b.",
        "∂L/∂X = Cᵀ ∂L/∂a − Sᵀ ∂L/∂b, and both matrices are symmetric. The tokens are the last axis but one.",
    ],
    cases=power_cases,
    expected=library_power,
    place=power_mixer,
)
def power(X, gY):
    """Return the power spectrum of the tokens, |F_N X|² entry by entry, and a loss's gradient through it.

    This is another interpretation of what reaches the neuron: squared lengths instead of real parts.
    X: [..., N, D]; F_N is the orthonormal Fourier transform along the tokens, axis N.
    gY: ∂L/∂Y, in the shape of Y, which is that of X.
    Return a dict: "Y" = |F_N X|² and "gX" = ∂L/∂X, both real.
    """
    F = np.fft.fft(np.eye(X.shape[-2]), norm="ortho")
    real, imaginary = F.real @ X, F.imag @ X
    gX = F.real.T @ (2 * real * gY) + F.imag.T @ (2 * imaginary * gY)
    return {"Y": real**2 + imaginary**2, "gX": gX}
