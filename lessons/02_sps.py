# %% [markdown]
# # 02 · Spiking patch splitting: how an image becomes spiking tokens
#
# A spiking transformer reads tokens made of spikes. An image is a grid of real numbers, and it stands still.
# The stem, SPS, turns one into the other by four stages (0 … 3) of convolution, batch norm, neuron (the three
# together are a *brick*, of which all else is built, too) and, in some, a max-pool. What does each do to the
# signal and the gradient? (Spikformer, arXiv 2209.15425, §3.2.)

# %%
from functools import partial

import numpy as np

from data_utils.images.digits import load_digits
from minispike import LIF, BatchNorm, Tensor, check_grads, compare, create_model, lif, ops, trace
from minispike.blocks.sps import SPS
from minispike.measure import viz
from minispike.ops import conv, pool

# %% [markdown]
# ## A convolution by hand, and its three gradients
# A 3×3 convolution lays a window over every pixel and adds up nine small products, one for each *tap* (i, j)
# of the window; outside the image there are zeros. Write each window as a row of `cols`, and all is one
# matrix product, with a product's gradients. Only `fold` is new: a pixel collects from every window it is in.
#
#     cols = unfold(x)   [H·W, k·k·C]        y = cols w + b
#     gw = colsᵀ gy        gb = Σ gy         gx = fold(gy wᵀ)        fold is the transpose of unfold

# %%
rng = np.random.default_rng(2)
image, w, b = rng.standard_normal((5, 6, 2)), rng.standard_normal((3, 3, 2, 4)), rng.standard_normal(4)
padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
y, cols = np.zeros((5, 6, 4)) + b, np.zeros((5, 6, 3, 3, 2))  # [H, W, out], [H, W, k, k, C]
for p, q in np.ndindex(5, 6):
    for i, j in np.ndindex(3, 3):
        y[p, q] += padded[p + i, q + j] @ w[i, j]  # [C] @ [C, out]
        cols[p, q, i, j] = padded[p + i, q + j]  # unfold
rows, matrix, gy = cols.reshape(30, 18), w.reshape(18, 4), rng.standard_normal((30, 4))
gcols, folded = (gy @ matrix.T).reshape(cols.shape), np.zeros_like(padded)
for p, q in np.ndindex(5, 6):
    folded[p : p + 3, q : q + 3] += gcols[p, q]  # fold: back to where each window was taken from
derived = folded[1:-1, 1:-1], (rows.T @ gy).reshape(w.shape), gy.sum(0)  # gx (padding cut off), gw, gb
leaves = [Tensor(a, requires_grad=True) for a in (image, w, b)]
out = ops.conv2d(*leaves, padding=1)
out.backward(gy.reshape(out.shape))
gaps = [out.data - y, rows @ matrix + b - y.reshape(30, 4)]
gaps += [leaf.grad - g for leaf, g in zip(leaves, derived, strict=True)]
print(f"conv2d, loops, one product; gx, gw, gb by hand: all within {max(abs(g).max() for g in gaps):.0e}")
assert all(abs(g).max() < 1e-12 for g in gaps)

# %% [markdown]
# ## Why batch norm stands before the neuron
# A neuron fires where its current is large, so somebody must set the scale. Batch norm gives each channel
# mean 0 and variance 1, over T·B·H·W, times a learned *gain* γ that begins at 1. From rest, with τ = 2,
# H[0] = x/2: only x >= 2 fires at once, which is 2.3 % of a normal distribution; less takes longer. With gain
# 2 more do; without batch norm, stage 0 hardly fires, stage 1 never.

# %%
current = np.broadcast_to(rng.standard_normal(10**6), (4, 10**6))  # [T, neurons], the same at every step
by_step = lif(current).data.mean(1)
print("normally distributed current fires at t = 0 … 3:", *(f"{share:.1%}" for share in by_step))
assert abs(by_step[0] - 0.0228) < 0.0005 and by_step[0] == (current[0] >= 2).mean()
images, labels = (array[:64] for array in load_digits()[0])
stems, rates = [], {}
for gain in (1, 1, 2):  # twice the same, for two rules of the pool, and one that fires more
    model = create_model("spikformer_1_64_digits", depth=0, rng=0)  # a stem and a head
    for brick in (*model.stem.stages, model.stem.rpe):
        brick.norm.weight.data[...] = gain
        brick.norm.momentum = 1.0  # one pass in training mode makes the running statistics the batch's
    model(images)
    stems.append((model, viz.spikes_of(model, images)))
    rates[f"gain {gain}"] = [spikes.mean() for spikes in stems[-1][1].values()][:4]
x, rates["no batch norm"] = np.broadcast_to(images, (4, *images.shape)), []  # [T, B, H, W, C]
for brick in stems[0][0].stem.stages:
    x = brick.neuron(brick.map(x))
    rates["no batch norm"].append(x.data.mean())
for what, shares in rates.items():
    print(f"digits, {what}: stages 0 … 3 fire", *(f"{share:.1%}" for share in shares))
low, high, bare = rates.values()
assert bare[0] < 0.01 and bare[1] == 0 and 0.02 < min(low) and max(low) < 0.1 < min(high)

# %% [markdown]
# ## A static image passes the first convolution once
# The image, and so its current, is the same at every step; only the membrane changes. So the first brick
# convolves and normalises once, and repeats the result T times. One number must know of T: the n of the
# running variance, which moves towards var·n/(n − 1). **Break it**: forget T there.

# %%
stem, steps, digit = SPS(1, 16, (False, False, True, False), rng=1), [], images[None, :1].astype(float)
repeat = partial(ops.broadcast_to, shape=(4, 1, 8, 8, 1))  # [1, B, H, W, C] -> [T, B, H, W, C]
# trace calls back at every operation that runs
with trace(lambda f, inputs, y, path: steps.append(len(y)) if isinstance(f, conv.Convolve2d) else None):
    compare(lambda x: stem(x, T=4), lambda x: stem(repeat(x)), digit, *stem.parameters(), tol=1e-10)
print(f"steps in the 5 convolutions: {steps[:5]}, not {steps[5:]}; same tokens and gradients")
assert steps == [1] + 9 * [4]
frames, static, forgetful = norms = [BatchNorm(2, momentum=1.0) for _ in range(3)]
for norm, x, repeats in zip(norms, (repeat(digit), digit, digit), (1, 4, 1), strict=True):
    norm(stem.stages[0].map(x), repeats)
wrong = forgetful.running_var / frames.running_var
print(f"running variance: equal with n = T·B·H·W = 256; with n = 64 it is {wrong.max() - 1:.2%} too large")
assert np.allclose(static.running_var, frames.running_var, rtol=1e-12) and wrong.min() > 1.01

# %% [markdown]
# ## The max-pool on spikes: most windows tie
# The pool (3×3, stride 2) stands behind the neuron: 1 if any of nine neurons fired. Its gradient goes to the
# *first* maximum in row-major order alone. Among spikes ties are the rule, so this convention matters.
# **Break it**: between forward and backward, exchange the winners for the last.

# %%
calls, found = [], {}
for rule, (model, _) in zip(("first", "last"), stems[:2], strict=True):
    with trace(lambda f, xs, *_: calls.append((f, xs[0].data)) if isinstance(f, pool.MaxPool2d) else None):
        logits = model(images)
    function, s = calls[-1]
    s = np.pad(s, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-1)  # a pad never wins
    windows = np.lib.stride_tricks.sliding_window_view(s, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    windows = windows.reshape(*function.winner.shape, 9)  # [T·B, H/2, W/2, C, taps]
    assert np.array_equal(function.winner, windows.argmax(-1))  # NumPy's argmax, too, takes the first
    if rule == "last":
        function.winner[...] = 8 - windows[..., ::-1].argmax(-1)
    found[rule] = logits.data, function.winner, [stage.map.weight for stage in model.stem.stages]
    ops.softmax_cross_entropy(logits, labels).backward()
silent, several = (windows.max(-1) == 0).mean(), ((windows == 1).sum(-1) > 1).mean()
print(f"{silent + several:.0%} of the windows tie: {silent:.0%} silent, {several:.0%} with several spikes")
(logits, _, first), (logits_last, _, last) = found.values()
apart = [np.linalg.norm(w.grad - v.grad) / np.linalg.norm(v.grad) for v, w in zip(first, last, strict=True)]
print("last maximum: logits equal; weight gradients of stages 0 … 3 off by", *(f"{a:.0%}" for a in apart))
assert silent > 0.5 and np.array_equal(logits, logits_last) and min(apart[:3]) > 0.5 and apart[3] == 0

# %% [markdown]
# ## From pixels to tokens
# Each pool halves the grid, and an odd grid is refused. Tokens are x + RPE(x), RPE (relative position
# embedding) being one more brick with a 3×3 convolution: a sum of two binary maps, 0, 1 or 2. Last, the
# proof: a whole SPS, pool and static image included, smooth, against finite differences.

# %%
for name in ("spikformer_1_64_digits", "spikformer_4_384_cifar10", "spikformer_8_384_imagenet"):
    model = create_model(name, depth=0, embed_dim=16)  # the grid does not depend on the width
    grid = [model.img_size[0] // 2 ** sum(model.stem.pools[:i]) for i in range(5)]
    tokens = model.stem(rng.random((1, 1, *model.img_size, model.in_channels), "float32"), T=4)
    print(f"{name}: grid {' → '.join(map(str, grid))}, N = {tokens.shape[2]}")
    assert tokens.shape[2] == grid[-1] ** 2 and set(np.unique(tokens.data)) == {0, 1, 2}
stem = SPS(2, 8, (False, False, True, False), neuron=partial(LIF, smooth=True, detach_reset=False), rng=0)
try:
    stem(np.ones((1, 1, 7, 7, 2)))
    raise AssertionError("a 7×7 grid was halved")
except ValueError as error:
    print(error)
check_grads(lambda x: stem(x, T=3), rng.standard_normal((1, 2, 4, 4, 2)), *stem.parameters())
print(f"check_grads: image and all {len(stem.parameters())} parameters agree with finite differences")

# %% [markdown]
# ## The figure
# Above, a digit at gain 2: at gain 1 there is little to see. Below right, which neuron of a window gets the
# gradient. (At the image's top and left edge the first taps are padding: there a later one is the first.)

# %%
fig, axes = viz.figure(2, 3, size=(11, 7.4))
*stages, rpe = (spikes[:, 0] for spikes in stems[2][1].values())  # of the first digit
panels = stages[0], ops.max_pool2d(stages[2], 3, stride=2, padding=1).data, stages[3] + rpe
titles = "spikes of stage 0", "stage 2, pooled", "tokens: 0, 1, 2 (dark)"
for ax, maps, title in zip(axes[0], panels, titles, strict=True):
    maps = maps[..., np.argsort(-maps.var((0, 1, 2)))[:4]]  # [T, h, w, C], the four most varied channels
    maps = maps.repeat(8 // len(maps[0]), 1).repeat(8 // len(maps[0]), 2)
    rows = np.concatenate([np.broadcast_to(images[0], (4, 8, 8, 1)), maps], -1).transpose(3, 1, 0, 2)
    tiles = np.pad(rows, ((0, 0), (0, 1), (0, 0), (0, 1)), constant_values=np.nan).reshape(45, 36)[:-1, :-1]
    ax.imshow(tiles[:8], cmap="gray_r", extent=(-0.5, 34.5, 7.5, -0.5))
    ax.imshow(np.concatenate([tiles[:8] * np.nan, tiles[8:]]), cmap="Blues", vmin=0, vmax=2)
    ax.set(title=title, xlabel="time step", ylabel="channel", facecolor=viz.GREY)
    ax.set_xticks(3.5 + 9 * np.arange(4), range(4))
    ax.set_yticks(3.5 + 9 * np.arange(5), ["image", *"abcd"])
for (what, shares), color in zip(rates.items(), (viz.BLUE, viz.ORANGE, viz.GREY), strict=True):
    axes[1, 0].plot(np.multiply(shares, 100), color=color, marker="o", label=what)
axes[1, 0].set(title="no batch norm, no spikes", xlabel="stage", ylabel="neurons firing, %", xticks=range(4))
axes[1, 0].legend(frameon=False, loc="center right")
for ax, (rule, (_, winner, _)) in zip(axes[1, 1:], found.items(), strict=True):
    share = np.bincount(winner.ravel(), minlength=9).reshape(3, 3) / winner.size
    ax.imshow(share, cmap="Oranges", vmin=0, vmax=1.4)
    for i, j in np.ndindex(3, 3):
        ax.text(j, i, f"{share[i, j]:.0%}", ha="center", va="center", size=12)
    ax.set(title=f"gradient: {rule} maximum wins", xlabel="column of the window", ylabel="row of the window")
    ax.set(xticks=range(3), yticks=range(3))
viz.save(fig, "02_sps")

# %% [markdown]
# ## What was shown
# A convolution is unfold and a product, its gradient a product and fold. Batch norm sets the scale at which
# neurons fire. A static image is convolved once, and only n knows of T. The pool's rule for ties decides most
# of the gradient before it. What comes out are N tokens of 0, 1 and 2.
#
# ## Exercises (solutions: lessons/solutions/02_sps.py)
#
# ★ Predict: event frames of 128×128 pass four pools. How many tokens? Set `n_tokens`.
#
#     assert SPS(2, 8, (True,) * 4, rng=0)(np.zeros((1, 1, 128, 128, 2))).shape[2] == n_tokens
#
# ★★ Re-derive: a normal current, the same at every step, is multiplied by `gain`. Which share of the
# neurons fires at least once in T steps? Write `ever_fires(gain, T)`.
#
#     assert abs(ever_fires(2, 4) - lif(2 * current).data.max(0).mean()) < 0.005
#
# ★★★ From the paper: SPS embeds positions by convolutions alone, and attention does not see its tokens'
# order. How can a corner know that it is one? Make the `tokens` [T, 8, 8, D] of a 32×32 image of ones.
#
#     assert (tokens[:, 3:5, 3:5] == tokens[:, 3:4, 3:4]).all() and (tokens[:, 0, 0] != tokens[:, 3, 3]).any()
