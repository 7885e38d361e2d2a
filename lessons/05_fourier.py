# %% [markdown]
# # 05 · Fourier: can a fixed transform replace attention?
#
# SSA asks every image anew which tokens belong together. The attention-free Spikformer (arXiv 2308.02557)
# does not ask: it mixes the tokens by one fixed transform, the same for a cat and a truck, without a single
# weight. The paper leaves open which real numbers a complex transform hands to a neuron. Here it is the real
# part. What does that mix, what does it lose, and who keeps what was lost?

# %%
import numpy as np

from data_utils.digits import load_digits
from minispike import LIF, BatchNorm, Function, Spiking, check_grads, create_model, no_grad, ops, viz
from minispike.blocks.fourier import FourierMix

# %% [markdown]
# ## By hand
# X is [N, D], tokens by channels. F has the entries e^(−2πi·kn/N)/√N; of each only the cosine is real. In
# two axes the phases add, and cos(a + b) = cos a cos b − sin a sin b: Re(F_N X F_D) = C_N X C_D − S_N X S_D.

# %%
rng = np.random.default_rng(5)
N, D = 8, 6
X = rng.integers(0, 3, (N, D)).astype(float)  # [N, D], a stream of tokens holds small integers
one, two = np.zeros((N, D)), np.zeros((N, D))
for k in range(N):
    for c in range(D):
        for n in range(N):
            one[k, c] += np.cos(2 * np.pi * k * n / N) / N**0.5 * X[n, c]
            for m in range(D):
                two[k, c] += np.cos(2 * np.pi * (k * n / N + c * m / D)) / (N * D) ** 0.5 * X[n, m]


def waves(wave, N):
    return wave(2 * np.pi * np.outer(np.arange(N), np.arange(N)) / N) / N**0.5  # [N, N]


C, S = (waves(np.cos, n) for n in (N, D)), (waves(np.sin, n) for n in (N, D))
(C_N, C_D), (S_N, S_D) = C, S
BOTH = "tokens and channels"
gap = [abs(ops.fourier(X).data - one).max(), abs(ops.fourier(X, BOTH).data - two).max()]
assert max(gap) < 1e-13 and np.allclose(one, C_N @ X) and np.allclose(two, C_N @ X @ C_D - S_N @ X @ S_D)
print(f"library − loops: 1-D {gap[0]:.0e}, 2-D {gap[1]:.0e}; so C X, and C X C − S X S")

# %% [markdown]
# ## What it mixes, and what it saves
# Most tokens meet directly: a weight is zero only where the cosine is, at k·n = N/4, 3N/4, … The
# usual sum is N² against N log N. But count a whole layer of the CIFAR model: the N² is a small part of it.
# The transform mainly saves the four D×D maps that make q, k, v and the output.

# %%
C = ops.fourier(np.eye(16)).data  # the library's own matrix, column by column, for the digits' 16 tokens
met = int((abs(C) > 1e-12).sum())
N, D = 64, 384
maps, pairs, fast = 4 * N * D * D, 2 * N * N * D, N * D * np.log2(N)
assert met == 208 and pairs / (maps + pairs) < 0.08 and fast < pairs / 20
print(f"16 tokens: {met} of 256 weights are not zero")
print(f"multiply-accumulates: four maps {maps / 1e6:.1f} M, (Q Kᵀ) V {pairs / 1e6:.2f} M ", end="")
print(f"({pairs / (maps + pairs):.1%}), Fourier {fast / 1e6:.2f} M")
sizes = [
    create_model(f"{name}_4_384_cifar10").num_params() for name in ("spikformer", "attention_free_fft1d")
]
assert sizes == [9324730, 6950074]
print(f"parameters: {sizes[0]:,} -> {sizes[1]:,} ({sizes[1] / sizes[0] - 1:.1%})")

# %% [markdown]
# ## What it cannot carry
# A cosine is even: it looks the same forwards and backwards. Split X = even + odd by the mirror n -> −n (mod
# N): the even half comes through, the odd half becomes zero. The rank counts what is left.

# %%
F2 = ops.fourier(np.eye(16 * 8).reshape(-1, 16, 8), BOTH).data.reshape(128, 128)
rank = [int(np.linalg.matrix_rank(matrix)) for matrix in (C, F2)]
assert rank == [16 // 2 + 1, (16 * 8 + 4) // 2]
print(f"rank: 1-D {rank[0]} of 16 = ⌊N/2⌋ + 1, 2-D {rank[1]} of 128 = (ND + 4)/2")


def mirror(x, axes=(-2,)):
    return np.roll(np.flip(x, axes), 1, axes)  # token n -> −n (mod N); token 0 stays where it is


X = rng.standard_normal((16, 8))
odd, even = (X - mirror(X)) / 2, (X + mirror(X)) / 2
left = [np.linalg.norm(ops.fourier(part).data) / np.linalg.norm(part) for part in (odd, even)]
assert left[0] < 1e-14 and abs(left[1] - 1) < 1e-14
print(f"length after / before: odd part {left[0]:.0e}, even part {left[1]:.6f}")

# %% [markdown]
# ## What the residual restores
# A block adds the mixer to the stream. Take the neuron away: x ↦ x + C x leaves the odd part as it is. It is
# no inverse, though. C is its own undoing on even signals (C² x = x), so it has eigenvalues 1 and −1 there,
# and where it is −1, x + C x cancels. Batch norm's gain γ stands between and breaks the tie: try γ = ½.

# %%
eye = np.eye(16)
rank = [int(np.linalg.matrix_rank(eye + gain * C)) for gain in (1, 0.5)]
assert np.allclose(odd + ops.fourier(odd).data, odd) and rank == [12, 16]
print(f"x + C x: the odd part passes unchanged; rank {rank[0]} of 16; x + ½ C x: rank {rank[1]}")

# %% [markdown]
# Now with everything, on real tokens: a digit and its mirror image (untrained models, gain raised to 3 so
# that there are spikes). SSA's model has the same seed, so the same stem and the same tokens.

# %%
(images, labels), _ = load_digits()


def awake(name):
    model = create_model(name, rng=3, dtype="float64")
    for path, parameter in model.named_parameters():
        if path.endswith("norm.weight"):
            parameter.data[...] = 3
    for _, module in model.named_modules():
        if isinstance(module, BatchNorm):
            module.momentum = 1.0  # one pass in training mode makes the running statistics this batch's
    model(images[:64].astype(float))
    return model.eval()


free, ssa = awake("attention_free_fft1d_1_64_digits"), awake("spikformer_1_64_digits")
with no_grad():
    first = images[None, :8].astype(float)
    tokens = free.stem(first, T=4).data  # [T, B, N, D], integers 0, 1, 2
    assert np.array_equal(tokens, ssa.stem(first, T=4).data)
    mixer = free.blocks[0].mixer
    mixed, mixed_back = mixer(tokens).data, mixer(mirror(tokens)).data
assert np.array_equal(mixed, mixed_back) and mixed.mean() > 0.05
apart = (tokens + mixed != mirror(tokens) + mixed_back).mean()
assert apart > 0.1
print(f"a digit and its mirror: the mixer's spikes differ in 0 %, the block's stream in {apart:.0%}")


def survives(x, axes):
    return np.square((x + mirror(x, axes)) / 2).sum() / np.square(x).sum()


noise = rng.standard_normal(tokens.shape)
share = {"1-D, spikes": survives(tokens, (-2,)), "2-D, spikes": survives(tokens, (-2, -1))}
share["1-D, noise"] = survives(noise, (-2,))
energy = np.square(ops.fourier(tokens).data).sum() / np.square(tokens).sum()
assert abs(energy - share["1-D, spikes"]) < 1e-12 and share["1-D, spikes"] > share["1-D, noise"] > 0.5
print("energy that survives:", ", ".join(f"{name} {part:.1%}" for name, part in share.items()))

# %% [markdown]
# Spikes lose less than noise, for a plain reason: ‖even‖² = (‖x‖² + ⟨x, mirror x⟩)/2, and counts are never
# negative. So at least half survives, always.
#
# ## The gradient, derived
# gx is the adjoint applied to gy: ⟨A x, y⟩ = ⟨x, Aᵀ y⟩. C and S are symmetric, so Aᵀ = A, in 2-D as well: the
# backward pass is the forward pass. First as a sum of two numbers, then by finite differences, alone and in a
# whole brick whose neuron is smooth.

# %%
x, y = rng.standard_normal((2, 4, 2, 6, 8))  # [T, B, N, D] each
for axes in ("tokens", BOTH):
    ahead, back = (ops.fourier(x, axes).data * y).sum(), (x * ops.fourier(y, axes).data).sum()
    assert abs(ahead - back) < 1e-12
    print(f"{axes}: ⟨A x, y⟩ = {ahead:.12f}, ⟨x, A y⟩ = {back:.12f}")
    check_grads(lambda x, axes=axes: ops.fourier(x, axes), x)
    brick = Spiking(FourierMix(8, axes), LIF(smooth=True, detach_reset=False))
    check_grads(lambda x, brick=brick: brick(x), x, *brick.parameters())
print("check_grads: transform and whole brick agree with finite differences, 1-D and 2-D")

# %% [markdown]
# ## Break it
# Four backward passes that sound right. The inverse transform? Its real part is C too, so it passes, but by
# luck: C has no inverse. With NumPy's default scale, 1/N, it is too small by √N. The sines are what the
# transform threw away. And the upper rows alone, without their mirror image, forget half of the gradient.

# %%
C6, S6 = ops.fourier(np.eye(6)).data, waves(np.sin, 6)
backwards = {
    "inverse, orthonormal": lambda gy: np.fft.ifft(gy, axis=-2, norm="ortho").real,
    "inverse, default scale": lambda gy: np.fft.ifft(gy, axis=-2).real,
    "the sine matrix": lambda gy: S6 @ gy,
    "without the mirror": lambda gy: np.vstack([C6[:4], 0 * C6[4:]]) @ gy,
}


class Claimed(Function):
    def forward(self, x, *, backward):
        self.claim = backward
        return C6 @ x

    def backward(self, gy):
        return self.claim(gy)


passed = []
for name, backward in backwards.items():
    try:
        check_grads(lambda x, backward=backward: Claimed.apply(x, backward=backward), x)
        passed.append(name)
    except AssertionError:
        off = np.linalg.norm(backward(y) - C6 @ y) / np.linalg.norm(C6 @ y)
        print(f"refused: {name}, wrong by {off:.0%} of the gradient's length")
assert passed == ["inverse, orthonormal"]

# %% [markdown]
# ## Bases: dynamic or fixed
# Both mixers are a matrix over tokens. SSA builds it from the image; Fourier brought it along. Measure it:
# give each token of a digit one spike more and see what the transform answers. Then compare two digits.

# %%
pair = tokens[1, [2, 3]]  # [2, N, D]
answer = [ops.fourier(t + eye[:, :, None]).data - ops.fourier(t).data for t in pair]  # [N, N, D] each
counts = viz.attention_map(viz.spikes_of(ssa, first[0]), "blocks.0.mixer", 4)[1, [2, 3]].sum(1)  # [2, N, N]
differ = [np.linalg.norm(b - a) / np.linalg.norm(a) for a, b in (answer, counts)]
assert np.allclose(answer[0][:, :, 0], C) and differ[0] < 1e-12 and differ[1] > 0.2
print(f"between two digits the matrix differs by: Fourier {differ[0]:.0e}, SSA {differ[1]:.0%}")

# %% [markdown]
# ## The figure

# %%
fig, axes = viz.figure(2, 3, size=(12, 7))
names = {"xlabel": "channel", "ylabel": "token"}
viz.heat(axes[0, 0], pair[0], "a digit's tokens X: 0, 1, 2", cmap="Greys", **names)
seen = viz.heat(
    axes[0, 1], ops.fourier(pair[0]).data, "Re(F X): rows k and 16 − k agree", cmap="RdBu_r", **names
)
seen.set_clim(-1.5, 1.5)
bars = list(share.values())
axes[0, 2].bar(list(share), bars, color=viz.BLUE, label="even: survives")
axes[0, 2].bar(list(share), [1 - b for b in bars], bottom=bars, color=viz.ORANGE, label="odd: the residual's")
axes[0, 2].set(title="what survives the transform", ylabel="share of the energy", ylim=(0, 1.4))
axes[0, 2].legend(frameon=False, loc="upper center", fontsize=9)
names = {"xlabel": "token", "ylabel": "token"}
for ax, matrix, i in zip(axes[1], counts, (2, 3), strict=False):
    viz.heat(ax, matrix, f"SSA's Q Kᵀ for a {labels[i]}", **names).set_clim(0, counts.max())
    inset = ax.inset_axes((0.72, 0.72, 0.28, 0.28), xticks=[], yticks=[])
    inset.imshow(images[i, :, :, 0], cmap="gray_r")
viz.heat(axes[1, 2], C, "Fourier's C, for both", cmap="RdBu_r", **names)
viz.save(fig, "05_fourier")

# %% [markdown]
# ## What was shown
# The fixed mixer is a matrix of cosines. It spares SSA's four maps more than it spares N². It is its own
# gradient, it loses the odd half, and the residual carries that half past it. What it gives up is the
# question: SSA's matrix changes with the image, C never does. Whether that costs accuracy is a matter of
# measurement, not of principle: the paper finds little or nothing lost.
#
# ## Exercises (solutions: lessons/solutions/05_fourier.py)
#
# ★ Predict: ImageNet's models have 196 tokens. How many independent rows has their C? Set `rows`.
#
#     assert np.linalg.matrix_rank(ops.fourier(np.eye(196)).data) == rows
#
# ★★ Re-derive: F² is the mirror and F times its conjugate is 1. With F = C − iS, what do two Fourier mixers
# in a row do? Write `twice(x)` without any transform.
#
#     assert np.allclose(ops.fourier(ops.fourier(x)).data, twice(x))
#
# ★★★ From the paper: SSA goes, a transform without parameters comes, its BN and LIF stay. How many parameters
# does that save at width D? Write `saved(D, depth)` for the event models, whose q, k and v have no bias.
#
#     assert saved(256, 2) == attention.num_params() - fourier.num_params()
