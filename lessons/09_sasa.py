# %% [markdown]
# # 09 · SASA: what if attention had no V?
#
# SSA asks with Q, matches with K and answers with V. SAFormer (arXiv 2412.13553) drops V: what matches also
# answers, and keys are first added up into fewer. No code was published: the equations are *our reading*.
# The library has three readings; the most literal one, Pool, is taken apart here.
#
#     Y = LIF( s/r² · (Q K_Aᵀ) K_A )        K_A: K summed over cells of r×r tokens of the grid
#
# The attention neuron, LIF, fires at 0.5, as SSA's does.

# %%
from collections import Counter
from functools import partial

import numpy as np

from data_utils.images.digits import load_digits
from lessons.common import wake
from minispike import LIF, Tensor, check_grads, create_model, lif, no_grad, trace
from minispike.blocks.sasa import SASA, Channel, Global, Pool
from minispike.blocks.ssa import SSA, attend, split_heads
from minispike.measure import viz

# %% [markdown]
# ## By hand
# One head on 4×4 tokens, so K_A has n = 4 rows. Nothing is multiplied: q is 0 or 1, so a weight is a sum of
# counts; and since K_A is a count too, the weight is added once for every spike that was counted.

# %%
rng, s = np.random.default_rng(9), 0.125
Q, K = (rng.random((2, 3, 16, 6)) < 0.3).astype(float)  # [T, N, d] each
cell = [row // 2 * 2 + column // 2 for row in range(4) for column in range(4)]  # of each token
K_A, current = np.zeros((3, 4, 6)), np.zeros((3, 16, 6))
for t, token, c in np.ndindex(*K.shape):
    if K[t, token, c]:
        K_A[t, cell[token], c] += 1
for t, i, j in np.ndindex(3, 16, 4):
    weight = 0
    for c in range(6):
        if Q[t, i, c]:
            weight += K_A[t, j, c]
    for c in range(6):
        for _ in range(int(K_A[t, j, c])):
            current[t, i, c] += weight
by_hand = lif(s / 4 * current, v_threshold=0.5).data
assert np.array_equal(current, Q @ K_A.mT @ K_A)  # .mT: the last two axes change places
print("K_A, first step:", *K_A[0].astype(int), f"  current: {current.min():.0f} … {current.max():.0f}")

# %% [markdown]
# ## The library gives the same, and so do the other two readings
# Global adds up all keys, and q chooses channels. In Channel a token's queries decide if its key passes.

# %%
q, k = (Tensor(a[:, None, None]) for a in (Q, K))  # [T, B, h, N, d]
twins = {
    "Pool": (Pool((4, 4), 2, s), by_hand),
    "Global": (Global(s), lif(s * Q * K.sum(1, keepdims=True), v_threshold=0.5).data),
    "Channel": (Channel(), lif(Q.sum(-1, keepdims=True), v_threshold=0.5).data * K),
}
for reading, twin in twins.values():
    assert np.array_equal(reading(q, k).data[:, 0, 0], twin) and 0 < twin.mean() < 1
print(f"library = by hand, exactly, in all three readings: {', '.join(twins)}")

# %% [markdown]
# ## The gradient, derived
# K_A stands in the product twice, and the product rule gives it a term for each place. With G the gradient of
# the neuron's current, and for s/r² = 1:
#
#     gQ = G K_Aᵀ K_A        gK_A = (Q K_Aᵀ)ᵀ G + (G K_Aᵀ)ᵀ Q        gK[token] = gK_A[cell of the token]

# %%
G = rng.standard_normal(Q.shape)
leaves = [Tensor(a[:, None, None], requires_grad=True) for a in (Q, K)]
k_a = twins["Pool"][0].sums(leaves[1])
attend(leaves[0], k_a, k_a).backward(G[:, None, None])
terms = (Q @ K_A.mT).mT @ G, (G @ K_A.mT).mT @ Q  # [T, n, d] each
gQ, gK = (leaf.grad[:, 0, 0] for leaf in leaves)
gap = max(abs(gQ - G @ K_A.mT @ K_A).max(), abs(gK - sum(terms)[:, cell]).max())
half = abs(gK - terms[0][:, cell]).max()
assert gap < 1e-12 and half > 1
print(f"gQ, gK: derived − autograd {gap:.0e}; with one of gK_A's two terms forgotten {half:.0f}")
smooth = dict(neuron=partial(LIF, smooth=True, detach_reset=False))
mixer = SASA(12, 3, Pool((4, 4), **smooth), rng=0, **smooth)
check_grads(mixer, rng.integers(0, 3, (4, 2, 16, 12)).astype(float), *mixer.parameters())
print(f"check_grads: SASA's input and all {len(mixer.parameters())} parameters agree")

# %% [markdown]
# ## Why s/r², and what happens without
# At firing rate p, SSA's current is s·N·d·p³ on average. A row of K_A is r² times as strong, stands there
# twice, and there are r² times fewer: r² times SSA's current. Dividing by r² gives it back, but for a small
# excess: in its own channel K_A meets itself, and E[K_A²] is more than E[K_A]², by Var(K_A) = r²p(1 − p). Of
# d channels that is (1 − p)/(p·r²·d). Break it: forget r², and the surrogate gradient is out of reach.

# %%
p, d = 0.2, 32
qs, ks, vs = (Tensor((rng.random((1, 200, 1, 64, d)) < p).astype(float)) for _ in range(3))
ssa = attend(qs, ks, vs).data.mean()
for r in (1, 2, 4, 8):
    k_a = Pool((8, 8), r).sums(ks)
    product = attend(qs, k_a, k_a).data
    excess, derived, alive = product.mean() / r**2 / ssa - 1, (1 - p) / (p * r**2 * d), []
    for scale in (s / r**2, s):
        leaf = Tensor(scale * product, requires_grad=True)
        lif(leaf, v_threshold=0.5).backward(np.ones_like(product))
        alive.append(abs(leaf.grad).mean())
    assert abs(excess - derived) < 0.005 and (r == 1 or alive[1] < alive[0] / 20) and alive[0] > 0.2
    shown = f"scaled by s/r² {alive[0]:.3f}, by s {alive[1]:.4f}"
    print(f"r = {r}: input {excess:+.1%}, derived {derived:+.1%}; mean |gradient| {shown}")

# %% [markdown]
# ## What it costs
# (Q K_Aᵀ) K_A takes 2·N·n·D multiply-accumulates, Q (K_Aᵀ K_A) takes (N + n)·d·D; `attend` chooses. The first
# grows with N² as long as r stays, the second with N, as the paper promises. But so does SSA's Q (Kᵀ V): with
# many tokens 3/8 of the products are saved, not an order. The larger part is V's map, which is not there.


# %%
def spent(module, N):  # million multiply-accumulates: in products, in maps
    macs = Counter()

    def look(function, inputs, output, path):
        if hasattr(function, "cost"):
            macs[function.name] += function.cost(*(x.shape for x in inputs)) / 1e6

    with no_grad(), trace(look):
        module(np.ones((1, 1, N, 384)))
    return macs["MatMul"], macs["MatMulAdd"]


sizes, costs = [16, 64, 256, 1024], {"SSA": [], "SASA": []}
for N in sizes:
    costs["SSA"].append(spent(SSA(384, 12, rng=0), N))
    costs["SASA"].append(spent(SASA(384, 12, Pool((int(N**0.5),) * 2), rng=0), N))
    before, after = (cost[-1] for cost in costs.values())
    assert np.isclose(after[0] * 1e6, min(2 * N * N // 4, 32 * (N + N // 4)) * 384)
    shown = f"products {before[0]:.2f} → {after[0]:.2f}, whole mixer {sum(before):.1f} → {sum(after):.1f}"
    print(f"N = {N:>4}, SSA → SASA, million operations: {shown}")
    assert 0.73 < sum(after) / sum(before) < 0.75
assert np.isclose(after[0] / before[0], 5 / 8) and np.allclose(after, np.multiply(4, costs["SASA"][-2]))

# %% [markdown]
# ## Channel passes nearly everything
# With τ = 2 one spike among a token's d queries lifts the membrane to ½, the threshold, at least; without one
# it falls. The neuron is an OR, without memory. On digits (untrained, gain 3) nearly every token has a spike.

# %%
images, model = load_digits()[0][0][:64], create_model("spikformer_1_64_digits", rng=3)
wake(model, images)
spikes = viz.spikes_of(model, images)
q, k, v = (split_heads(Tensor(spikes[f"blocks.0.mixer.{x}.neuron"]), 4) for x in "qkv")
asked = q.data.sum(-1, keepdims=True)  # [T, B, h, N, 1], spikes among d = 16
assert np.array_equal(Channel()(q, k).data, (asked > 0) * k.data) and (asked > 0).mean() > 0.95
passed = (asked > 0).mean()
print(f"Channel on digits: {passed:.1%} of the tokens pass, having {asked.mean():.1f} query spikes")

# %% [markdown]
# ## What is lost
# The same q, k, v. Y's current is Q M, in SSA with M = KᵀV; without V, M = K_Aᵀ K_A is symmetric: as loudly
# as channel a calls b, b calls a. And a head's answers are mixtures of n rows. Take the two steps one by one:
# K for V without aggregation (r = 1), then cells (r = 2).

# %%
k_a, singular = Pool((4, 4)).sums(k), {}
for name, match, answer in (("SSA", k, v), ("K for V, r = 1", k, k), ("SASA, r = 2", k_a, k_a)):
    M, current = match.data.mT @ answer.data, attend(q, match, answer).data
    one_way, rank = np.linalg.norm(M - M.mT) / np.linalg.norm(M), np.linalg.matrix_rank(current)
    singular[name] = np.linalg.svd(current, compute_uv=False).mean((0, 1, 2))
    assert (one_way == 0) == (name != "SSA") and (rank.max() <= 4) == (name == "SASA, r = 2")
    print(f"{name:<15} rank of a head's current: mean {rank.mean():.1f}; |M − Mᵀ| / |M| {one_way:.2f}")

# %% [markdown]
# ## The figure

# %%
fig, axes = viz.figure(2, 2, size=(10, 7.6))
keys, counts, cost, spectrum = axes.flat
at, order = (1, 2, 0), np.argsort(cell, kind="stable")  # time step, digit, head
for ax, values, cmap, top in ((keys, k.data[at][order], "Greys", 1), (counts, k_a.data[at], "Oranges", 6)):
    ax.imshow(values, cmap=cmap, aspect="auto", interpolation="nearest", vmin=0, vmax=top)
    ax.set(xlabel="channel", xticks=range(0, 16, 3))
keys.hlines([3.5, 7.5, 11.5], -0.5, 15.5, color=viz.ORANGE)
keys.set(title="keys K, one head, cell by cell", ylabel="token", yticks=range(16), yticklabels=order)
for (i, c), count in np.ndenumerate(k_a.data[at]):
    counts.text(c, i, f"{count:.0f}", ha="center", va="center")
counts.set(title="$K_A$: the spikes of each 2×2 cell, counted", ylabel="cell", yticks=range(4))
for (name, table), color, n in zip(costs.items(), (viz.BLUE, viz.ORANGE), (1, 4), strict=True):
    products, maps = np.transpose(table)
    cost.loglog(sizes, maps, "--", color=color, label=f"{name}: maps")
    cost.loglog(sizes, products, "o-", color=color, label=f"{name}: products")
    cost.loglog(sizes, 2 * np.square(sizes) / n * 384e-6, ":", color=color, label="in the first order")
cost.set(title="a mixer's cost, D = 384", xlabel="tokens N", ylabel="million operations", ylim=(0.02, 9e4))
cost.set_xticks(sizes, sizes)
cost.legend(frameon=False, loc="upper left", ncols=2)
for (name, values), color in zip(singular.items(), (viz.BLUE, viz.GREY, viz.ORANGE), strict=True):
    shown = values[: 4 if name == "SASA, r = 2" else 16] / values[0]  # the others are rounding
    spectrum.semilogy(range(1, len(shown) + 1), shown, "o-", color=color, label=name)
spectrum.set(title="a head's current: 4 cells, rank 4", xlabel="i, of the singular value $σ_i$")
spectrum.set(ylabel="$σ_i / σ_1$", xticks=range(1, 17, 3))
spectrum.legend(frameon=False)
viz.save(fig, "09_sasa")

# %% [markdown]
# ## What was shown
# Attention without V is sums of sums: whole numbers, a gradient term for each place of K_A, s/r² to hold the
# neuron's input. A quarter of the mixer's cost is gone, that of V's map. What went with V is direction, M is
# symmetric; what went with aggregation is rank. Can a convolution give diversity back? Lesson 10 measures.
#
# ## Exercises (solutions: lessons/solutions/09_sasa.py)
#
# ★ Predict: cells of 2×2, d = 32. At which number of tokens do both orders cost the same? Set `N_equal`.
#
#     assert 2 * N_equal * (N_equal // 4) == 32 * (N_equal + N_equal // 4) and N_equal % 4 == 0 < N_equal
#
# ★★ Re-derive: choose `tau` so that Channel's neuron, at rest, needs two spikes among a token's queries.
#
#     assert not passes(1, tau) and passes(2, tau)
#
# ★★★ From the paper: AG is a down-sampling, so places inside a cell are lost. Find an `order` of the 16
# tokens of a 4×4 grid in which no key stays in place, yet Pool answers alike to `moved = k[..., order, :]`.
#
#     assert (order != np.arange(16)).all() and np.array_equal(pool(q, moved).data, pool(q, k).data)
