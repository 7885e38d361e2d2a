# %% [markdown]
# # 06 · Wavelets: averages and differences as a mixer
#
# Attention asks every token about every other. Suppose a token asks only its neighbour, and only two things:
# what do we share, and where do we differ? The answers can stand in attention's place. They have no
# parameters, they lose nothing, and their gradient is one line. What do they reach, and what do they miss?
# (Attention-free Spikformer, arXiv 2308.02557; which bases and how many levels is our reading.)

# %%
from functools import partial

import numpy as np
import pywt

from data_utils.images.digits import load_digits
from lessons.common import wake
from minispike import Function, Tensor, check_grads, create_model, ops
from minispike.measure import viz
from minispike.ops.transform import analysis

# %% [markdown]
# ## By hand
# A pair (a, b) becomes its average (a + b)/√2 and its difference (a − b)/√2; √2, not 2, so that a² + b² stays
# what it was. Do so in all rows, then in all columns, averages first. The next level goes on with the
# averages of both, the upper left quarter. This is Haar's wavelet, of 1910.


# %%
def pairs(line):  # [n] -> [n]
    couples = [(line[k], line[k + 1]) for k in range(0, len(line), 2)]
    return [(a + b) / 2**0.5 for a, b in couples] + [(a - b) / 2**0.5 for a, b in couples]


def haar(x, levels):  # [H, W] -> [H, W]
    y = x.copy()
    for level in range(levels):
        h, w = (size >> level for size in x.shape)
        for i in range(h):
            y[i, :w] = pairs(y[i, :w])
        for j in range(w):
            y[:h, j] = pairs(y[:h, j])
    return y


rng = np.random.default_rng(6)
spikes = (rng.random((4, 4)) < 0.5).astype(float)  # one channel on a 4×4 grid of tokens
coefficients = haar(spikes, levels=1)
for before, after in zip(spikes.astype(int), coefficients, strict=True):
    print("spikes", *before, "  coefficients", *(f"{c:+.1f}" for c in after))
assert np.allclose(2 * coefficients, (2 * coefficients).round())  # signed halves: no longer spikes

# %% [markdown]
# ## The library gives the same, for any family
# Another family has more taps than (1, 1)/√2. The taps fill a matrix A, one row a coefficient, and go round
# the border (periodization); the 2-D transform of a grid X is A X Aᵀ. PyWavelets gives its four quadrants:
# low or high frequency (L, H), twice.

# %%
X = rng.standard_normal((16, 16))
tokens = X.reshape(256, 1)  # [N, D]
for n in (1, 2, 3):
    assert np.allclose(ops.wavelet(tokens, (16, 16), "haar", n).data[:, 0], haar(X, n).ravel())
short = [name for name in pywt.wavelist(kind="discrete") if pywt.Wavelet(name).dec_len <= 16]
gap = 0
for family in short:
    LL, (LH, HL, HH) = pywt.dwt2(X, family, mode="periodization")
    A = analysis(family, 16)
    for Y in (A @ X @ A.T, ops.wavelet(tokens, (16, 16), family).data.reshape(16, 16)):
        gap = max(gap, abs(Y - np.block([[LL, HL], [LH, HH]])).max())
assert gap < 1e-13
print(f"loops = library at 3 levels; taps = library = PyWavelets in {len(short)} families, to {gap:.0e}")

# %% [markdown]
# ## What it reaches, and what Fourier pays for reaching further
# Transform the N unit tokens, and the whole mixer stands there as a matrix W [N, N]. A coefficient sees the
# tokens where its row is not 0. Haar at one level mixes 2×2 neighbours and nobody else. Levels widen the
# view, but three quarters of the coefficients stay at 2×2. Fourier's real part sees at least half of the
# tokens, and half of the rank is gone.
#
# Depth is a surprise. The coefficients move: averages gather in the upper left, so a second Haar finds other
# neighbours. Three in a row on 8×8 tokens see everything, with weights ±1/8, and still lose nothing: they are
# a Walsh–Hadamard transform. (In a network, neurons and residuals stand between them.)

# %%
grid, unit = (8, 8), np.eye(64)
mixers = {f"haar, levels={n}": ops.wavelet(unit, grid, "haar", n).data for n in (1, 2, 3)}
mixers["db2, levels=1"] = ops.wavelet(unit, grid, "db2").data
mixers["haar three times"] = np.linalg.matrix_power(mixers["haar, levels=1"], 3)
assert all(abs(W @ W.T - unit).max() < 1e-10 for W in mixers.values())  # orthogonal: energy stays
mixers["Fourier, real part"] = ops.fourier(unit).data
expected = [(4, 4, 64), (4, 16, 64), (4, 64, 64), (16, 16, 64), (64, 64, 64), (32, 64, 33)]
for (name, W), numbers in zip(mixers.items(), expected, strict=True):
    seen, rank = (abs(W) > 1e-12).sum(1), np.linalg.matrix_rank(W)
    assert (seen.min(), seen.max(), rank) == numbers
    assert "3" not in name or (seen == 4).mean() == 0.75
    print(f"{name:<18}  sees {seen.min():2} … {seen.max():2} of 64 tokens, rank {rank}")
assert np.allclose(abs(mixers["haar three times"]), 1 / 8)

# %% [markdown]
# ## The gradient is the transpose, always
# y = W x is linear; ⟨W x, gy⟩ = ⟨x, gx⟩ for all x asks for gx = Wᵀ gy. It is tempting to say "the backward of
# an analysis is the synthesis", the inverse. For an orthogonal family W⁻¹ = Wᵀ, and it is. For a biorthogonal
# one it is not. Break it: give a family its inverse as backward, and let finite differences judge.


# %%
class InverseAsBackward(Function):
    """y = W x        gx = W⁻¹ gy: wrong, unless W is orthogonal"""

    def forward(self, x, *, family):
        self.W = ops.wavelet(unit, grid, family).data
        return self.W @ x

    def backward(self, gy):
        return np.linalg.solve(self.W, gy)


families = ["haar", "bior1.1", "rbio1.1", "db2", "sym4", "bior1.3", "bior4.4", "bior2.2"]
kinds = {"transpose": partial(ops.wavelet, grid=grid), "inverse": InverseAsBackward.apply}
error, passed = {kind: [] for kind in kinds}, []
x, gy = rng.standard_normal((2, 64, 200))  # 200 pairs of columns
for kind, transform in kinds.items():
    for family in families:
        f, leaf = partial(transform, family=family), Tensor(x, requires_grad=True)
        y = f(leaf)
        y.backward(gy)
        gaps = (y.data * gy - x * leaf.grad).sum(0)  # ⟨W x, gy⟩ − ⟨x, gx⟩: a difference of products of ±√64
        error[kind].append((gaps**2).mean() ** 0.5 / 8)
        try:
            check_grads(f, x)
            passed.append((kind, family))
        except AssertionError as failure:
            verdict = str(failure)  # at last: bior2.2 with its inverse
assert all(np.allclose(analysis(name, 8), analysis("haar", 8)) for name in ("bior1.1", "rbio1.1"))
good, bad = families[:5], families[5:]
assert passed == [("transpose", f) for f in families] + [("inverse", f) for f in good]
worst, rounding, wrong = max(error["transpose"]), max(error["inverse"][:5]), min(error["inverse"][5:])
assert worst < 1e-14 and rounding < 1e-11 and wrong > 0.1
print(f"Wᵀ as backward: off by {worst:.0e} at most, check_grads passes in all {len(families)} families")
print(f"W⁻¹ as backward: off by {rounding:.0e} at most, passes in {', '.join(good)}")
print(f"W⁻¹ as backward: off by {wrong:.2f} at least, fails in {', '.join(bad)}; bior2.2:")
print(f"  {verdict.split(': ')[1]}")

# %% [markdown]
# bior1.1 and rbio1.1 pass: under the biorthogonal name stands Haar. The error of bior2.2 is no rounding.
#
# ## A learned mixture of bases
# DWT-C, the paper's combination, takes a few bases, y = Σ_i a_i W_i x, and learns only the weights a_i:
#
#     ga_i = ⟨gy, W_i x⟩        gx = Σ_i a_i W_iᵀ gy

# %%
mixture = create_model("attention_free_wavelets_1_64_digits", dtype="float64").blocks[0].mixer.map
a = np.array([0.7, -0.2, 0.4])
mixture.a.data[:] = a
x, gy = rng.standard_normal((2, 16, 64))  # [N, D]
leaf = Tensor(x, requires_grad=True)
mixture(leaf).backward(gy)
W = [ops.wavelet(np.eye(16), basis.grid, basis.family).data for basis in mixture.bases]
ga = (gy * (W @ x)).sum((1, 2))
gx = sum(a_i * W_i.T @ gy for a_i, W_i in zip(a, W, strict=True))
gap = max(abs(mixture.a.grad - ga).max(), abs(leaf.grad - gx).max())
assert gap < 1e-12
print(f"mixture of {', '.join(basis.family for basis in mixture.bases)}: derived − autograd {gap:.0e}")

# %% [markdown]
# ## Fixed bases next to attention
# SSA makes its basis Q Kᵀ anew from every image, and needs four weighted maps for it. A wavelet is the same
# for every image and has no weights. Its price: the grid must be divisible by 2 at every level. A grid of
# 14×14 tokens is divisible once, not twice. PyWavelets pads silently, to more coefficients than tokens; this
# library raises.

# %%
names = {"SSA": "spikformer", "haar": "attention_free_haar", "mixture": "attention_free_wavelets"}
sizes = {kind: create_model(f"{name}_1_64_digits").num_params() for kind, name in names.items()}
assert sizes["haar"] + 3 == sizes["mixture"] < sizes["SSA"]
print("parameters of the digits' model:", ", ".join(f"{kind} {n:,}" for kind, n in sizes.items()))
padded = pywt.ravel_coeffs(pywt.wavedec2(np.ones((14, 14)), "haar", "periodization", level=2))[0].size
try:
    refusal = str(ops.wavelet(np.ones((196, 1)), (14, 14), levels=2))
except ValueError as failure:
    refusal = str(failure)
assert padded > 196 and "divisible by 4" in refusal
print(f"14×14 = 196 tokens, two levels: {padded} coefficients in PyWavelets. In the library:\n  {refusal}")

# %% [markdown]
# ## The figure
# A photograph, and the spikes of a digit's stem (untrained, gain 3, as in lesson 03, on 8×8 tokens), each
# with its analysis. A basis function is a row of W: the gradient of one coefficient. One backward draws it.

# %%
camera = pywt.data.camera() / 255.0  # [512, 512]
picture = ops.wavelet(camera.reshape(-1, 1), camera.shape, levels=2).data.reshape(512, 512)
share = (picture[:128, :128] ** 2).sum() / (picture**2).sum()
assert abs((picture**2).sum() / (camera**2).sum() - 1) < 1e-10 and share > 0.95
print(f"a photograph: {share:.1%} of the energy in 1/16 of the coefficients, the averages of two levels")

model = create_model("attention_free_haar_1_64_digits", pools=(False,) * 4, rng=3)
images = load_digits()[0][0][:64]
wake(model, images)
counts = viz.spikes_of(model, images)["stem.stages.3.neuron"].sum(0)[2].astype(float)  # [8, 8, D]
channel = int(np.tensordot(images[2, :, :, 0], counts, 2).argmax())  # the one most like the digit
analysed = ops.wavelet(counts[..., channel].reshape(64, 1), grid).data.reshape(8, 8)


def basis(family, row, column):  # on 64×64 tokens, three levels deep: coefficients in quadrants of 8×8
    leaf, chosen = Tensor(np.zeros((4096, 1)), requires_grad=True), np.zeros((4096, 1))
    chosen[64 * row + column] = 1
    ops.wavelet(leaf, (64, 64), family, 3).backward(chosen)
    tile = leaf.grad.reshape(64, 64)[9:43, 9:43]
    return np.pad(tile / abs(tile).max(), 1, constant_values=np.nan)


shown = ["haar", "db2", "bior2.2"]
inside = ((3, 3), (3, 11), (11, 3), (11, 11))  # one coefficient of each quadrant: LL, HL, LH, HH
tiles = [[basis(family, row, column) for row, column in inside] for family in shown]
view = abs(picture) ** 0.5  # the root, to see small details
view[:128, :128] /= 2  # averages of two levels are 4 times brighter
fig, axes = viz.figure(2, 3, size=(12, 8))
photo, details, functions, digit, mixed, bars = axes.flat
photo.imshow(camera, cmap="gray")
photo.set_title("a photograph …")
details.imshow(view, cmap="gray", vmax=0.8)
details.set_title(f"… two levels of Haar: {share:.0%} of\nthe energy in the upper left 1/16")
functions.imshow(np.block(tiles), cmap="RdBu_r", vmin=-1, vmax=1)
functions.set_title("basis functions: each the\ngradient of one coefficient")
functions.set_xticks([18, 54, 90, 126], ["LL", "HL", "LH", "HH"])
functions.set_yticks([18, 54, 90], shown)
limit = abs(analysed).max()
image = digit.imshow(counts[..., channel], cmap="Oranges")
fig.colorbar(image, shrink=0.7, ticks=range(5))
digit.set_title("a digit's spikes in 4 steps,\none channel of the stem …")
image = mixed.imshow(analysed, cmap="RdBu_r", vmin=-limit, vmax=limit)
fig.colorbar(image, shrink=0.7)
mixed.set_title("… one level of Haar:\nLL, HL above LH, HH")
bars.barh(np.arange(8) - 0.2, error["transpose"], 0.4, color=viz.BLUE, label="transpose")
bars.barh(np.arange(8) + 0.2, error["inverse"], 0.4, color=viz.ORANGE, label="inverse")
bars.set(xscale="log", xlim=(1e-17, 10), ylim=(7.6, -0.6), xlabel="rms of ⟨W x, gy⟩ − ⟨x, gx⟩, over √64")
bars.set_yticks(range(8), families)
bars.set_title("as backward: is it the gradient?")
bars.legend(frameon=False, loc="upper right")
for ax in (photo, details, digit, mixed):
    ax.set(xticks=[], yticks=[])
viz.save(fig, "06_wavelet")

# %% [markdown]
# ## What was shown
# Averages and differences mix tokens without a weight and without a loss: W Wᵀ = I. One level reaches 2×2
# tokens, more levels more, three in a row all. The backward is the transpose, for every family; it is the
# inverse only for an orthogonal one. A mixture learns how much of each basis it wants.
#
# ## Exercises (solutions: lessons/solutions/06_wavelet.py)
#
# ★ Predict: all 8×8 tokens hold a 1. After three levels of Haar one average is left. Set `corner`.
#
#     assert np.isclose(ops.wavelet(np.ones((64, 1)), (8, 8), "haar", 3).data[0, 0], corner)
#
# ★★ Re-derive: the inverse of bior2.2 is the gradient of another family, its dual: W⁻¹ = W'ᵀ. Why must the
# dual of the dual be bior2.2 again? Name the dual in `dual`.
#
#     assert np.allclose(analysis(dual, 16).T @ analysis("bior2.2", 16), np.eye(16))
#
# ★★★ From the paper: a wavelet takes N² to N log N. Show that Haar, with as many levels as the grid allows,
# costs even less. Write `cost(m)`, in multiply-accumulates, for N = 4^m, and find the smallest `c` with cost
# < c·N for all of them.
#
#     assert all(cost(m) < c * 4**m for m in range(1, 20)) and cost(19) > 0.999 * c * 4**19
