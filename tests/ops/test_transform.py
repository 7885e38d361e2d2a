"""Fourier and wavelets: against dense matrices, SciPy and PyWavelets; adjoints; the attention-free mixers."""

import itertools
import warnings
from functools import partial

import numpy as np
import pytest
import pywt
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st

from minispike import LIF, Function, Spiking, Tensor, check_grads, create_model, no_grad, ops
from minispike.blocks.control import Identity, RandomMix
from minispike.blocks.fourier import FourierMix
from minispike.blocks.wavelet import Mixture, WaveletMix
from minispike.ops.transform import Fourier, Wavelet, analysis, cosines

from ..blocks.test_blocks import lively, naive_neuron, naive_norm

FAMILIES = pywt.wavelist(kind="discrete")
BOTH = "tokens and channels"
SMOOTH = partial(LIF, smooth=True, detach_reset=False)


def dense_fourier(x, axes):
    """C_N X, or C_N X C_D − S_N X S_D, from the definition."""
    N, D = x.shape[-2:]
    angle = {n: 2 * np.pi * np.outer(np.arange(n), np.arange(n)) / n for n in (N, D)}
    C, S = ({n: f(a) / n**0.5 for n, a in angle.items()} for f in (np.cos, np.sin))
    return C[N] @ x if axes == "tokens" else C[N] @ x @ C[D] - S[N] @ x @ S[D]


# ---------------------------------------------------------------- Fourier


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 20), st.integers(1, 12), st.sampled_from(["tokens", BOTH]))
def test_fourier_is_its_dense_matrix(N, D, axes):
    x = np.random.default_rng(N * 100 + D).standard_normal((2, 1, N, D))
    y = ops.fourier(Tensor(x), axes).data
    np.testing.assert_allclose(y, dense_fourier(x, axes), atol=1e-12)
    check_grads(lambda x: ops.fourier(x, axes), x)


@pytest.mark.parametrize(
    "N", [195, 196, 197, 300]
)  # both sides of the rule that chooses product or fast transform
@pytest.mark.parametrize("dtype, tol", [("float64", 1e-12), ("float32", 1e-5)])
def test_fourier_is_scipys_on_both_paths(rng, N, dtype, tol):
    x = rng.standard_normal((2, N, 6)).astype(dtype)
    for axes, where in [("tokens", (1,)), (BOTH, (1, 2))]:
        y = ops.fourier(Tensor(x), axes).data
        assert y.dtype == dtype
        np.testing.assert_allclose(y, scipy.fft.fftn(x, axes=where, norm="ortho").real, atol=tol)


@pytest.mark.parametrize("axes", ["tokens", BOTH])
def test_fourier_is_its_own_adjoint(rng, axes):
    x, g = rng.standard_normal((2, 3, 14, 10))
    forward, back = (ops.fourier(Tensor(a), axes).data for a in (x, g))
    assert abs((forward * g).sum() - (x * back).sum()) < 1e-12


def test_only_the_even_part_comes_through(rng):
    """Rank ⌊N/2⌋ + 1 in one axis, (ND + 4)/2 in two for even N and D."""
    for N in (5, 8):
        assert np.linalg.matrix_rank(cosines(N)) == N // 2 + 1
    basis = np.eye(6 * 8).reshape(48, 6, 8)
    matrix = ops.fourier(Tensor(basis), BOTH).data.reshape(48, 48)
    assert np.linalg.matrix_rank(matrix) == (6 * 8 + 4) // 2
    odd = rng.standard_normal((8, 3))
    odd = odd - odd[-np.arange(8) % 8]
    assert abs(ops.fourier(Tensor(odd)).data).max() < 1e-14


def test_a_wrong_backward_of_fourier_is_caught(rng):
    class Sine(Fourier):
        def backward(self, gy):
            n = np.arange(gy.shape[-2])
            return np.sin(2 * np.pi * np.outer(n, n) / len(n)) / len(n) ** 0.5 @ gy

    with pytest.raises(AssertionError, match="finite difference"):
        check_grads(lambda x: Sine.apply(x, axes="tokens"), rng.standard_normal((6, 2)))


def test_fourier_refuses(rng):
    with pytest.raises(ValueError, match="fourier has axes 'tokens' or 'tokens and channels', not 'time'"):
        ops.fourier(np.ones((4, 4)), "time")
    with pytest.raises(ValueError, match=r"fourier expects x \[..., N, D\], got \[4\]"):
        ops.fourier(np.ones(4))


# ---------------------------------------------------------------- wavelets


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_pywavelets_and_proved(rng, family):
    H, W = 8, 16
    x = rng.standard_normal((H, W))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyWavelets remarks on long filters and small grids
        average, (horizontal, vertical, diagonal) = pywt.dwt2(x, family, mode="periodization")
    y = ops.wavelet(Tensor(x.reshape(-1, 1)), (H, W), family).data.reshape(H, W)
    np.testing.assert_allclose(y, np.block([[average, vertical], [horizontal, diagonal]]), atol=1e-10)
    check_grads(lambda x: ops.wavelet(x, (4, 8), family), rng.standard_normal((2, 32, 3)))


@pytest.mark.parametrize("family", [f for f in FAMILIES if pywt.Wavelet(f).orthogonal])
def test_orthogonal_families_keep_everything(family):
    for N in (4, 16):
        matrix = analysis(family, N)
        assert abs(matrix @ matrix.T - np.eye(N)).max() < (2.5e-3 if family == "dmey" else 1e-10)


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("family", ["haar", "db2", "bior2.2"])
def test_levels_go_on_with_the_averages(rng, family, levels):
    x = rng.standard_normal((8, 8))
    expected = x.copy()
    for level in range(levels):
        n = 8 >> level
        A = analysis(family, n)
        expected[:n, :n] = A @ expected[:n, :n] @ A.T
    y = ops.wavelet(Tensor(x.reshape(64, 1)), (8, 8), family, levels).data.reshape(8, 8)
    np.testing.assert_allclose(y, expected, atol=1e-12)
    check_grads(lambda x: ops.wavelet(x, (8, 8), family, levels), rng.standard_normal((2, 64, 2)))


def test_haar_by_hand():
    x = np.array([[1.0, 3.0], [5.0, 7.0]]).reshape(4, 1)
    assert ops.wavelet(Tensor(x), (2, 2)).data.reshape(-1).tolist() == pytest.approx([8, -2, -4, 0])


@pytest.mark.parametrize(
    "family, levels", list(itertools.product(["haar", "db4", "bior2.2", "rbio3.1"], [1, 2]))
)
def test_a_wavelets_backward_is_its_transpose(rng, family, levels):
    x, g = rng.standard_normal((2, 3, 64, 5))
    f = Wavelet()
    f.xp = np
    forward = f.forward(x, grid=(8, 8), family=family, levels=levels)
    assert abs((forward * g).sum() - (x * f.backward(g)).sum()) < 1e-10


def test_the_inverse_is_no_backward_for_a_biorthogonal_family(rng):
    class Inverse(Function):
        """y = W x along the tokens, with W⁻¹ in the place of Wᵀ."""

        def forward(self, x, family):
            self.matrix = analysis(family, 8)
            return self.matrix @ x

        def backward(self, gy):
            return np.linalg.inv(self.matrix) @ gy

    x = rng.standard_normal((8, 3))
    for family in ("haar", "db2", "bior1.1", "rbio1.1"):  # the last two are Haar in disguise: orthogonal
        check_grads(lambda x, family=family: Inverse.apply(x, family=family), x)
    for family in ("bior2.2", "rbio3.1"):
        with pytest.raises(AssertionError, match="finite difference"):
            check_grads(lambda x, family=family: Inverse.apply(x, family=family), x)


@pytest.mark.parametrize(
    "shape, grid, family, levels, message",
    [
        ((196, 2), (14, 14), "haar", 2, "2 levels needs a grid divisible by 4, got 14×14"),
        ((15, 2), (3, 5), "haar", 1, "1 levels needs a grid divisible by 2, got 3×5"),
        ((16, 2), (4, 4), "haar", 0, "0 levels"),
        ((16, 2), (4, 8), "haar", 1, r"expects x \[..., 32, D\] for a grid of 4×8, got \[16, 2\]"),
        ((16, 2), (4, 4), "morl", 1, "no discrete wavelet family 'morl'"),
        ((16, 2), (4, 4), "haare", 1, "no discrete wavelet family 'haare'"),
    ],
)
def test_grids_that_do_not_divide_are_refused(shape, grid, family, levels, message):
    with pytest.raises(ValueError, match=message):
        ops.wavelet(np.ones(shape), grid, family, levels)


def test_the_shared_matrices_cannot_be_changed():
    for matrix in (cosines(8), analysis("haar", 8)):
        with pytest.raises(ValueError, match="read-only"):
            matrix[0, 0] = 1
    with pytest.raises(ValueError, match="7 places: odd"):
        analysis("haar", 7)


def test_float32_stays_float32(rng):
    x = Tensor(rng.standard_normal((2, 16, 4)).astype("float32"), requires_grad=True)
    for f in (
        lambda x: ops.fourier(x),
        lambda x: ops.fourier(x, BOTH),
        lambda x: ops.wavelet(x, (4, 4), "db2"),
    ):
        y = f(x)
        x.grad = None
        y.backward(np.ones_like(y.data))
        assert y.dtype == "float32" and x.grad.dtype == "float32"


def test_costs():
    assert Fourier.cost((4, 2, 64, 8), axes="tokens") == 4 * 2 * 64 * 8 * 6
    assert Fourier.cost((64, 8), axes=BOTH) == 64 * 8 * 9
    assert Wavelet.cost((2, 64, 3), grid=(8, 8), family="db2", levels=2) == 2 * 4 * (384 + 96)


# ---------------------------------------------------------------- the mixers

TRANSFORMS = {
    "fft1d": lambda rng: FourierMix(8),
    "fft2d": lambda rng: FourierMix(8, BOTH),
    "haar": lambda rng: WaveletMix(8, (4, 4)),
    "db2, two levels": lambda rng: WaveletMix(8, (4, 4), "db2", 2),
    "mixture": lambda rng: Mixture(8, [WaveletMix(8, (4, 4), "bior2.2"), FourierMix(8), Identity(8)]),
    "identity": lambda rng: Identity(8),
    "random": lambda rng: RandomMix(8, 16, rng=rng),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_mixer_is_neuron_after_norm_after_transform(rng, name):
    mixer = lively(Spiking(TRANSFORMS[name](rng)), rng)
    x = rng.integers(0, 3, (3, 2, 16, 8)).astype(float)
    columns = [mixer.map(Tensor(np.eye(16 * 8)[i].reshape(16, 8))).data.reshape(-1) for i in range(128)]
    y = (x.reshape(6, 128) @ np.array(columns)).reshape(x.shape)  # the transform as one dense matrix
    spikes = naive_neuron(naive_norm(y, mixer.norm))
    np.testing.assert_array_equal(mixer(x).data, spikes)
    assert 0.02 < spikes.mean() < 0.98


@pytest.mark.parametrize("name", TRANSFORMS)
def test_gradients_through_a_mixer_and_folding(rng, name):
    mixer = lively(Spiking(TRANSFORMS[name](rng), SMOOTH()), rng, gain=1.5)
    x = rng.standard_normal((4, 2, 16, 8))
    check_grads(mixer, x, *mixer.parameters())
    plain = mixer.eval()(x).data
    with no_grad():
        np.testing.assert_allclose(mixer(x).data, plain, atol=1e-12)


def test_a_mixtures_weights_are_learned_and_start_as_the_mean(rng):
    mixture = TRANSFORMS["mixture"](rng)
    x = rng.standard_normal((1, 1, 16, 8))
    parts = [basis(x).data for basis in mixture.bases]
    np.testing.assert_allclose(mixture(x).data, sum(parts) / 3, atol=1e-12)
    gy = rng.standard_normal(x.shape)
    mixture(x).backward(gy)
    np.testing.assert_allclose(mixture.a.grad, [(gy * part).sum() for part in parts])
    with pytest.raises(ValueError, match="at least one basis"):
        Mixture(8, [])


def test_the_controls(rng):
    x = rng.standard_normal((2, 2, 16, 8))
    assert np.array_equal(Identity(8)(x).data, x)
    mix = RandomMix(8, 16, rng=rng)
    np.testing.assert_allclose(mix.matrix @ mix.matrix.T, np.eye(16), atol=1e-12)
    np.testing.assert_allclose(mix(x).data, mix.matrix @ x)
    assert list(mix.state_dict()) == ["matrix"] and not mix.parameters()  # saved and moved, never trained


MIXERS = ["fft1d", "fft2d", "haar", "db2", "wavelets", "identity", "random"]


@pytest.mark.parametrize("mixer", MIXERS)
def test_gradients_through_a_whole_attention_free_model(rng, mixer):
    options = {"bases": ("haar", "bior2.2", "fft2d")} if mixer == "wavelets" else {}
    model = create_model(
        "attention_free_fft1d_1_64_digits", mixer=mixer, embed_dim=16, dtype="float64", smooth=True,
        detach_reset=False, **options,
    )  # fmt: skip
    lively(model, rng)
    check_grads(model, rng.standard_normal((2, 8, 8, 1)), *model.parameters())


def test_the_models_keywords_count(rng):
    x = rng.standard_normal((2, 16, 16, 1))

    def logits(**overrides):
        options = dict(embed_dim=16, img_size=16, dtype="float64") | overrides
        return lively(
            create_model("attention_free_wavelets_1_64_digits", **options), np.random.default_rng(0)
        )(x).data

    plain = logits()
    for override in (dict(mixer="haar"), dict(bases=("haar", "fft1d", "db2")), dict(levels=2)):
        assert abs(logits(**override) - plain).max() > 1e-6
    with pytest.raises(ValueError, match="no discrete wavelet family 'sssa'"):
        logits(mixer="sssa")
    with pytest.raises(TypeError, match="has no num_heads; it takes .* mixer, .* bases, levels"):
        logits(num_heads=4)


def test_a_sample_does_not_depend_on_its_neighbours(rng):
    for mixer in MIXERS:
        model = create_model("attention_free_fft1d_1_64_digits", mixer=mixer, embed_dim=16, dtype="float64")
        lively(model, rng)
        x = rng.standard_normal((5, 8, 8, 1))
        for _ in range(3):
            model(x)
        model.eval()
        with no_grad():
            np.testing.assert_allclose(model(x[:1]).data, model(x).data[:1], atol=1e-12)


def test_a_width_that_does_not_halve_is_refused_as_a_height_is():
    for f in (lambda: ops.wavelet(np.ones((12, 2)), (4, 3)), lambda: WaveletMix(2, (4, 3))):
        with pytest.raises(ValueError, match="1 levels needs a grid divisible by 2, got 4×3"):
            f()
