# %% [markdown]
# # 05 · Fourier: can a fixed transform replace attention?
#
# SSA asks every image anew which tokens belong together. The attention-free Spikformer (arXiv 2308.02557)
# does not ask: it mixes tokens by one fixed transform, without a single weight. Here it is the Fourier
# transform, whose values are complex. The papers do not say which real numbers reach the neuron. We take the
# real part of the orthonormal transform, then BN and LIF; this is our *interpretation*. What does it mix,
# what does it lose, and what keeps the part that was lost?

# %%
import numpy as np

from data_utils.images.digits import load_digits
from lessons.common import wake
from minispike import LIF, Function, Spiking, check_grads, create_model, no_grad, ops
from minispike.blocks.fourier import FourierMix
from minispike.measure import viz

# %% [markdown]
# ## By hand
# X is [N, D], tokens by channels. F has the entries e^(−2πi·kn/N)/√N; of each only the cosine is real. In
# two axes the phases add, and cos(a + b) = cos a cos b − sin a sin b: Re(F_N X F_D) = C_N X C_D − S_N X S_D,
# with C the cosines of F, and S the sines.

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
# Most tokens meet directly; a weight is zero only where the cosine is, at k·n = N/4, 3N/4, … (mod N). One
# expects the gain to be N log N instead of N². In fact most of what is saved is SSA's four D×D maps, as a
# layer of the CIFAR model shows:

# %%
eye = np.eye(16)
C = ops.fourier(eye).data  # the library's own matrix, column by column, for the digits' 16 tokens
met = int((abs(C) > 1e-12).sum())
N, D = 64, 384
maps, pairs, fast = 4 * N * D * D / 1e6, 2 * N * N * D / 1e6, N * D * np.log2(N) / 1e6
assert met == 208 and pairs < 0.08 * (maps + pairs) and fast < pairs / 20
print(f"16 tokens: {met} of 256 weights are not zero; N = {N}, D = {D}, in million multiply-accumulates:")
print(f"    four maps {maps:.1f}, (Q Kᵀ) V {pairs:.1f} ({pairs / (maps + pairs):.1%}), Fourier {fast:.2f}")

# %% [markdown]
# ## What it cannot carry
# A cosine is even. Split X = even + odd by the mirror n -> −n (mod N): the even half comes through with its
# length, the odd half becomes zero. The rank counts what is left.


# %%
def mirror(x, axes=(-2,)):
    return np.roll(np.flip(x, axes), 1, axes)  # token n -> −n (mod N); token 0 stays where it is


plane = ops.fourier(np.eye(128).reshape(128, 16, 8), BOTH).data.reshape(128, 128)
rank = [int(np.linalg.matrix_rank(matrix)) for matrix in (C, plane)]
assert rank == [16 // 2 + 1, (16 * 8 + 4) // 2]
X = rng.standard_normal((16, 8))
odd, even = (X - mirror(X)) / 2, (X + mirror(X)) / 2
left = [np.linalg.norm(ops.fourier(part).data) / np.linalg.norm(part) for part in (odd, even)]
assert left[0] < 1e-14 and abs(left[1] - 1) < 1e-14
print(f"rank: 1-D {rank[0]} of 16 = ⌊N/2⌋ + 1, 2-D {rank[1]} of 128 = (ND + 4)/2")
print(f"length after / before: odd part {left[0]:.0e}, even part {left[1]:.6f}")

# %% [markdown]
# ## What the residual restores
# Leave the neuron out: x ↦ x + C x passes the odd part untouched. It is not invertible, though. On even
# signals C undoes itself, so its eigenvalues there are 1 and −1, and at −1 the sum cancels. A gain γ other
# than ±1 breaks the tie, and batch norm has one. Then with everything, on a digit's tokens and their mirror
# (untrained models, gain raised to 3 so that there are spikes; one seed, so one stem).

# %%
rank = [int(np.linalg.matrix_rank(eye + gain * C)) for gain in (1, 0.5)]
assert np.allclose(odd + ops.fourier(odd).data, odd) and rank == [12, 16]
print(f"x + C x: odd part unchanged, rank {rank[0]} of 16; x + ½ C x: rank {rank[1]}")
(images, labels), _ = load_digits()


def awake(name):
    model = create_model(name, rng=3, dtype="float64")
    wake(model, images[:64].astype(float))
    return model.eval()


free, ssa = awake("attention_free_fft1d_1_64_digits"), awake("spikformer_1_64_digits")
with no_grad():
    tokens = free.stem(images[None, :8].astype(float), T=4).data  # [T, B, N, D], integers 0, 1, 2
    mixed, mixed_back = (free.blocks[0].mixer(x).data for x in (tokens, mirror(tokens)))
differ = (mixed != mixed_back).mean(), (tokens + mixed != mirror(tokens) + mixed_back).mean()
assert differ[0] == 0 and differ[1] > 0.1 and mixed.mean() > 0.05
stream = f"the block's stream in {differ[1]:.0%}"
print(f"digit and mirror: the mixer's spikes differ in {differ[0]:.0%}, {stream}")

# %% [markdown]
# How much is lost? ‖even‖² = (‖x‖² + ⟨x, mirror x⟩)/2. Counts are never negative, so at least half survives.


# %%
def survives(x, axes=(-2,)):
    return np.square((x + mirror(x, axes)) / 2).sum() / np.square(x).sum()


share = {"1-D, spikes": survives(tokens), "2-D, spikes": survives(tokens, (-2, -1))}
share["1-D, noise"] = survives(rng.standard_normal(tokens.shape))
energy = np.square(ops.fourier(tokens).data).sum() / np.square(tokens).sum()
assert abs(energy - share["1-D, spikes"]) < 1e-12 and min(share.values()) > 0.5
print("energy that survives:", "; ".join(f"{name} {part:.1%}" for name, part in share.items()))

# %% [markdown]
# ## The gradient, derived
# gx is the adjoint applied to gy: ⟨A x, y⟩ = ⟨x, Aᵀ y⟩. C and S are symmetric, so Aᵀ = A, in 2-D as well:
# backward is forward. Finite differences agree, for the transform and for a brick with a smooth neuron.

# %%
x, y = rng.standard_normal((2, 4, 2, 6, 8))  # [T, B, N, D] each
for axes in ("tokens", BOTH):
    ahead, back = (ops.fourier(x, axes).data * y).sum(), (x * ops.fourier(y, axes).data).sum()
    assert abs(ahead - back) < 1e-12
    check_grads(lambda x, axes=axes: ops.fourier(x, axes), x)
    brick = Spiking(FourierMix(8, axes), LIF(smooth=True, detach_reset=False))
    check_grads(lambda x, brick=brick: brick(x), x, *brick.parameters())
    print(f"{axes}: ⟨A x, y⟩ = {ahead:.10f}, ⟨x, A y⟩ = {back:.10f}; check_grads agrees")

# %% [markdown]
# ## Break it
# Four backward passes that sound right. The inverse transform's real part is C again, so it passes, by luck:
# C has no inverse. NumPy's default scale makes it too small by √N. The sines are what was thrown away. And
# without the mirrored rows, two of six rows of the gradient are missing.

# %%
backwards = {
    "inverse, orthonormal": lambda gy: np.fft.ifft(gy, axis=-2, norm="ortho").real,
    "inverse, default scale": lambda gy: np.fft.ifft(gy, axis=-2).real,
    "the sine matrix": lambda gy: S6 @ gy,
    "no mirrored rows": lambda gy: np.vstack([C6[:4], 0 * C6[4:]]) @ gy,
}


class Claimed(Function):
    def forward(self, x, *, claim):
        self.claim = claim
        return C6 @ x

    def backward(self, gy):
        return self.claim(gy)


verdict = {}
for name, claim in backwards.items():
    try:
        check_grads(lambda x, claim=claim: Claimed.apply(x, claim=claim), x)
        verdict[name] = "passes"
    except AssertionError:
        verdict[name] = "refused"
    error = np.linalg.norm(claim(y) - C6 @ y) / np.linalg.norm(C6 @ y)
    print(f"{verdict[name]}: {name}, error {error:.0%} of the gradient's length")
assert list(verdict.values()) == ["passes", "refused", "refused", "refused"]

# %% [markdown]
# ## Bases, dynamic or fixed
# Both mixers are a matrix over tokens: SSA builds it from the image, Fourier brought it along. Give each
# token of a digit one more spike and read the matrix off the transform's answer. Compare two digits.

# %%
pair = tokens[1, [2, 3]]  # [2, N, D]
fixed = []
for x in pair:
    one_more = x + eye[:, :, None]  # [N, N, D]: copy n has one more spike in token n, in every channel
    answers = ops.fourier(one_more).data - ops.fourier(x).data
    fixed.append(answers[..., 0])  # [N, N]
counts = viz.attention_map(viz.spikes_of(ssa, images[:8].astype(float)), "blocks.0.mixer", 4)
dynamic = counts[1, [2, 3]].sum(1)  # over heads: [2, N, N]
differ = [np.linalg.norm(b - a) / np.linalg.norm(a) for a, b in (fixed, dynamic)]
assert np.allclose(fixed[0], C) and differ[0] < 1e-12 and differ[1] > 0.2
change = f"Fourier {differ[0]:.0e}, SSA {differ[1]:.0%}"
print(f"from a {labels[2]} to a {labels[3]} the matrix changes by: {change}")

# %% [markdown]
# ## The figure

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
axes[0, 2].set(title="the even part survives", ylabel="share of the energy")
for ax, matrix, i in zip(axes[1], dynamic, (2, 3), strict=False):
    viz.heat(ax, matrix, f"SSA: Q Kᵀ of a {labels[i]}", xlabel="key token", ylabel="query token")
    ax.images[0].set_clim(0, dynamic.max())
    above = ax.inset_axes((0.86, 1.02, 0.14, 0.14), xticks=[], yticks=[])
    above.imshow(images[i, ..., 0], cmap="gray_r")
    above.set_in_layout(False)
    ax.set_title(ax.get_title(), y=1.0)  # beside it, not above
viz.heat(axes[1, 2], C, "Fourier: C, for both", cmap="RdBu_r", xlabel="token n", ylabel="frequency k")
viz.save(fig, "05_fourier")

# %% [markdown]
# ## What was shown
# The fixed mixer is a matrix of cosines. It spares SSA's four maps more than it spares N². It is its own
# adjoint, it loses the odd part, and the residual carries that part past it. What it gives up is the
# question: SSA's matrix changes with the image, C never does. What that costs is for a measurement to say.
#
# ## Exercises (solutions: lessons/solutions/05_fourier.py)
#
# ★ Predict: with 196 tokens (ImageNet), how many independent rows has C? Set `rows`.
#
#     assert np.linalg.matrix_rank(ops.fourier(np.eye(196)).data) == rows
#
# ★★ Re-derive: F² is the mirror, F times its conjugate is 1. With F = C − iS, what do two Fourier mixers in
# a row do? Write `twice(x)` without any transform.
#
#     assert np.allclose(ops.fourier(ops.fourier(x)).data, twice(x))
#
# ★★★ From our reading: a transform without parameters replaces SSA, BN and LIF stay. How many parameters does
# that save at width D? Write `saved(D, depth)` for the event models, whose q, k and v have no bias.
#
#     assert saved(256, 2) == attention.num_params() - fourier.num_params()
