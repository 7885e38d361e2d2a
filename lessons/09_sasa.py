# %% [markdown]
# # 09 · SASA: what if attention had no V?
#
# Spiking self-attention (SSA, lesson 03) compares queries Q with keys K and answers with values V. SAFormer
# (arXiv 2412.13553) leaves V out: the keys are also the answers, and they are first summed into fewer keys.
# Its name is spike-aggregated self-attention, SASA. No code was published, so the equations are our
# *interpretation*. The library has three interpretations, and this lesson takes the most literal one apart:
#
#     Pool       I = s/r² · (Q K_Aᵀ) K_A        Y = LIF(I)
#
# Q and K are the spikes of one head, [N, d] at each time step: N tokens, d channels. The tokens lie on a
# grid. K_A [n, d] holds the sum of K over each *cell* of r×r tokens, so n = N/r². I is the current of the
# attention neuron, which fires at 0.5, as in SSA. s is SSA's scale, 1/8. As in SSA, Q and K each come from a
# map of their own, with batch norm and neurons behind it, and one more such map follows Y.
#
# You will be able to compute SASA by additions alone, derive its gradient, and say what it saves and what it
# loses against SSA. It needs lessons 00 to 04. Fifteen minutes to read, and fifteen seconds to run; notation
# and glossary: [NOTATION.md](NOTATION.md).

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
# One head, three time steps, 4×4 tokens and cells of 2×2, so K_A has four rows. Nothing is multiplied. An
# entry of Q K_Aᵀ, a weight, is a sum of counts, over the channels in which q is 1. A row of K_A is a row of
# counts, too, so the weight is added once for each spike that was counted.

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
# ## The library gives the same, in all three interpretations
# The other two need no products of matrices:
#
#     Global     I = s · Q ⊙ Σ K        the sum of all keys, one number for each channel, where q is 1
#     Channel    Y = LIF(Σ Q) · K       the sum of a token's queries; where LIF fires, the token's key passes
#
# In Global the sum runs over the tokens, and ⊙ multiplies entry by entry. In Channel the sum runs over the
# channels, and Y contains the keys as they are. Channel is the token attention of QKFormer (arXiv
# 2403.16552).

# %%
q, k = (Tensor(a[:, None, None]) for a in (Q, K))  # [T, B, h, N, d]
twins = {
    "Pool": (Pool((4, 4), 2, s), by_hand),
    "Global": (Global(s), lif(s * Q * K.sum(1, keepdims=True), v_threshold=0.5).data),
    "Channel": (Channel(), lif(Q.sum(-1, keepdims=True), v_threshold=0.5).data * K),
}
for aggregate, twin in twins.values():
    assert np.array_equal(aggregate(q, k).data[:, 0, 0], twin) and 0 < twin.mean() < 1
print(f"library = by hand, exactly, in all three interpretations: {', '.join(twins)}")

# %% [markdown]
# ## The gradient, derived
# K_A appears twice in the product, and the product rule gives a term for each place. Let L be the loss, and
# leave the factor s/r² out:
#
#     ∂L/∂Q   = (∂L/∂I K_Aᵀ) K_A
#     ∂L/∂K_A = (Q K_Aᵀ)ᵀ ∂L/∂I  +  (∂L/∂I K_Aᵀ)ᵀ Q
#     ∂L/∂K   at a token is ∂L/∂K_A at the token's cell, because a sum passes its gradient to every summand
#
# In the code, G is a random ∂L/∂I. The line below also shows the error that one forgotten term makes.

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
print(f"∂L/∂Q, ∂L/∂K: derived − autograd {gap:.0e}; with one term of ∂L/∂K_A forgotten {half:.0f}")
smooth = dict(neuron=partial(LIF, smooth=True, detach_reset=False))
mixer = SASA(12, 3, Pool((4, 4), **smooth), rng=0, **smooth)
check_grads(mixer, rng.integers(0, 3, (4, 2, 16, 12)).astype(float), *mixer.parameters())
print(f"check_grads: SASA's input and all {len(mixer.parameters())} parameters agree")

# %% [markdown]
# ## Why s/r², and what happens without it
# Let each entry of Q, K and V be 1 with probability p. SSA's current is then s·N·d·p³ on average. In SASA, an
# entry of K_A is r² times larger on average and appears twice, and there are r² times fewer rows. Together
# this gives r² times SSA's current, so Pool divides by r².
#
# A small excess is left. A channel of K_A also meets itself, and the mean of a square is larger than the
# square of the mean, by the variance: r²·p·(1 − p) for a sum of r² entries. One of d channels has this
# excess, so relative to SSA's current it is (1 − p)/(p·r²·d). The lines below compare this with a draw.
#
# Break it: forget the r². The current is then far above the threshold, where the surrogate's slope is nearly
# 0, and the gradient nearly vanishes.

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
# The product can be computed in two orders, because no softmax stands between its factors. In one layer with
# D = h·d channels, (Q K_Aᵀ) K_A takes 2·N·n·D multiply-accumulates and Q (K_Aᵀ K_A) takes (N + n)·d·D. The
# library takes the cheaper one. With a fixed r, the first grows with N² and the second with N. The paper
# promises a cost that grows with N.
#
# But SSA can do the same: Q (Kᵀ V) takes 2·N·d·D. With n = N/4, SASA's second order takes 1.25·N·d·D, which
# is 5/8 of it. SASA saves more by leaving out the map to V: one of four maps with D² weights.


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
# With τ = 2, one spike among a token's d queries lifts the membrane by ½, which is the threshold: the neuron
# fires. Without a spike the membrane stays at 0. So Channel's neuron computes "at least one query spike", and
# it has no memory, because each spike resets it. On digits (an untrained model with gain 3) nearly every
# token of every head has at least one query spike.
#
# A warning that belongs here: in the published code of QKFormer, the last neuron of *another* layer, its SSA,
# gets arrays whose first axis holds time and batch together, T·B steps. This neuron carries its membrane from
# one image to the next, so a result depends on the neighbours in the batch. A user reports that the accuracy
# of the published weights falls from 78.7 to 74.2 % when the axes are mended (issue 14 of its repository).
# Accuracy did not show the error; a test does, and `neighbours` below asks you to write it.

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
# Give SSA and SASA the same q, k and v. In both, each row of the current is a row of Q times a d×d matrix M.
# In SSA, M = KᵀV. Without V it is M = K_Aᵀ K_A, which is symmetric: if a query spike in channel a adds m to
# output channel b, then one in channel b adds m to channel a. SSA's M has a direction. Aggregation takes
# more: each answer of a head is a sum of n rows of K_A, so the current has rank n at most. The lines below
# separate the two steps: first K in the place of V, without aggregation (r = 1), then with cells (r = 2).

# %%
k_a, singular = Pool((4, 4)).sums(k), {}
for name, match, answer in (("SSA", k, v), ("K as V, r = 1", k, k), ("SASA, r = 2", k_a, k_a)):
    M, current = match.data.mT @ answer.data, attend(q, match, answer).data
    one_way, rank = np.linalg.norm(M - M.mT) / np.linalg.norm(M), np.linalg.matrix_rank(current)
    singular[name] = np.linalg.svd(current, compute_uv=False).mean((0, 1, 2))
    assert (one_way == 0) == (name != "SSA") and (rank.max() <= 4) == (name == "SASA, r = 2")
    print(f"{name:<15} rank of a head's current: mean {rank.mean():.1f}; |M − Mᵀ| / |M| {one_way:.2f}")

# %% [markdown]
# ## The figure
# - Top left: the keys of one head, in the order of the cells; orange lines separate the cells. Look at the
#   token numbers: a cell has tokens of two rows of the grid, for example 0, 1, 4 and 5.
# - Top right: K_A, the spikes of each cell counted. Look at one column and add up the spikes on the left.
# - Bottom left: the cost of one layer against the number of tokens. Look at the dashed lines, the maps: they
#   lie far above the products, so the missing map saves most. The dotted lines show the first order, (Q K_Aᵀ)
#   K_A, which grows with N².
# - Bottom right: the singular values of a head's current, relative to the largest one. Look at where the
#   lines end: SASA has four, as many as cells, and the others have sixteen.

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
# What if attention had no V? It still works with counts and additions, and its gradient has one term for each
# place of K_A. A layer costs 74 to 75 % of SSA's, because one of four maps is gone. What goes with V is
# direction: M becomes symmetric. What goes with aggregation is rank: 4 instead of about 15 in a head of the
# digits model.
#
# Does the accuracy suffer? On digits SASA has 99.1 % and SSA 98.5 % (three seeds, standard error of the
# difference 0.4 points; lesson 10 prints the record). On Fashion-MNIST, SAFormer has 91.15 % and Spikformer
# 91.27 %, a difference of 0.12 ± 0.12 points by images and ± 0.22 by seeds (benchmarks/README.md). So no loss
# is visible. But on digits a model that mixes nothing has 98.9 %, so these numbers say little about
# attention. Lesson 10 asks whether a convolution brings back what was lost, and lesson `16_pairs` has a task
# that needs mixing.
#
# ## Five questions (answers: lessons/solutions/09_sasa.py)
#
# 1. Cells have 2×2 tokens and d = 32. At which number of tokens N do the two orders of SASA's product cost
#    the same? Which one is cheaper for more tokens?
# 2. Which τ lets Channel's neuron, starting at rest, pass a token only if it has two query spikes? Does a
#    token with one query spike at every step ever pass then?
# 3. The gradient of K_A has two terms. When are they equal?
# 4. Why does Pool's output not change if two cells of keys change places? In SSA, what would have to move
#    together with the keys?
# 5. Pool's excess over SSA's current is (1 − p)/(p·r²·d). Why does the excess get smaller for larger cells,
#    although a cell's variance gets larger?
#
# ## Practice
#
#     python -m lessons.practice 09_sasa
#
# ★ `sums`: sum the keys over the cells of a grid.
#
# ★★ `order`: find an order of 16 keys in which no key keeps its place and Pool answers the same.
#
# ★★ `neighbours`: write the test that finds a neuron whose steps run over the batch.
#
# ★★★ `pool`: the current of Pool and its gradients, with both terms.
