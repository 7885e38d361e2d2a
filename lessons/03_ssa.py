# %% [markdown]
# # 03 · Spiking self-attention: counting coincidences instead of taking a softmax
#
# Attention asks, for every pair of tokens, how well a query matches a key. If q and k are *spikes*, a match
# is a coincidence: a channel in which both fire. Counting coincidences needs no multiplication, and a count
# is never negative. So what is left for the softmax to do? (Spikformer, arXiv 2209.15425, §3.3.)
#
#     Q, K, V = LIF(BN(X W)), each with its own W     Y = LIF(s (Q Kᵀ) V)     SSA(X) = LIF(BN(Y W))
#
# Y is taken head by head, on d of the D channels each; its neuron, the attention neuron, fires at 0.5, not 1.

# %%
from math import prod

import numpy as np

from data_utils.images.digits import load_digits
from lessons.common import wake
from minispike import Tensor, check_grads, create_model, lif, ops
from minispike.blocks.ssa import SSA, attend
from minispike.measure import viz
from minispike.nn import LIF

# %% [markdown]
# ## By hand
# The current of the attention neuron, s (Q Kᵀ) V, for one head and one time step: N = 4 tokens, d = 6
# channels, all 0 or 1. Loops, straight from the equation. Entry (i, j) of Q Kᵀ counts the channels in which
# token i's query and token j's key both fire.

# %%
rng = np.random.default_rng(3)
Q, K, V = (rng.random((3, 4, 6)) < 0.5).astype(float)  # [N, d] each
scale = 0.125
coincidences, current = np.zeros((4, 4)), np.zeros((4, 6))
for i in range(4):
    for j in range(4):
        for c in range(6):
            if Q[i, c] and K[j, c]:
                coincidences[i, j] += 1  # an addition where both fire; nothing is multiplied
        current[i] += coincidences[i, j] * V[j]  # V[j] is 0 or 1: the count is added, or it is not
current *= scale
print("coincidences Q Kᵀ:", *coincidences.astype(int).tolist())

# %% [markdown]
# ## The library gives the same
# `attend` takes [T, B, h, N, d]. Without a softmax in between, the product is associative: (Q Kᵀ) V = Q (Kᵀ
# V). The first costs 2·N²·d multiply-accumulates, the second 2·N·d²: the library takes the cheaper one.

# %%
q, k, v = (Tensor(a[None, None, None]) for a in (Q, K, V))
assert np.array_equal(scale * attend(q, k, v).data[0, 0, 0], current)
left, right = (Q @ K.T) @ V, Q @ (K.T @ V)
assert np.array_equal(left, right)
N, d = 64, 32
costs = f"{2 * N * N * d:,} or {2 * N * d * d:,} multiply-accumulates"
print(f"library = loops, both orders agree, exactly; at N={N}, d={d} they cost {costs}")

# %% [markdown]
# ## The gradient, derived
# With A = Q Kᵀ and G the gradient of the neuron's current, each factor of the product gets G times the other
# factors, transposed:
#
#     gV = s Aᵀ G        gA = s G Vᵀ        gQ = gA K        gK = gAᵀ Q
#
# Compare with what autograd finds, and prove a whole SSA (bricks, heads, neurons and all) in smooth mode,
# in which the spike is the smooth step g and finite differences are allowed.

# %%
G = rng.standard_normal((4, 6))
gV, gA = scale * (Q @ K.T).T @ G, scale * G @ V.T
gQ, gK = gA @ K, gA.T @ Q
leaves = [Tensor(a[None, None, None], requires_grad=True) for a in (Q, K, V)]
(scale * attend(*leaves)).backward(G[None, None, None])
gap = max(abs(leaf.grad[0, 0, 0] - g).max() for leaf, g in zip(leaves, (gQ, gK, gV), strict=True))
assert gap < 1e-12
print(f"gQ, gK, gV: derived and autograd differ by at most {gap:.0e}")


def smooth_neuron(**options):
    return LIF(smooth=True, detach_reset=False, **options)


ssa = SSA(dim=12, num_heads=3, neuron=smooth_neuron, rng=0)
tokens = rng.integers(0, 3, (4, 2, 4, 12)).astype(float)  # [T, B, N, D]
check_grads(lambda x: ssa(x), tokens, *ssa.parameters())
print(f"check_grads: SSA's input and all {len(ssa.parameters())} parameters agree with finite differences")

# %% [markdown]
# ## Next to softmax attention
# Softmax does three things: it makes weights positive, makes them sum to one, and sharpens. Counts give the
# first; s and the threshold replace the second; nothing replaces the third. We compare both on the q and k of
# real digits, taken from the stem and first block of a small Spikformer (untrained, with batch norm's gain
# raised to 3 so that there is something to see).

# %%
(images, _), _ = load_digits()
model = create_model("spikformer_1_64_digits", rng=3)
wake(model, images[:64])
spikes = viz.spikes_of(model, images[:8])
heads = model.blocks[0].mixer.num_heads
counts = viz.attention_map(spikes, "blocks.0.mixer", heads)  # [T, B, h, N, N]
d = 64 // heads


def softmax(x):
    e = ops.exp(x - x.data.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


soft = softmax(Tensor(counts) / d**0.5).data
assert counts.min() >= 0 and np.array_equal(counts, counts.round()) and abs(soft.sum(-1) - 1).max() < 1e-6
zeros = (counts == 0).mean()
assert zeros > 0.2  # many
integers = f"integers {counts.min():.0f} … {counts.max():.0f}"
print(f"Q Kᵀ on a digit: {integers}, {zeros:.0%} are 0; softmax: none is")
size = (4, 1, heads, 16, 16)
print(f"exponentials and divisions for one image: softmax {2 * prod(size):,}, SSA 0")
assert (soft > 0).all()

# %% [markdown]
# ## What the scale does: break it
# At the size of the CIFAR model (N = 64, d = 32) a sum over tokens and channels is large even if only one
# neuron in five fires. The attention neuron fires at 0.5, and its surrogate gradient lives only near that
# threshold: without s the neuron is driven far past it, fires at every step, and nothing can be learned
# through it.

# %%
q, k, v = (rng.random((3, 4, 8, 1, 64, 32)) < 0.2).astype(float)  # [T, B, h, N, d] each
product = attend(q, k, v)
scales = [2.0**e for e in range(-7, 4)]
alive, rate = [], []
for s in scales:
    current = Tensor(s * product, requires_grad=True)
    fired = lif(current, v_threshold=0.5)
    fired.backward(np.ones_like(fired.data))
    alive.append(abs(current.grad).mean())
    rate.append(fired.data.mean())
scaled, unscaled = (scales.index(s) for s in (0.125, 1.0))
for i in (scaled, unscaled):
    print(f"s = {scales[i]}: attention neurons' firing rate {rate[i]:.0%}, mean |gradient| {alive[i]:.4f}")
assert alive[scaled] > 50 * alive[unscaled] and rate[unscaled] > 0.99

# %% [markdown]
# ## The figure
# Over the digit, one token's row of Q Kᵀ: the token is framed in blue; the more orange a place, the more
# coincidences of its query with that place's key.

# %%
fig, axes = viz.figure(2, 3, size=(11, 6.4))
at = (1, 2, 0)  # time step, image, head
viz.raster(axes[0, 0], spikes["blocks.0.mixer.q.neuron"][:, 2, 5], "queries of one token")
viz.heat(axes[0, 1], counts[at], "SSA: coincidences Q Kᵀ", xlabel="key token", ylabel="query token")
viz.heat(axes[0, 2], soft[at], "softmax of the same", xlabel="key token", ylabel="query token")
token = int(counts[at].sum(1).argmax())
viz.attention_over(axes[1, 0], images[2, :, :, 0], counts[at][token], token, "one token looks at the digit")
axes[1, 1].bar(*np.unique(counts, return_counts=True), color=viz.BLUE)
axes[1, 1].set(title="no entry is negative", xlabel="coincidences", ylabel="pairs of tokens", yscale="log")
axes[1, 2].semilogx(scales, alive, base=2, color=viz.BLUE, marker="o", label="mean |gradient|")
axes[1, 2].axvline(0.125, color=viz.GREY, linestyle="--", linewidth=1)
axes[1, 2].semilogx(scales, rate, base=2, color=viz.ORANGE, marker="o", label="firing rate")
axes[1, 2].set(title="the scale keeps the neuron alive", xlabel="scale s")
axes[1, 2].legend(frameon=False, loc="center right")
viz.save(fig, "03_ssa")

# %% [markdown]
# ## What was shown
# Q Kᵀ counts coincidences: exact integers, never negative, many of them zero. So the weights need no softmax
# to be positive; s and the threshold replace their sum of one, and nothing sharpens them. Without softmax the
# product associates and the cheaper order is exact. The scale s keeps the product where the attention neuron
# can still learn.
#
# ## Exercises (solutions: lessons/solutions/03_ssa.py)
#
# ★ Predict: at which width d is (Q Kᵀ) V exactly as expensive as Q (Kᵀ V), for N = 196 tokens? Set
# `d_equal`.
#
#     assert 2 * 196**2 * d_equal == 2 * 196 * d_equal**2 and d_equal > 0
#
# ★★ Re-derive: the attention neuron starts at V = 0, has τ = 2 and fires at 0.5. With s = 0.125, how large
# must an entry of (Q Kᵀ) V be for a spike at the first step? Set `needed`.
#
#     assert fires(0.125 * needed) and not fires(0.125 * (needed - 1))
#
# ★★★ From the paper: SSA's output goes through LIF(BN(Linear)). Show that the order of the tokens does not
# matter to SSA: write `permuted_equally(mixer, x, order)`, True if permuting tokens before is permuting
# after; for a Fourier mixer (lesson 05) it must say False.
#
#     assert permuted_equally(ssa, x, order) and not permuted_equally(fourier, x, order)
