# %% [markdown]
# # 06 · Wavelets: averages and differences as a mixer
#
# In attention every token can meet every other token. A wavelet compares neighbours only: what do they share
# (an average), and how do they differ (a difference)? The attention-free Spikformer (arXiv 2308.02557) puts
# such a transform in the place of attention: LIF(BN(W X)), where the matrix W is fixed and has no trained
# weights. No code was published; which wavelets, and how many levels, is our *interpretation*. This lesson
# asks what such a mixer reaches, what it misses, and what its gradient is.
#
# You will be able to write Haar's wavelet, say how far a mixer reaches, and say why a gradient is a transpose
# and not an inverse. It needs lessons 00 to 05. Fifteen minutes to read, and fifteen seconds to run; notation
# and glossary: [NOTATION.md](NOTATION.md).

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
# A pair of values (u, v) becomes an average (u + v)/√2 and a difference (u − v)/√2. With √2 in place of 2
# the energy stays: the sum of the two squares is u² + v². Do so with the pairs of every row, and write the
# averages in the first half of the row and the differences in the second half. Then do the same with every
# column. This is one *level* of Haar's wavelet (1910). The next level repeats it in the upper left quarter,
# which holds the averages of averages. The results are called coefficients.


# %%
def pairs(line):  # [n] -> [n]
    couples = [(line[k], line[k + 1]) for k in range(0, len(line), 2)]
    return [(u + v) / 2**0.5 for u, v in couples] + [(u - v) / 2**0.5 for u, v in couples]


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
# A family of wavelets is given by two short lists of numbers, its *taps*: one list for averages and one for
# differences. Haar's are (1, 1)/√2 and (1, −1)/√2; other families have more taps. They form a matrix A. Each
# row gives one coefficient, and the next row has the taps two places further on. At the end of the line they
# go on at its beginning (periodization). For a grid X, one level is A X Aᵀ: Aᵀ acts along the rows, A along
# the columns.
#
# The library must agree with the loops for Haar, and with PyWavelets for every family. PyWavelets returns the
# four quarters: LL (averages twice), HL (differences along a row), LH (along a column) and HH (both).

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
# ## What it reaches
# A transform is linear, so it is a matrix W [N, N] over the tokens. Transform the N unit vectors, and the
# columns of W appear. (Each channel is transformed by itself.) A coefficient *sees* the tokens where its row
# of W is not 0.
#
# Haar with one level mixes 2×2 neighbours and nothing else. With more levels, some coefficients see more, but
# three quarters of them still see only 2×2 tokens. The real part of Fourier (lesson 05) sees half of the
# tokens or more with every output. It pays with its rank: 33 of 64. Haar loses nothing: its rank is 64.
#
# Depth adds reach. Haar moves its results: the averages of the pairs (0, 1), (2, 3), … are written next to
# each other, so the next Haar compares values that came from different pairs. Three Haar transforms in a row
# on 8×8 tokens see everything, with weights ±1/8, and still lose nothing: they are a Walsh–Hadamard
# transform. (In a network, neurons and residuals come between them.)

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
# Let L be the loss, y = W x, and g = ∂L/∂y. The gradient ∂L/∂x is the vector with ⟨W x, g⟩ = ⟨x, ∂L/∂x⟩ for
# every x, so it is Wᵀ g. Textbooks call W the analysis and its inverse W⁻¹ the synthesis, and the synthesis
# may seem to be the natural backward pass. For an *orthogonal* family, W⁻¹ = Wᵀ, and both are right. For a
# *biorthogonal* family they differ.
#
# Break it: give eight families their inverse as backward, and let finite differences decide. The lines also
# print how far ⟨W x, g⟩ and ⟨x, ∂L/∂x⟩ are apart, relative to their usual size, √64 = 8.


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
# bior1.1 and rbio1.1 pass, because they are Haar under another name. The error of bior2.2 is not rounding:
# the two numbers in its message differ by half.
#
# ## A learned mixture of wavelets
# The paper's DWT-C combines a few transforms, y = Σ_i a_i W_i x, and learns only the weights a_i. With
# g = ∂L/∂y, the product rule gives
#
#     ∂L/∂a_i = ⟨g, W_i x⟩        ∂L/∂x = Σ_i a_i W_iᵀ g
#
# In the code, ga and gx are these two gradients, and gy is g.

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
# ## What it costs, and what it demands
# Spiking self-attention (SSA) computes its matrix Q Kᵀ from each image, with four maps that have weights. A
# wavelet has the same matrix for every image and no weights. It demands something else: the grid must be
# divisible by 2 at every level. A grid of 14×14 tokens (ImageNet) can be halved once, but not twice.
# PyWavelets then extends the grid without a word and returns more coefficients than there are tokens. This
# library raises an error instead.

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
# - Top left and middle: a photograph, and two levels of Haar (the colour shows the square root of the size).
#   Look at the upper left corner: it is the photograph again, smaller, and it holds nearly all the energy.
#   The other parts show edges: along a row (right), along a column (below), and both.
# - Top right: rows of W, drawn as pictures: each is the gradient of one coefficient. Look at haar: its
#   pictures are an average and three differences. bior2.2 is symmetric, which orthogonal families with more
#   taps cannot be.
# - Bottom left and middle: the spikes of a digit in one channel of a stem with 8×8 tokens, and their
#   coefficients. Look at the upper left quarter: it has the digit's shape; the other quarters are mostly
#   small. (The stem is untrained, with gain 3 so that it fires.)
# - Bottom right: the error of both backward passes. Look at the lower three families: the inverse (orange) is
#   wrong by a large part of the whole. (PyWavelets' sym4 is orthogonal up to 1e-12 only, hence its bar.)

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
# Haar's averages and differences mix tokens without a weight, and nothing is lost, since W Wᵀ = 1. What do
# they reach? One level reaches 2×2 tokens, more levels reach further in a quarter of the coefficients, and
# three transforms in a row reach all 64. What do they miss? Tokens that are far apart, and everything that
# depends on the image: W never changes. The backward pass is the transpose for every family, and the inverse
# for orthogonal ones alone.
#
# Does that suffice in the place of attention? On digits Haar has 98.8 % and the learned mixture 99.2 %, SSA
# 98.5 %, and no mixing at all 98.9 % (three seeds, standard error of a difference 0.4 points; lesson 05
# prints the record). So the digits cannot decide. On simulated events (Fashion-DVS, benchmarks/README.md)
# Haar has 80.0 %, SSA 81.7 % and no mixing 80.9 %. Lesson `16_pairs` has a task that cannot be solved
# without mixing; its two digits lie far apart, which is where a local mixer should have trouble.
#
# ## Five questions (answers: lessons/solutions/06_wavelet.py)
#
# 1. All 8×8 tokens hold a 1. Which coefficients of three levels of Haar are not 0, and what is their value?
# 2. The inverse of bior2.2 is the transpose of another family, its *dual*. Which one? Why is the dual of the
#    dual bior2.2 again?
# 3. Fourier needs N·log₂N operations. How many does Haar need with as many levels as the grid allows, as a
#    multiple of N?
# 4. Spikes are 0 or 1. Which values can a coefficient of one level of Haar have? Why is BN needed behind it
#    before a neuron with threshold 1?
# 5. Apply three transforms of Haar in a row (one level each) to 8×8 tokens, and then the same three again.
#    What comes out, and why? Is the same true of one transform with three levels?
#
# ## Practice
#
#     python -m lessons.practice 06_wavelet
#
# ★ `haar`: write one level of Haar's wavelet, without loops over places.
#
# ★★ `taps`: fill the matrix A of any family, with periodization.
#
# ★★ `backward`: send a gradient back through several levels of Haar.
#
# ★★★ `mixture`: write the learned mixture and both of its gradients.
