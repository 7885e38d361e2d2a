# %% [markdown]
# # 02 · Spiking patch splitting: how an image becomes spiking tokens
#
# A spiking transformer reads tokens made of spikes. An image is a grid of real numbers, and it does not
# change over time. The stem, SPS, turns the image into tokens in four stages (0 … 3). Each stage is a
# convolution, a batch norm and a layer of neurons; some stages end in a max-pool. Convolution, batch norm and
# neurons together are a *brick*; the rest of the network is built of bricks, too. What does each part do to
# the signal, and to the gradient? (Spikformer, arXiv 2209.15425, §3.2.)

# %%
from functools import partial

import numpy as np

from data_utils.images.digits import load_digits
from minispike import LIF, BatchNorm, Tensor, check_grads, compare, create_model, lif, ops, trace
from minispike.backend import plain
from minispike.blocks.sps import SPS
from minispike.kernels.unfolded import Convolve2d, UnfoldedConvolve2d
from minispike.measure import viz
from minispike.ops import pool

# %% [markdown]
# ## A convolution by hand, pixel by pixel
# A 3×3 convolution places a window on every pixel. The window has nine offsets (i, j), which are called
# *taps*. At tap (i, j), output place (p, q) reads the pixel in row p + i − 1 and column q + j − 1. Outside
# the image there is nothing to read. The pixel has C channels and is multiplied by the tap's weights w[i, j],
# a matrix [C, out]. So what a pixel adds to an output is a small matrix product, and it has the gradients of
# a matrix product (lesson 00). Let gy = ∂L/∂y be the gradient that arrives, and gx, gw and gb the gradients
# that go on to the image x, the weights and the bias.

# %%
rng = np.random.default_rng(2)
x = rng.standard_normal((5, 6, 2))  # [H, W, C], the image
w, b = rng.standard_normal((3, 3, 2, 4)), rng.standard_normal(4)  # [3, 3, C, out], [out]
gy = rng.standard_normal((5, 6, 4))  # [H, W, out]

y = np.zeros((5, 6, 4)) + b
gx, gw, gb = np.zeros_like(x), np.zeros_like(w), gy.sum((0, 1))
for p, q in np.ndindex(5, 6):
    for i, j in np.ndindex(3, 3):
        row, column = p + i - 1, q + j - 1
        if 0 <= row < 5 and 0 <= column < 6:
            y[p, q] += x[row, column] @ w[i, j]
            gx[row, column] += gy[p, q] @ w[i, j].T
            gw[i, j] += np.outer(x[row, column], gy[p, q])

# %% [markdown]
# ## The same, tap by tap
# For a fixed tap all output places do the same: each of them reads the pixel at one fixed offset. So one
# matrix product serves all places at once. Let `out` be the output places for which the tap lies inside the
# image, and `at` the pixels that they read. Then the convolution is a sum over nine taps, and so are its
# gradients:
#
#     y[out] += x[at] @ w[i, j]        gx[at] += gy[out] @ w[i, j]ᵀ        gw[i, j] = x[at]ᵀ @ gy[out]
#
# The library states its convolution in the same three lines (`Convolve2d` in minispike/ops/conv.py). What
# runs is a faster form, its *twin* `UnfoldedConvolve2d` in minispike/kernels. It writes each window's 3·3·C
# values as one row of a matrix, unfold(x), so that nine products become one: y = unfold(x) @ w. `compare`
# asserts that values and gradients of both are equal.

# %%
every, but_first, but_last = slice(None), slice(1, None), slice(None, -1)
along = {  # tap: (outputs, pixels that they read), along one axis
    0: (but_first, but_last),  # reads one place back, where the first output has no pixel
    1: (every, every),
    2: (but_last, but_first),  # reads one place ahead, where the last output has no pixel
}

y_taps = np.zeros_like(y) + b
gx_taps, gw_taps = np.zeros_like(x), np.zeros_like(w)
for i, j in np.ndindex(3, 3):
    (out_rows, at_rows), (out_columns, at_columns) = along[i], along[j]
    out, at = (out_rows, out_columns), (at_rows, at_columns)
    y_taps[out] += x[at] @ w[i, j]
    gx_taps[at] += gy[out] @ w[i, j].T
    gw_taps[i, j] = x[at].reshape(-1, 2).T @ gy[out].reshape(-1, 4)

leaves = [Tensor(array, requires_grad=True) for array in (x, w, b)]
output = ops.conv2d(*leaves, padding=1)
output.backward(gy)
library = output.data, *(leaf.grad for leaf in leaves)
gap = 0.0
for version in ((y_taps, gx_taps, gw_taps, gb), library):
    for found, expected in zip(version, (y, gx, gw, gb), strict=True):
        gap = max(gap, abs(found - expected).max())
print(f"pixel by pixel, tap by tap, conv2d: y, gx, gw and gb differ by at most {gap:.0e}")
assert gap < 1e-12


def read(*inputs):
    with plain():  # inside this block an op runs as it is written to be read
        return ops.conv2d(*inputs, padding=1)


compare(read, partial(ops.conv2d, padding=1), x, w, b)  # asserts equality to 1e-12
assert type(read(*leaves).creator) is Convolve2d and type(output.creator) is UnfoldedConvolve2d
print("taps (Convolve2d) and its twin (UnfoldedConvolve2d): equal in value and in all three gradients")

# %% [markdown]
# ## Why batch norm comes before the neuron
# A neuron fires where its input is large, so something must set the scale. Batch norm gives each channel mean
# 0 and variance 1 over all time steps, images and pixels. Then it multiplies the channel by a learned *gain*
# γ, which starts at 1. From rest, with τ = 2, an input X gives the membrane potential H[0] = X/2. So a neuron
# fires at once only if X >= 2, which holds for 2.3 % of a normal distribution. A smaller input needs more
# steps, and an input of 1 or less never reaches the threshold. With gain 2 more neurons fire. Without batch
# norm, stage 0 hardly fires and stage 1 never does.

# %%
current = np.broadcast_to(rng.standard_normal(10**6), (4, 10**6))  # [T, neurons], the same at every step
by_step = lif(current).data.mean(1)
print("normally distributed input fires at t = 0 … 3:", *(f"{share:.1%}" for share in by_step))
assert abs(by_step[0] - 0.0228) < 0.0005 and by_step[0] == (current[0] >= 2).mean()
images, labels = (array[:64] for array in load_digits()[0])


def untrained(gain):
    """Return a stem and a head, untrained, with this gain and the images' batch statistics."""
    model = create_model("spikformer_1_64_digits", depth=0, rng=0)  # no blocks
    for brick in (*model.stem.stages, model.stem.rpe):
        brick.norm.weight.data[...] = gain
        brick.norm.momentum = 1.0  # one pass in training mode sets the running statistics to the batch's
    model(images)
    return model


spikes = {gain: viz.spikes_of(untrained(gain), images) for gain in (1, 2)}  # {gain: {path: [T, B, …]}}
rates = {}
for gain, by_path in spikes.items():
    *stages, rpe = by_path.values()
    rates[f"gain {gain}"] = [fired.mean() for fired in stages]
rates["no batch norm"] = []
signal = np.broadcast_to(images, (4, *images.shape))  # [T, B, H, W, C]
for brick in untrained(1).stem.stages:
    signal = brick.neuron(brick.map(signal))
    rates["no batch norm"].append(signal.data.mean())
for name, shares in rates.items():
    print(f"digits, {name}: firing rates of stages 0 … 3", *(f"{share:.1%}" for share in shares))
low, high, bare = rates.values()
assert bare[0] < 0.01 and bare[1] == 0
assert 0.02 < min(low) and max(low) < 0.1 < min(high)

# %% [markdown]
# ## A static image passes the first convolution once
# A static image is the same at every step, and so is the input of the first neurons; only their membrane
# potentials change. So the first brick convolves and normalises once and repeats the result T times. Only one
# number depends on T. Batch norm's running variance moves towards the unbiased estimate var·n/(n − 1). Here
# var is the mean squared deviation and n the number of values, in which each value of a static image counts T
# times. **Break it**: forget T there.

# %%
stem = SPS(1, 16, (False, False, True, False), rng=1)
digit = images[None, :1].astype(float)  # [1, B, H, W, C]
repeat = partial(ops.broadcast_to, shape=(4, 1, 8, 8, 1))  # -> [T, B, H, W, C]
steps = []


def count_steps(function, inputs, output, path):
    if isinstance(function, Convolve2d):
        steps.append(len(output))


with trace(count_steps):  # trace calls back at every operation that runs
    compare(lambda x: stem(x, T=4), lambda x: stem(repeat(x)), digit, *stem.parameters(), tol=1e-10)
print(f"steps in the five convolutions: {steps[:5]}, not {steps[5:]}; same tokens and gradients")
assert steps == [1] + 9 * [4]
frames, static, forgetful = (BatchNorm(2, momentum=1.0) for _ in range(3))
frames(stem.stages[0].map(repeat(digit)))
static(stem.stages[0].map(digit), repeats=4)
forgetful(stem.stages[0].map(digit), repeats=1)
wrong = forgetful.running_var / frames.running_var
print(f"running variance: equal with n = T·B·H·W = 256; with n = 64 it is {wrong.max() - 1:.2%} too large")
assert np.allclose(static.running_var, frames.running_var, rtol=1e-12) and wrong.min() > 1.01

# %% [markdown]
# ## The max-pool on spikes: most windows tie
# The pool takes the maximum of 3×3 windows with stride 2. It comes after the neuron, so its output is 1 if
# any of nine neurons fired. Its gradient goes only to the *first* maximum of a window, row by row. Among
# spikes a tie is the rule, so this convention matters. **Break it**: between forward and backward, replace
# each window's first maximum by its last.

# %%
pools = []


def remember_pool(function, inputs, output, path):
    if isinstance(function, pool.MaxPool2d):
        pools.append((function, inputs[0].data))


winners, results = {}, {}
for rule in ("first", "last"):
    model = untrained(1)
    with trace(remember_pool):
        logits = model(images)
    function, pooled = pools[-1]
    edges = ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0))
    padded = np.pad(pooled, edges, constant_values=-1)  # the padding never wins
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    windows = windows.reshape(*function.winner.shape, 9)  # [T·B, H/2, W/2, C, taps]
    assert np.array_equal(function.winner, windows.argmax(-1))  # NumPy's argmax also takes the first
    if rule == "last":
        function.winner[...] = 8 - windows[..., ::-1].argmax(-1)
    winners[rule] = function.winner  # a function forgets its arrays after backward
    ops.softmax_cross_entropy(logits, labels).backward()
    results[rule] = logits.data, [stage.map.weight.grad for stage in model.stem.stages]
silent, several = (windows.max(-1) == 0).mean(), ((windows == 1).sum(-1) > 1).mean()
print(f"{silent + several:.0%} of the windows tie: {silent:.0%} silent, {several:.0%} with several spikes")
(logits, first), (logits_last, last) = results.values()
apart = [
    np.linalg.norm(wrong - right) / np.linalg.norm(right) for right, wrong in zip(first, last, strict=True)
]
print("last maximum: logits equal; weight gradients of stages 0 … 3 off by", *(f"{a:.0%}" for a in apart))
assert silent > 0.5 and np.array_equal(logits, logits_last) and min(apart[:3]) > 0.5 and apart[3] == 0

# %% [markdown]
# ## From pixels to tokens
# Each pool halves the grid; an odd grid raises an error. The tokens are S + RPE(S). S holds the spikes of the
# last stage, and RPE (relative position embedding) is one more brick with a 3×3 convolution. Both terms are
# binary, so a token's entries are 0, 1 or 2. The last lines check the gradients of a whole SPS, with pool and
# static image, against finite differences in smooth mode (lesson 01).

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
# Top row: one digit at gain 2, because at gain 1 there is little to see. Bottom left: the firing rate
# of each stage. Bottom right: which of a window's nine neurons gets the gradient, under each rule. (At the
# image's top and left edges the first taps read padding. There the first maximum is a later tap.)

# %%
fig, axes = viz.figure(2, 3, size=(11, 7.4))
*stages, rpe = (fired[:, 0] for fired in spikes[2].values())  # of the first digit, [T, h, w, C]
panels = {
    "spikes of stage 0": stages[0],
    "stage 2, pooled": ops.max_pool2d(stages[2], 3, stride=2, padding=1).data,
    "tokens: 0, 1, 2 (dark)": stages[3] + rpe,
}
digit = np.broadcast_to(images[0], (4, 8, 8, 1))
for ax, (title, maps) in zip(axes[0], panels.items(), strict=True):
    varied = np.argsort(-maps.var((0, 1, 2)))[:4]  # the four channels that vary most
    scale = 8 // maps.shape[1]
    maps = maps[..., varied].repeat(scale, 1).repeat(scale, 2)  # [T, 8, 8, 4]
    rows = np.concatenate([digit, maps], -1).transpose(3, 1, 0, 2)  # [5, 8, T, 8]
    tiles = np.pad(rows, ((0, 0), (0, 1), (0, 0), (0, 1)), constant_values=np.nan)  # gaps between tiles
    tiles = tiles.reshape(45, 36)[:-1, :-1]
    ax.imshow(tiles[:8], cmap="gray_r", extent=(-0.5, 34.5, 7.5, -0.5))
    ax.imshow(np.concatenate([tiles[:8] * np.nan, tiles[8:]]), cmap="Blues", vmin=0, vmax=2)
    ax.set(title=title, xlabel="time step", ylabel="channel", facecolor=viz.GREY)
    ax.set_xticks(3.5 + 9 * np.arange(4), range(4))
    ax.set_yticks(3.5 + 9 * np.arange(5), ["image", *"abcd"])
for (name, shares), color in zip(rates.items(), (viz.BLUE, viz.ORANGE, viz.GREY), strict=True):
    axes[1, 0].plot(np.multiply(shares, 100), color=color, marker="o", label=name)
axes[1, 0].set(title="batch norm sets the firing rate", xlabel="stage", ylabel="firing rate, %")
axes[1, 0].set_xticks(range(4))
axes[1, 0].legend(frameon=False, loc="center right")
for ax, (rule, winner) in zip(axes[1, 1:], winners.items(), strict=True):
    share = np.bincount(winner.ravel(), minlength=9).reshape(3, 3) / winner.size
    ax.imshow(share, cmap="Oranges", vmin=0, vmax=1.4)
    for i, j in np.ndindex(3, 3):
        ax.text(j, i, f"{share[i, j]:.0%}", ha="center", va="center", size=12)
    ax.set(title=f"gradient: {rule} maximum wins", xlabel="column of the window", ylabel="row of the window")
    ax.set(xticks=range(3), yticks=range(3))
viz.save(fig, "02_sps")

# %% [markdown]
# ## What was shown
# A convolution is one matrix product per tap, and its two gradients are matrix products per tap, too. Batch
# norm sets the scale at which neurons fire. A static image is convolved once, and only the n of the running
# variance depends on T. The pool's rule for ties decides most of the gradient in the stages before the pool.
# The result is N tokens with entries 0, 1 and 2.
#
# ## Exercises (solutions: lessons/solutions/02_sps.py)
#
# ★ Predict: event frames of 128×128 pixels pass four pools. How many tokens result? Set `n_tokens`.
#
#     assert SPS(2, 8, (True,) * 4, rng=0)(np.zeros((1, 1, 128, 128, 2))).shape[2] == n_tokens
#
# ★★ Re-derive: a normally distributed input, the same at every step, is multiplied by `gain`. What share of
# the neurons fires at least once in T steps? Write `ever_fires(gain, T)`.
#
#     assert abs(ever_fires(2, 4) - lif(2 * current).data.max(0).mean()) < 0.005
#
# ★★★ From the paper: SPS embeds positions by convolutions alone, and attention does not see the order of its
# tokens. How can a corner token differ from a token in the middle? Compute the `tokens` [T, 8, 8, D] of a
# 32×32 image of ones.
#
#     assert (tokens[:, 3:5, 3:5] == tokens[:, 3:4, 3:4]).all() and (tokens[:, 0, 0] != tokens[:, 3, 3]).any()
