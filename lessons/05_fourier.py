# %% [markdown]
# # 05 · Fourier: can a fixed transform replace attention?
#
# Spiking self-attention (SSA) decides for each image which tokens exchange information. The attention-free
# Spikformer (arXiv 2308.02557) mixes all images in the same way, by a fixed transform without weights. This
# lesson builds its Fourier version and shows what the transform mixes, what it costs and what it loses.
#
# You will be able to write the transform with sines and cosines, say which half of a signal it loses, and
# derive its gradient. It needs lessons 00 to 04. Fifteen minutes to read, and fifteen seconds to run;
# notation and glossary: [NOTATION.md](NOTATION.md).

# %%
import numpy as np

from data_utils.images.digits import load_digits
from lessons.common import recorded, wake
from minispike import LIF, Function, Spiking, check_grads, create_model, no_grad, ops
from minispike.blocks.fourier import FourierMix
from minispike.measure import viz

# %% [markdown]
# ## By hand
# X [N, D] holds N tokens with D channels each. (Each time step and each image is transformed by itself, so
# the axes of time and batch are left out here.) The Fourier transform multiplies X by a complex matrix F_N:
#
#     F_N[k, n] = e^(−2πi·kn/N) / √N        k, n = 0 … N − 1; i² = −1; the factor 1/√N preserves lengths
#
# A neuron needs real numbers, and the papers do not say which ones it gets. We take the real part, then batch
# norm (BN) and the neuron (LIF): Mixer(X) = LIF(BN(Re(F_N X))). This is our *interpretation*. The real part
# of F_N is a matrix of cosines, C_N. Its imaginary part is −S_N, where S_N holds the sines.
#
#     1-D, along the tokens                   Re(F_N X)     = C_N X
#     2-D, along the tokens and channels      Re(F_N X F_D) = C_N X C_D − S_N X S_D
#
# The second line is the rule cos(a + b) = cos a cos b − sin a sin b. The loops below sum cosines one by one.

# %%
rng = np.random.default_rng(5)
BOTH = "tokens and channels"  # the axes of the 2-D transform
X = rng.integers(0, 3, (8, 6)).astype(float)  # [N, D], integers as in a block
one, two = np.zeros((8, 6)), np.zeros((8, 6))
for k, c in np.ndindex(8, 6):
    for n in range(8):
        one[k, c] += np.cos(2 * np.pi * k * n / 8) / 8**0.5 * X[n, c]
        for m in range(6):
            two[k, c] += np.cos(2 * np.pi * (k * n / 8 + c * m / 6)) / 48**0.5 * X[n, m]


def waves(wave, N):
    return wave(2 * np.pi * np.outer(np.arange(N), np.arange(N)) / N) / N**0.5  # [N, N]


C8, S8 = waves(np.cos, 8), waves(np.sin, 8)
C6, S6 = waves(np.cos, 6), waves(np.sin, 6)
gap = [abs(ops.fourier(X).data - one).max(), abs(ops.fourier(X, BOTH).data - two).max()]
assert max(gap) < 1e-13 and np.allclose(one, C8 @ X) and np.allclose(two, C8 @ X @ C6 - S8 @ X @ S6)
print(f"library − loops: 1-D {gap[0]:.0e}, 2-D {gap[1]:.0e}")

# %% [markdown]
# ## What it mixes, and what it saves
# Output k contains token n unless the cosine of 2πkn/N is zero. That happens only where kn, divided by N,
# leaves the remainder N/4 or 3N/4. So nearly every output sees nearly every token.
#
# One expects the gain to be speed: the fast Fourier transform needs N·D·log₂N operations, and attention's two
# products need 2·N²·D. But SSA also has four maps with D×D weights, for queries, keys, values and output.
# Most of what Fourier saves is these maps. The lines below count multiply-accumulates (MACs) in one layer of
# the model for CIFAR. (At so few tokens, NumPy is faster with a plain product, so the library uses C_N X.)
#
# And in seconds? In that whole model a training step is 27 % faster than with SSA and the inference 26 %
# (benchmarks/README.md, two cores). The paper claims 29 … 51 % and 61 … 70 %.

# %%
eye = np.eye(16)
C = ops.fourier(eye).data  # the library's own matrix, column by column, for the digits' 16 tokens
met = int((abs(C) > 1e-12).sum())
N, D = 64, 384
maps, pairs = 4 * N * D * D / 1e6, 2 * N * N * D / 1e6
fast, plain = N * D * np.log2(N) / 1e6, N * N * D / 1e6
assert met == 208 and pairs < 0.08 * (maps + pairs) and fast < pairs / 20
print(f"16 tokens: {met} of 256 weights are not zero. N = {N}, D = {D}, million MACs: four maps {maps:.1f},")
print(f"  (Q Kᵀ) V {pairs:.1f} ({pairs / (maps + pairs):.1%}); Fourier fast {fast:.2f}, C_N X {plain:.1f}")

# %% [markdown]
# ## What it cannot carry
# Count the tokens backwards: token n takes the place of token −n (mod N). Token 0 stays where it is, token 1
# changes places with token N − 1, token 2 with N − 2, and so on. (On the digits' 4×4 grid this is not a
# mirror image. Tokens are numbered row by row, so token 1, in the first row, meets token 15, in the last.)
#
# Call the result R X. The even part (X + R X)/2 does not change when it is counted backwards; the odd part
# (X − R X)/2 changes its sign. A cosine is even, so C_N times the odd part is 0: the odd part is lost. The
# sines are odd, so F_N times the even part is real, and F_N preserves lengths: the even part comes through
# whole.
#
# The rank of the transform is therefore the number of values that an even signal can choose freely. In 1-D
# and for even N, tokens 0 and N/2 stay where they are, and the other N − 2 form pairs with one value each:
# rank 2 + (N − 2)/2 = N/2 + 1. (For odd N only token 0 stays: (N + 1)/2.) In 2-D, position (n, m) meets
# (−n, −m). If N and D are even, four positions stay: rank 4 + (N·D − 4)/2 = (N·D + 4)/2.


# %%
def backwards(x, axes=(-2,)):
    return np.roll(np.flip(x, axes), 1, axes)  # n -> −n (mod N) along each of the axes


plane = ops.fourier(np.eye(128).reshape(128, 16, 8), BOTH).data.reshape(128, 128)
rank = [int(np.linalg.matrix_rank(matrix)) for matrix in (C, plane)]
assert rank == [16 // 2 + 1, (16 * 8 + 4) // 2]
X = rng.standard_normal((16, 8))
odd, even = (X - backwards(X)) / 2, (X + backwards(X)) / 2
left = [np.linalg.norm(ops.fourier(part).data) / np.linalg.norm(part) for part in (odd, even)]
assert left[0] < 1e-14 and abs(left[1] - 1) < 1e-14
print(f"rank: 1-D {rank[0]} of 16 = N/2 + 1, 2-D {rank[1]} of 128 = (N·D + 4)/2")
print(f"length after / before: odd part {left[0]:.0e}, even part {left[1]:.6f}")

# %% [markdown]
# ## What the residual restores
# A block adds the mixer's output to its input. Leave BN and LIF out for a moment: X ↦ X + C X. The odd part
# passes unchanged, because C X does not contain it. Some even signals are lost instead. On even signals C
# equals F, and applying C twice gives the signal back, so each eigenvalue there is 1 or −1. The nine of them
# sum to the trace of C, which is 1: five are 1, and four are −1. An eigenvector with the eigenvalue −1 is
# erased by the sum, so 16 − 4 = 12 dimensions remain. A factor γ in front of C, for example batch norm's
# gain, mends this unless it is 1 or −1.
#
# Next comes the whole mixer, with BN and LIF, on a digit's tokens and on the same tokens counted backwards.
# (The models are untrained; batch norm's gain is raised to 3 so that there are spikes.)

# %%
rank = [int(np.linalg.matrix_rank(eye + gain * C)) for gain in (1, 0.5)]
assert np.allclose(odd + ops.fourier(odd).data, odd) and rank == [12, 16] and np.isclose(np.trace(C), 1)
print(f"X + C X: odd part unchanged, rank {rank[0]} of 16; X + ½ C X: rank {rank[1]}")
(images, labels), _ = load_digits()


def awake(name):
    model = create_model(name, rng=3, dtype="float64")
    wake(model, images[:64].astype(float))
    return model.eval()


free, ssa = awake("attention_free_fft1d_1_64_digits"), awake("spikformer_1_64_digits")
with no_grad():
    tokens = free.stem(images[None, :8].astype(float), T=4).data  # [T, B, N, D], integers 0, 1, 2
    mixed, mixed_back = (free.blocks[0].mixer(x).data for x in (tokens, backwards(tokens)))
differ = (mixed != mixed_back).mean(), (tokens + mixed != backwards(tokens) + mixed_back).mean()
assert differ[0] == 0 and differ[1] > 0.1 and mixed.mean() > 0.05
print(f"tokens counted backwards: {differ[0]:.0%} of the mixer's spikes differ,", end=" ")
print(f"and {differ[1]:.0%} of the values of X + Mixer(X)")

# %% [markdown]
# How much of a digit is lost? Measure it by the energy: the sum of squares of all values, ‖X‖². The energy of
# the even part is ‖even‖² = (‖X‖² + ⟨X, R X⟩)/2, where ⟨·, ·⟩ multiplies value by value and sums. The tokens
# are counts, never negative, so ⟨X, R X⟩ >= 0: at least half of the energy comes through.


# %%
def survives(x, axes=(-2,)):
    return np.square((x + backwards(x, axes)) / 2).sum() / np.square(x).sum()


share = {"1-D, digits": survives(tokens), "2-D, digits": survives(tokens, (-2, -1))}
share["1-D, noise"] = survives(rng.standard_normal(tokens.shape))
energy = np.square(ops.fourier(tokens).data).sum() / np.square(tokens).sum()
assert abs(energy - share["1-D, digits"]) < 1e-12 and min(share.values()) > 0.5
print("energy that comes through:", "; ".join(f"{name} {part:.1%}" for name, part in share.items()))

# %% [markdown]
# ## The gradient, derived
# Let L be the loss and Y = A X a linear map. Its gradient is ∂L/∂X = Aᵀ ∂L/∂Y, because ⟨A X, G⟩ = ⟨X, Aᵀ G⟩
# for every X and G. C_N and S_N are symmetric: exchanging k and n changes nothing. So
#
#     1-D    ∂L/∂X = C_N ∂L/∂Y
#     2-D    ∂L/∂X = C_N ∂L/∂Y C_D − S_N ∂L/∂Y S_D
#
# The backward pass is the forward pass again. Check it twice: by ⟨A X, G⟩ = ⟨X, A G⟩, and by finite
# differences, for the transform alone and for the brick LIF(BN(·)) with a smooth neuron.

# %%
x, g = rng.standard_normal((2, 4, 2, 6, 8))  # [T, B, N, D] each
for axes in ("tokens", BOTH):
    ahead, back = (ops.fourier(x, axes).data * g).sum(), (x * ops.fourier(g, axes).data).sum()
    assert abs(ahead - back) < 1e-12
    check_grads(lambda x, axes=axes: ops.fourier(x, axes), x)
    brick = Spiking(FourierMix(8, axes), LIF(smooth=True, detach_reset=False))
    check_grads(lambda x, brick=brick: brick(x), x, *brick.parameters())
    print(f"{axes}: ⟨A X, G⟩ = {ahead:.10f}, ⟨X, A G⟩ = {back:.10f}; check_grads agrees")

# %% [markdown]
# ## Break it
# Here are four backward passes that sound right, for six tokens.
# - The real part of the inverse transform is C_N again, so this one is right. The reason that sounds good is
#   wrong, though: C_N has no inverse.
# - NumPy's inverse has a factor 1/N by default. With it the gradient is too small by √N.
# - The sine matrix is the part that was thrown away.
# - Rows 4 and 5 of C_6 equal rows 2 and 1. Leaving them out loses a part of the gradient.

# %%
claims = {
    "inverse, orthonormal": lambda g: np.fft.ifft(g, axis=-2, norm="ortho").real,
    "inverse, default scale": lambda g: np.fft.ifft(g, axis=-2).real,
    "the sine matrix": lambda g: S6 @ g,
    "only rows 0 … 3": lambda g: np.vstack([C6[:4], 0 * C6[4:]]) @ g,
}


class Claimed(Function):
    def forward(self, x, *, claim):
        self.claim = claim
        return C6 @ x

    def backward(self, gy):
        return self.claim(gy)


verdict = {}
for name, claim in claims.items():
    try:
        check_grads(lambda x, claim=claim: Claimed.apply(x, claim=claim), x)
        verdict[name] = "accepted"
    except AssertionError:
        verdict[name] = "refused"
    error = np.linalg.norm(claim(g) - C6 @ g) / np.linalg.norm(C6 @ g)
    print(f"{verdict[name]}: {name}, error {error:.0%} of the gradient's length")
assert list(verdict.values()) == ["accepted", "refused", "refused", "refused"]

# %% [markdown]
# ## A matrix for every image, or one for all
# Both mixers multiply the tokens by an N×N matrix. SSA computes its matrix Q Kᵀ from the image; Fourier's
# matrix C is the same for every image. To see it, read C off the transform's answers: give one token of a
# digit one more spike, and note how each output changes. Then compare two digits, and compare SSA's matrices
# for the same two digits (the sum over the heads).

# %%
pair = tokens[1, [2, 3]]  # [2, N, D]: two digits at the second time step
fixed = []
for x in pair:
    one_more = x + eye[:, :, None]  # [N, N, D]: copy n has one more spike in token n, in every channel
    answers = ops.fourier(one_more).data - ops.fourier(x).data
    fixed.append(answers[..., 0].T)  # [N, N]: row k, column n
counts = viz.attention_map(viz.spikes_of(ssa, images[:8].astype(float)), "blocks.0.mixer", 4)
dynamic = counts[1, [2, 3]].sum(1)  # over heads: [2, N, N]
differ = [np.linalg.norm(b - a) / np.linalg.norm(a) for a, b in (fixed, dynamic)]
assert np.allclose(fixed[0], C) and differ[0] < 1e-12 and differ[1] > 0.2
change = f"Fourier {differ[0]:.0e}, SSA {differ[1]:.0%}"
print(f"from a {labels[2]} to a {labels[3]} the matrix changes by: {change}")

# %% [markdown]
# ## Can it replace attention? The record
# The same small model was trained on all digits with each mixer and three seeds. Two rows are controls:
# "identity" mixes nothing (BN and LIF alone), and "random" mixes by one fixed random matrix. The standard
# error of a difference is estimated from how much seeds differ, taken together over all rows.

# %%
runs = recorded("mixers")
if runs:
    points = {name: np.array([100 * run["test_accuracy"] for run in of]) for name, of in runs.items()}
    variance = np.mean([each.var(ddof=1) for each in points.values()])
    error = (2 * variance / len(points["ssa"])) ** 0.5
    gains = {name: each.mean() - points["ssa"].mean() for name, each in points.items()}
    shown = ", ".join(f"{name} {gains[name]:+.1f}" for name in ("fft1d", "fft2d", "identity"))
    print(f"  points above SSA: {shown}; standard error of a difference {error:.1f}")
    assert abs(gains["fft1d"] - gains["identity"]) < 2 * error  # Fourier cannot be told from no mixing

# %% [markdown]
# ## The figure
# - Top left: the tokens of a digit, integers 0, 1 and 2. Look at the rows: they differ from one another.
# - Top middle: the transform of these tokens. Look at rows 1 and 15, or 2 and 14: they are equal, because the
#   odd part is gone. Row 0 is the sum over tokens, and it is so large that its colour is cut off.
# - Top right: the share of energy in the even part, which comes through (blue), and in the odd part, which is
#   lost (orange). Look at the digits: they keep more than random numbers with mean 0 do.
# - Bottom left and middle: SSA's matrix Q Kᵀ for two digits. Look for differences: they are everywhere.
# - Bottom right: Fourier's matrix C. It belongs to both digits. Column n equals column 16 − n.

# %%
fig, axes = viz.figure(2, 3, size=(12, 7))
viz.heat(axes[0, 0], pair[0], "a digit's tokens X", cmap="Greys", xlabel="channel", ylabel="token n")
mixed = ops.fourier(pair[0]).data
title = "Re(F X), row k = row 16 − k (cut at ±1.5)"
image = viz.heat(axes[0, 1], mixed, title, cmap="RdBu_r", xlabel="channel")
image.set_clim(-1.5, 1.5)
axes[0, 1].set(ylabel="frequency k")
bars = np.array(list(share.values()))
axes[0, 2].bar(list(share), bars, color=viz.BLUE)
axes[0, 2].bar(list(share), 1 - bars, bottom=bars, color=viz.ORANGE)
for i, part in enumerate(bars):
    axes[0, 2].text(i, part / 2, f"even\n{part:.0%}", ha="center", va="center", color="white")
    axes[0, 2].text(i, (1 + part) / 2, f"odd\n{1 - part:.0%}", ha="center", va="center", color="white")
axes[0, 2].set(title="the even part comes through", ylabel="share of the energy")
for ax, matrix, i in zip(axes[1], dynamic, (2, 3), strict=False):
    viz.heat(ax, matrix, f"SSA: Q Kᵀ of a {labels[i]}", xlabel="key token", ylabel="query token")
    ax.images[0].set_clim(0, dynamic.max())
    above = ax.inset_axes((0.86, 1.02, 0.14, 0.14), xticks=[], yticks=[])
    above.imshow(images[i, ..., 0], cmap="gray_r")
    above.set_in_layout(False)
    ax.set_title(ax.get_title(), y=1.0)  # next to the digit, not above it
viz.heat(axes[1, 2], C, "Fourier: C, for both", cmap="RdBu_r", xlabel="token n", ylabel="frequency k")
viz.save(fig, "05_fourier")

# %% [markdown]
# ## What was shown
# Can a fixed transform replace attention? On digits, yes: with 1-D Fourier the model reaches 98.6 %, with 2-D
# Fourier 99.1 %, and with SSA 98.5 % (three seeds). But without any mixing it reaches 98.9 %, and a
# difference has a standard error of 0.4 points. The stem does the work here, so digits cannot decide. On
# simulated events (Fashion-DVS) SSA has 81.7 %, identity 80.9 %, 1-D Fourier 80.3 % and 2-D Fourier 79.0 %,
# with a standard error of a difference of 0.6 points by images and as much by seeds: no gain over no mixing.
# On Fashion-MNIST, 1-D Fourier is half a point below SSA (90.8 and 91.3 %), two to four standard errors.
# These records are in benchmarks/README.md. Lesson `16_pairs` has a task that cannot be solved without
# mixing: there it shows what a mixer can do.
#
# What is certain is the algebra. The mixer is a matrix of cosines, and it is its own adjoint. It saves SSA's
# four maps more than it saves N². It loses the odd part, and the residual carries that part past it. SSA's
# matrix changes with the image; Fourier's never does.
#
# ## Five questions (answers: lessons/solutions/05_fourier.py)
#
# 1. A model for ImageNet has N = 196 tokens. How many rows of C_196 are independent, and why?
# 2. How many parameters does the model for CIFAR10-DVS (D = 256, two blocks; no bias in the maps to q, k and
#    v) save if SSA is replaced by Fourier? Which parameters does the Fourier mixer still have?
# 3. Why must a digit and the same tokens counted backwards give the same spikes in the mixer, although LIF
#    and BN are not linear? And why do they not give the same block output?
# 4. The backward pass is the forward pass. Is it therefore the inverse? On which signals is it?
# 5. Two Fourier mixers in a row, with no neuron between them, mix hardly at all. What do they compute? Why
#    is a second block with Fourier useful in the network all the same?
#
# ## Practice
#
#     python -m lessons.practice 05_fourier
#
# ★ `rank`: count what the transform keeps, for even and odd N and D, in 1-D and 2-D.
#
# ★★ `mix`: write the 2-D transform with cosines and sines; it then runs in a model, forward and backward.
#
# ★★ `twice`: apply the 1-D transform twice, without any transform.
#
# ★★★ `power`: let the squared length of the complex numbers reach the neuron, and derive the gradient.
