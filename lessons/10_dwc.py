# %% [markdown]
# # 10 · DWC: what the depthwise convolution gives back
#
# SAFormer's attention (SASA, lesson 09) has no V, and its tokens become alike. To restore the diversity of
# the features, SAFormer (arXiv 2412.13553) adds a depthwise convolution module, DWC. This lesson builds the
# module, measures diversity with and without it, and asks two questions: where does the diversity come from,
# and does it help? No code was published. That DWC acts on K, has no bias and ends in batch norm (BN) and
# neurons (LIF) is our *interpretation*:
#
#     DWC(K)  = LIF(BN(DepthwiseConv(K)))        K: the keys, spikes [T, B, N, D]; Y: the attention's spikes
#     SASA(X) = LIF(BN((Y + DWC(K)) W))          W: the last map of the mixer, D×D weights
#
# You will be able to write a depthwise convolution and its gradients, measure how much tokens differ, and say
# why such a measure does not replace an accuracy over seeds. It needs lessons 00 to 04 and 09. Fifteen
# minutes to read, and half a minute to run, with three short trainings; notation and glossary:
# [NOTATION.md](NOTATION.md).

# %%
import sys
from functools import partial

import numpy as np

from data_utils.images.digits import load_digits
from lessons.common import recorded, train_on_digits
from minispike import LIF, Tensor, check_grads, create_model, lif, no_grad, ops
from minispike.blocks.dwc import DWC
from minispike.blocks.ssa import merge_heads
from minispike.measure import viz

# %% [markdown]
# ## By hand, forward and backward
# The tokens are laid out on their grid, x [H, W, C], here 4×4 tokens with 6 channels. Each channel c has a
# kernel of its own, w [k, k, C] with k = 3. The output at (row, column) sums nine inputs: entry (i, j) of the
# kernel, a *tap*, multiplies the input that lies i − 1 rows below and j − 1 columns to the right. Outside the
# grid there are zeros. The channels never meet.
#
#     y[row, column, c] = Σ_ij x[row + i − 1, column + j − 1, c] · w[i, j, c]
#
# The chain rule follows every tap back. Let L be the loss. Each tap adds a term to two gradients:
#
#     ∂L/∂x[row + i − 1, column + j − 1, c] += ∂L/∂y[row, column, c] · w[i, j, c]
#     ∂L/∂w[i, j, c]                        += ∂L/∂y[row, column, c] · x[row + i − 1, column + j − 1, c]
#
# In the code, gx, gw and gy are these gradients.

# %%
rng = np.random.default_rng(10)
x, gy = (rng.random((4, 4, 6)) < 0.4).astype(float), rng.standard_normal((4, 4, 6))  # [H, W, C]
w = rng.standard_normal((3, 3, 6))  # [k, k, C]
y, gx, gw = np.zeros_like(x), np.zeros_like(x), np.zeros_like(w)
for row, column, i, j in np.ndindex(4, 4, 3, 3):
    below, right = row + i - 1, column + j - 1
    if 0 <= below < 4 and 0 <= right < 4:
        for c in range(6):
            if x[below, right, c]:
                y[row, column, c] += w[i, j, c]  # a spike adds a weight: nothing is multiplied
                gw[i, j, c] += gy[row, column, c]
            gx[below, right, c] += gy[row, column, c] * w[i, j, c]
leaves = [Tensor(a, requires_grad=True) for a in (x, w)]
out = ops.depthwise_conv2d(*leaves, padding=1)
out.backward(gy)
assert np.array_equal(out.data, y)
gap = max(abs(leaf.grad - g).max() for leaf, g in zip(leaves, (gx, gw), strict=True))

# %% [markdown]
# Next the whole module: convolution, BN with gain 2, LIF. BN takes its mean and variance over time, batch and
# grid together, one of each per channel. The library gives the same spikes, and finite differences agree with
# its gradients (on a grid with H ≠ W, with a smooth neuron).

# %%
tokens = (rng.random((4, 2, 16, 6)) < 0.4).astype(float)  # [T, B, N, D]
block = DWC(6, (4, 4), rng=0)
block.conv.map.weight.data[...] = w
block.conv.norm.weight.data[...] = 2
current = ops.depthwise_conv2d(tokens.reshape(4, 2, 4, 4, 6), w, padding=1).data
every = (0, 1, 2, 3)  # every axis but the channels
normed = 2 * (current - current.mean(every)) / np.sqrt(current.var(every) + 1e-5)
by_hand = lif(normed).data.reshape(tokens.shape)
assert gap < 1e-13 and np.array_equal(block(tokens).data, by_hand) and 0.1 < by_hand.mean() < 0.9
print(f"library = loops, exactly, the module too; ∂L/∂x, ∂L/∂w: loops − autograd {gap:.0e}")

dwc = DWC(6, (4, 2), neuron=partial(LIF, smooth=True, detach_reset=False), rng=0)
check_grads(dwc, rng.standard_normal((4, 2, 8, 6)), *dwc.parameters())
D, k = 384, 3
small, full = DWC(D, (8, 8), k, rng=0).num_params(), k * k * D * D
assert small == k * k * D + 2 * D
print(f"check_grads agrees. D = {D}: {small:,} parameters with BN's; an ordinary convolution has {full:,}")

# %% [markdown]
# ## What is diversity?
# The tokens of one image at one time step are a matrix [N, D], on the digits 16×64. Two numbers say how much
# its rows differ:
#
# - The effective rank exp(−Σ p_i ln p_i). The p_i are the singular values σ_i of the matrix, divided by their
#   sum. It is 1 if all rows are multiples of one row, and 16 if all singular values are equal (Roy & Vetterli
#   2007).
# - The mean cosine of two different tokens; pairs with a silent token are left out. It is 1 if all tokens
#   point in the same direction, and 0 if no two tokens share an active channel.


# %%
def effective_rank(tokens):  # [..., N, D] -> one number, the mean over the leading axes
    sigma = np.linalg.svd(tokens, compute_uv=False)
    p = sigma / sigma.sum(-1, keepdims=True).clip(1e-12)
    return np.exp(-(p * np.log(p.clip(1e-12))).sum(-1)).mean()


def cosines(tokens):  # [..., N, D] -> [..., N, N], nan where a token is silent
    length = np.linalg.norm(tokens, axis=-1, keepdims=True)
    unit = tokens / np.where(length > 0, length, np.nan)
    return unit @ unit.swapaxes(-1, -2)


def alike(tokens):
    return np.nanmean(cosines(tokens)[..., ~np.eye(16, dtype=bool)])


eye, flat = np.eye(16), np.ones((16, 64))
assert np.isclose(effective_rank(eye), 16) and np.isclose(effective_rank(flat), 1)
assert alike(eye) == 0 and np.isclose(alike(flat), 1)

# %% [markdown]
# ## Where does the diversity come from?
# Three models are trained for two epochs each (T = 2, one seed), because the spikes of an untrained model
# mean nothing: SSA, SASA without DWC, and SASA with DWC. In the last one, Y + DWC(K) is compared with Y, with
# Y + K, where the keys are added as they are, and with Y + noise: random spikes, as many as DWC(K) has.

# %%
images = load_digits()[1][0][:120]  # test images
variants = {"SSA": ("spikformer", {}), "SASA": ("saformer", dict(dwc=None)), "SASA + DWC": ("saformer", {})}
tokens, streams, accuracy = {}, {}, []
for variant, (family, options) in variants.items():
    print(f"training {variant}: two epochs", file=sys.stderr)
    model = create_model(f"{family}_1_64_digits", T=2, rng=0, **options)
    accuracy.append(train_on_digits(model, epochs=2, progress=False)[-1]["test_accuracy"])
    spikes, mixer = viz.spikes_of(model, images), "blocks.0.mixer"
    attention = spikes[f"{mixer}.attention" if variant == "SSA" else f"{mixer}.aggregate.attention"]
    tokens[f"{variant}: Y"] = merge_heads(Tensor(attention)).data  # [T, B, N, D]
    K = spikes[f"{mixer}.k.neuron"]
    stem = (spikes["stem.stages.3.neuron"] + spikes["stem.rpe.neuron"]).reshape(K.shape)
    streams[variant] = effective_rank(stem + spikes[f"{mixer}.proj.neuron"])
Y, conv = tokens["SASA + DWC: Y"], spikes[f"{mixer}.dwc.conv.neuron"].reshape(K.shape)
noise = (rng.random(conv.shape) < conv.mean()).astype(conv.dtype)
tokens |= {"DWC(K)": conv, "Y + DWC(K)": Y + conv, "K": K, "Y + K": Y + K, "Y + noise": Y + noise}
rank = {name: effective_rank(a) for name, a in tokens.items()}
cosine = {name: alike(a) for name, a in tokens.items()}
print(f"{', '.join(variants)} after two epochs: {', '.join(f'{a:.1%}' for a in accuracy)} of the test digits")
for name in tokens:
    print(f"  {name:<14} effective rank {rank[name]:4.1f} of 16, mean cosine {cosine[name]:.2f}")
assert rank["Y + DWC(K)"] > 1.5 * rank["SASA + DWC: Y"] and min(accuracy) > 0.7
assert cosine["Y + DWC(K)"] < cosine["SASA + DWC: Y"] - 0.03
assert rank["SSA: Y"] < rank["SASA: Y"] + 1 and rank["DWC(K)"] > rank["K"]
assert rank["Y + DWC(K)"] - rank["Y + K"] < rank["Y + K"] - rank["SASA + DWC: Y"]
assert rank["Y + noise"] > rank["Y + DWC(K)"]

# %% [markdown]
# - The answers of attention are alike, with V (SSA) as much as without V (SASA). So V is no cure.
# - DWC about doubles the effective rank. But adding K itself gives most of this gain. What comes back is
#   mainly K's own diversity, which attention had removed; the convolution adds a little to it.
# - Noise has a higher effective rank than all of them. So diversity is not information.
#
# And was diversity missing at all? The block adds its input X to the mixer's output, and the next layer reads
# this sum. Its effective rank is nearly the same in all three models:

# %%
print("effective rank of the stream X + mixer(X):", ", ".join(f"{v} {r:.1f}" for v, r in streams.items()))
assert max(streams.values()) - min(streams.values()) < 1 < min(streams.values()) - rank["SASA: Y"] - 2

# %% [markdown]
# ## Break it: a kernel of one
# With k = 1 the module still has weights, BN and LIF, but no tap sees a neighbour. At the first time step, an
# output then depends on a single spike of K: its channel is a copy of K's channel, its inverse, or constant.
# No new differences can arise. Compare a new module with k = 1 and a new one with k = 3, on the same K.

# %%
new = {}
for k in (1, 3):
    module = DWC(64, (4, 4), k, rng=0).to(dtype="float32")
    module.conv.norm.weight.data[:] = 2  # as train_on_digits starts
    with no_grad():
        new[k] = module(K).data
before, after = (a[0].reshape(-1, 64) for a in (K, new[1]))
kinds = [(after == before).all(0), (after == 1 - before).all(0), (after == after[0]).all(0)]
rank |= {f"k = {k}, new": effective_rank(a) for k, a in new.items()}
assert np.any(kinds, 0).all() and rank["k = 1, new"] < rank["K"] < rank["k = 3, new"] - 0.5
print("k = 1: {} channels copied, {} inverted, {} constant;".format(*np.sum(kinds, 1)), end=" ")
print(f"effective rank {rank['k = 1, new']:.1f}, K {rank['K']:.1f}, k = 3 {rank['k = 3, new']:.1f}")

# %% [markdown]
# ## Does it help? The record
# These are whole trainings (20 epochs, T = 4) with three seeds. In "identity" the mixer has only BN and LIF:
# no token meets another one. The standard error of a difference is estimated from how much seeds differ,
# taken together over all rows. MACs are multiply-accumulates for one image and one time step.

# %%
runs = recorded("saformer")
if runs:
    for what, digits in (("parameters", ".1f"), ("MACs", ".0f")):
        each = (f"{variant} {of[0][what.lower()] / 1000:{digits}}" for variant, of in runs.items())
        print(f"  10³ {what}: {', '.join(each)}")
    points = {name: np.array([100 * run["test_accuracy"] for run in of]) for name, of in runs.items()}
    variance = np.mean([each.var(ddof=1) for each in points.values()])
    error = (2 * variance / len(points["SSA"])) ** 0.5
    gain = points["SASA + DWC"].mean() - points["SASA"].mean()
    nothing = points["identity"].mean() - points["SSA"].mean()
    print(f"  points: DWC adds {gain:+.1f} to SASA; identity is {nothing:+.1f} above SSA;", end=" ")
    print(f"a difference's standard error is {error:.1f}")
    assert abs(gain) < 2 * error and abs(nothing) < 2 * error  # neither can be told from chance
    size = {variant: each[0]["parameters"] for variant, each in runs.items()}
    assert size["SSA"] - size["SASA"] == 64 * 64 + 3 * 64 and size["SASA + DWC"] - size["SASA"] == 11 * 64

# %% [markdown]
# ## The figure
# All panels show the model SASA + DWC, except the two top bars and the two bottom bars.
# - Top left: Y of one digit, a row for each token (grey: one spike). Look at the columns: few channels fire,
#   and they fire in many tokens.
# - Top middle: Y + DWC(K) of the same digit (black: two spikes). Look at the rows: they differ more.
# - Below these two: the mean cosine of every pair of tokens. Look at the colour off the diagonal: it is
#   darker on the right, so the tokens are less alike.
# - Top right: the singular values σ_i relative to the largest one. Look at the right end: with DWC(K) (blue)
#   the line falls much less than without (orange), and it follows that of K (grey).
# - Bottom right: all effective ranks. Compare the blue bar with Y + K and with Y + noise.

# %%
fig, axes = viz.figure(2, 3, size=(12, 7.2))
names, colors = ["SASA + DWC: Y", "Y + DWC(K)", "K"], [viz.ORANGE, viz.BLUE, viz.GREY]
each = [effective_rank(digit) for digit in Y[1]]  # at the second time step
usual = 1, int(abs(each - rank["SASA + DWC: Y"]).argmin())  # the digit whose rank is nearest to the mean
for (top, below), name in zip(axes[:, :2].T, names, strict=False):
    top.imshow(tokens[name][usual], cmap="Greys", vmin=0, vmax=2, aspect="auto", interpolation="nearest")
    top.set(title=f"{name}, one digit", xlabel="channel", ylabel="token")
    image = below.imshow(np.nanmean(cosines(tokens[name]), (0, 1)), vmin=0.5, vmax=1, aspect="auto")
    below.set(title=f"cosine of two tokens, mean {cosine[name]:.2f}", xlabel="token", ylabel="token")
    below.set(xticks=range(0, 16, 3), yticks=range(0, 16, 3))
fig.colorbar(image, ax=axes[1, 1], shrink=0.85)
for name, color in zip(names, colors, strict=True):
    sigma = np.linalg.svd(tokens[name], compute_uv=False).mean((0, 1))
    axes[0, 2].semilogy(range(1, 17), sigma / sigma[0], "o-", color=color, label=name)
axes[0, 2].set(title="singular values, all digits", xlabel="i", ylabel="$σ_i / σ_1$", xticks=range(1, 17, 3))
axes[0, 2].legend(frameon=False)
bars = axes[1, 2].barh(list(rank), list(rank.values()), color=viz.GREY)
for name, color in zip(names, colors, strict=True):
    bars[list(rank).index(name)].set_color(color)
axes[1, 2].bar_label(bars, fmt="%.1f", padding=3)
axes[1, 2].invert_yaxis()
axes[1, 2].set(xlabel="effective rank", xlim=(0, 16))
viz.save(fig, "10_dwc")

# %% [markdown]
# ## What was shown
# What does the depthwise convolution give back? Diversity: it doubles the effective rank of what SASA's last
# map reads, from 5 to 10. Most of that is K's own diversity; adding K alone gives 9. The neighbours add the
# rest, and with k = 1 there are none. Noise would give 12, so the number says nothing about use, and after
# the residual no difference is left.
#
# Does it help? On digits it adds 0.0 points to SASA (99.1 % with and without, three seeds). But these digits
# could not have shown it: *identity, which mixes nothing, does as well as SSA*, 98.9 against 98.5 %, and the
# standard error of the difference is 0.4 points. The stem has done the work before the mixer begins. On
# simulated events (Fashion-DVS, benchmarks/README.md) SSA has 81.7 %, SASA + DWC 81.2 % and identity 80.9 %,
# which cannot be told apart either. So a comparison of mixers needs a control without mixing, and a task that
# needs mixing. Lesson `16_pairs` has both. Its task: are the two digits on one canvas the same?
#
# ## Five questions (answers: lessons/solutions/10_dwc.py)
#
# 1. How many parameters has a DWC with 5×5 kernels at D = 384? How many of them belong to BN?
# 2. ∂L/∂x is itself a depthwise convolution, of ∂L/∂y. With which kernel?
# 3. Why do some channels of DWC(K) with k = 1 stay constant at the first time step, although K's do not?
# 4. Can tokens have a mean cosine of 0 and an effective rank below 2? Give an example, or say why not.
# 5. A paper reports that a module raises the rank of the features and the accuracy on digits by 0.3 points,
#    with one seed each. Name three controls from this lesson, and what each could show.
#
# ## Practice
#
#     python -m lessons.practice 10_dwc
#
# ★ `reach`: count the outputs that a spike reaches, at each place of the grid.
#
# ★★ `full`: write a depthwise convolution and the map behind it as one ordinary convolution.
#
# ★★ `module`: write DWC(K), from tokens to spikes; it then runs inside a model.
#
# ★★★ `depthwise`: write the convolution and both of its gradients, with taps instead of places.
