# %% [markdown]
# # 10 · DWC: what the depthwise convolution gives back
#
# Without V a head's tokens share a few answers (lesson 09). SAFormer (arXiv 2412.13553) adds a depthwise
# convolution module, to restore the diversity of the features. No code was published: that it acts on K, has
# no bias and is followed by BN and LIF is *our reading*. Does it bring diversity? Whose? And does it help?
#
#     SASA(X) = LIF(BN((Y + DWC(K)) W))        DWC(K) = LIF(BN(DepthwiseConv(K)))

# %%
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
# Each channel has its own k×k kernel. At each place of the grid tap (i, j) looks i − 1 rows and j − 1 columns
# away; beyond the border there is silence. Whatever a tap passes forward it passes back the same way:
#
#     y[out] += x[in] · w[i, j]        gx[in] += gy[out] · w[i, j]        gw[i, j] += x[in] · gy[out]

# %%
rng = np.random.default_rng(10)
x, gy = (rng.random((4, 4, 6)) < 0.4).astype(float), rng.standard_normal((4, 4, 6))  # [H, W, C]
w = rng.standard_normal((3, 3, 6))
y, gx, gw = np.zeros_like(x), np.zeros_like(x), np.zeros_like(w)
for p, q, i, j in np.ndindex(4, 4, 3, 3):
    row, column = p + i - 1, q + j - 1
    if 0 <= row < 4 and 0 <= column < 4:
        for c in range(6):
            if x[row, column, c]:
                y[p, q, c] += w[i, j, c]  # a spike lets the weight in: an addition
                gw[i, j, c] += gy[p, q, c]
            gx[row, column, c] += gy[p, q, c] * w[i, j, c]
leaves = [Tensor(a, requires_grad=True) for a in (x, w)]
out = ops.depthwise_conv2d(*leaves, padding=1)
out.backward(gy)
assert np.array_equal(out.data, y)
gap = max(abs(leaf.grad - g).max() for leaf, g in zip(leaves, (gx, gw), strict=True))
tokens = (rng.random((4, 2, 16, 6)) < 0.4).astype(float)  # [T, B, N, D]
block = DWC(6, (4, 4), rng=0)
block.conv.map.weight.data[...] = w
block.conv.norm.weight.data[...] = 2
current = ops.depthwise_conv2d(tokens.reshape(4, 2, 4, 4, 6), w, padding=1).data
every = (0, 1, 2, 3)  # batch norm's axes
normed = 2 * (current - current.mean(every)) / np.sqrt(current.var(every) + 1e-5)
by_hand = lif(normed).data.reshape(tokens.shape)
assert gap < 1e-13 and np.array_equal(block(tokens).data, by_hand) and 0.1 < by_hand.mean() < 0.9
print(f"library = loops, exactly, the block too; gx, gw: derived − autograd {gap:.0e}")

dwc = DWC(6, (4, 2), neuron=partial(LIF, smooth=True, detach_reset=False), rng=0)
check_grads(dwc, rng.standard_normal((4, 2, 8, 6)), *dwc.parameters())
D, k = 384, 3
small, full = DWC(D, (8, 8), k, rng=0).num_params(), k * k * D * D
assert small == k * k * D + 2 * D
print(f"check_grads agrees. D = {D}: {small:,} parameters, with batch norm's; all to all {full:,}")

# %% [markdown]
# ## What is diversity?
# A layer's tokens are a matrix [N, D], 16×64 on the digits. Two numbers say how much its rows differ:
#
# - the effective rank exp(−Σ p_i ln p_i), p_i = σ_i / Σ σ, of the singular values σ: from 1, all rows alike,
#   to 16 (Roy & Vetterli 2007; we do not square);
# - the mean cosine of two tokens, silent ones left out: 1 if all point the same way.


# %%
def effective_rank(tokens):  # [..., N, D] -> one number, the mean over what leads
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
# ## Measured, in models that have learned something
# Three models, two epochs each, so that spikes mean something; T = 2, one seed. Noise is random spikes, as
# many as DWC's.

# %%
images = load_digits()[1][0][:120]  # of the test
variants = {"SSA": ("spikformer", {}), "SASA": ("saformer", dict(dwc=None)), "SASA + DWC": ("saformer", {})}
tokens, streams, accuracy = {}, {}, []
for variant, (family, options) in variants.items():
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
# So: attention's answers are alike, and V is no cure, for SSA's are as much alike as SASA's. DWC about
# doubles the effective rank. But K itself, simply added, gives most of that: what comes back is above all a
# way past attention. And noise gives more still: diversity is not knowledge.
#
# Diversity was never missing: after the last map, neuron and residual, all three models are equally diverse.

# %%
print("effective rank of the stream x + mixer(x):", ", ".join(f"{v} {r:.1f}" for v, r in streams.items()))
assert max(streams.values()) - min(streams.values()) < 1 < min(streams.values()) - rank["SASA: Y"] - 2

# %% [markdown]
# ## Break it: a kernel of one
# k = 1 is still a depthwise module with BN and LIF, but its taps see no neighbour. Give new modules the same
# K. At the first step each channel is a step function of one spike: a copy of K, its inverse, or constant. So
# k = 1 has no more diversity than K had. A 3×3 kernel, as untrained, has more.

# %%
new = {}
for k in (1, 3):
    module = DWC(64, (4, 4), k, rng=0).to(dtype="float32")
    module.conv.norm.weight.data[:] = 2  # the recipe's gain
    with no_grad():
        new[k] = module(K).data
before, after = (a[0].reshape(-1, 64) for a in (K, new[1]))
kinds = [(after == before).all(0), (after == 1 - before).all(0), (after == after[0]).all(0)]
rank |= {f"k = {k}, new": effective_rank(a) for k, a in new.items()}
assert np.any(kinds, 0).all() and rank["k = 1, new"] < rank["K"] < rank["k = 3, new"] - 0.5
print("k = 1: {} channels copied, {} inverted, {} constant; effective rank".format(*np.sum(kinds, 1)))
print(f"  {rank['k = 1, new']:.1f} after k = 1, {rank['K']:.1f} in K, {rank['k = 3, new']:.1f} after k = 3")

# %% [markdown]
# ## Does it help?
# The whole training, T = 4, several seeds; "identity" has only BN and LIF for a mixer. MACs: one time step.

# %%
runs = recorded("saformer")
if runs:
    for what, digits in (("parameters", ".1f"), ("macs", ".0f")):
        each = (f"{variant} {of[0][what] / 1000:{digits}}" for variant, of in runs.items())
        print(f"  10³ {what}: {', '.join(each)}")
    points = {variant: [100 * run["test_accuracy"] for run in each] for variant, each in runs.items()}
    gain = np.mean(points["SASA + DWC"]) - np.mean(points["SASA"])
    spread = max(max(each) - min(each) for each in points.values())
    verdict = "no more than" if abs(gain) <= spread else "more than"
    print(f"  DWC changes SASA by {gain:+.1f} points: {verdict} seeds differ, up to {spread:.1f}")
    size = {variant: each[0]["parameters"] for variant, each in runs.items()}
    assert size["SSA"] - size["SASA"] == 64 * 64 + 3 * 64 and size["SASA + DWC"] - size["SASA"] == 11 * 64

# %% [markdown]
# ## The figure

# %%
fig, axes = viz.figure(2, 3, size=(12, 7.2))
names, colors = ["SASA + DWC: Y", "Y + DWC(K)", "K"], [viz.ORANGE, viz.BLUE, viz.GREY]
each = [effective_rank(digit) for digit in Y[1]]
usual = 1, int(abs(each - rank["SASA + DWC: Y"]).argmin())  # the second step of the most usual digit
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
# A depthwise convolution is additions and one kernel a channel; its gradient goes back tap by tap. It doubles
# the effective rank of what SASA's last map receives. Most of that is K's own diversity, led past attention;
# the neighbours add some, and k = 1 adds none. Noise would add more, and the residual stream shows no
# difference: judge DWC by accuracy, over seeds, as above, and not by its rank.
#
# ## Exercises (solutions: lessons/solutions/10_dwc.py)
#
# ★ Predict: how many parameters has a DWC with 5×5 kernels at D = 384? Set `predicted`.
#
#     assert DWC(384, (8, 8), 5, rng=0).num_params() == predicted
#
# ★★ Re-derive: gx is itself a depthwise convolution of gy, by another kernel. Write `input_gradient(gy, w)`.
#
#     assert np.allclose(input_gradient(gy, w), x.grad)
#
# ★★★ From our reading: DWC(K) then meets the last map W [D, D]. Leave BN and LIF out. The two are one
# ordinary convolution with D² kernels: write them down as `full(w, W)` [k, k, D, D].
#
#     assert np.allclose(ops.conv2d(x, full(w, W), padding=1).data, depthwise @ W)
