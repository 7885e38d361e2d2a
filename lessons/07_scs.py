# %% [markdown]
# # 07 · The convolutional stem: what a max-pool on spikes throws away, and what a stride keeps
#
# A stem turns an image into tokens and makes the grid smaller on the way. Spikformer's stem SPS (lesson 02)
# does this with max-pools. Spikformer V2 (arXiv 2401.02020) uses strided convolutions instead, and calls its
# stem SCS, the spiking convolutional stem. This lesson measures what either way keeps of an image.
#
# You will be able to write a stage of SCS, count what a pool and a stride can tell apart, and derive the
# gradients of both. It needs lessons 00 to 02.
# Twelve minutes to read, and fifteen seconds to run; notation and glossary: [NOTATION.md](NOTATION.md).
#
# The authors of Spikformer V2 published no code. The kernel sizes and the expansion by 4 follow from their
# parameter counts, as shown below. Two things have no parameters and are our *interpretation*: the residual
# around the pair of convolutions, and which stages halve the grid in models for small images.

# %%
from functools import partial

import numpy as np

from data_utils.images.digits import load_digits
from lessons.common import wake
from minispike import LIF, Conv2d, Spiking, Tensor, check_grads, create_model, no_grad, ops
from minispike.blocks.scs import SCS, Stage
from minispike.measure import viz

# %% [markdown]
# ## One stage by hand
# A stage has three bricks. A brick is a map, batch norm (BN) and LIF neurons, in this order. The first brick
# is a 2×2 convolution with stride 2, from C' channels to C. It halves the height and the width: each 2×2
# window becomes one place. The other two are 3×3 convolutions, from C channels to 4C and back to C. What this
# pair makes of x is added to x; x is then called the residual of the sum.
#
#     down     x = LIF(BN(Conv2×2 x))                          [T, B, H, W, C'] → [T, B, H/2, W/2, C]
#     pair     x = x + LIF(BN(Conv3×3 LIF(BN(Conv3×3 x))))     C → 4C → C


# %%
def brick_by_hand(x, brick):  # LIF(BN(Conv x))
    w, s, pad, norm = brick.map.weight.data, brick.map.stride, brick.map.padding, brick.norm
    k = len(w)  # the kernel is k×k
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad), (0, 0)))
    H, W = (x.shape[2] - k) // s + 1, (x.shape[3] - k) // s + 1
    y = np.zeros((*x.shape[:2], H, W, w.shape[-1]))
    for p, q in np.ndindex(H, W):
        for i, j in np.ndindex(k, k):
            y[:, :, p, q] += x[:, :, s * p + i, s * q + j] @ w[i, j]  # [T, B, in] @ [in, out]
    mean, var = y.mean((0, 1, 2, 3)), y.var((0, 1, 2, 3))
    y = (y - mean) / (var + norm.eps) ** 0.5 * norm.weight.data + norm.bias.data
    v, spikes = 0.0, np.zeros_like(y)
    for t in range(len(y)):
        h = v + (y[t] - v) / 2
        spikes[t] = h >= 1
        v = h * (1 - spikes[t])
    return spikes


rng = np.random.default_rng(7)
stage = Stage(2, 3, True, neuron=LIF, rng=rng)
for brick in (stage.down, stage.expand, stage.contract):
    brick.norm.weight.data[...] = 3  # so that enough of so few neurons fire
frames = rng.standard_normal((3, 2, 8, 8, 2))  # [T, B, H, W, C]
down = brick_by_hand(frames, stage.down)  # [3, 2, 4, 4, 3]
out = down + brick_by_hand(brick_by_hand(down, stage.expand), stage.contract)
assert np.array_equal(out, stage(frames, 1, None).data) and set(np.unique(out)) == {0, 1, 2}
print(f"one SCS stage, loops = library, exactly: {frames.shape} → {out.shape}, values 0, 1, 2")

# %% [markdown]
# ## A window of spikes
# The maximum of zeros and ones is a logical OR. A 3×3 window of one channel holds nine bits, and the pool
# keeps one of them: "did any neuron fire?". Which one and how many is lost. In a strided convolution each
# output neuron weighs *all* places and channels of the window.
#
# To compare, give both of them every window of 2×2 places and 4 channels that there is: 2¹⁶ = 65,536 windows.
# The pool answers with 4 bits. The convolution answers with 4 currents, and these differ for all windows. Its
# neurons then turn each current into a spike train. A constant current can give five different trains in four
# steps: spikes at every step, at every second, at every third, at the fourth only, or none.

# %%
windows = (np.arange(2**16)[:, None] >> np.arange(16) & 1).reshape(-1, 2, 2, 4).astype(float)
pooled = ops.max_pool2d(windows, 2).data.reshape(-1, 4)
assert np.array_equal(pooled, np.logical_or.reduce(windows, axis=(1, 2)))
brick = Spiking(Conv2d(4, 4, 2, stride=2, padding=0, rng=rng))
wake(brick, windows[None])
currents = brick.map(windows).data.reshape(-1, 4).round(9)
trains = brick(windows[None], T=4).data.reshape(4, -1, 4)
answers = pooled, currents, trains[0], trains.transpose(1, 0, 2).reshape(-1, 16)
kinds = [len(np.unique(each, axis=0)) for each in answers]
print("of 65,536 windows a max-pool tells {} apart; the strided convolution's currents {:,},".format(*kinds))
print("its spikes {} after one step, {} after four".format(*kinds[2:]))
assert kinds[:2] == [2**4, 2**16] and kinds[2] <= 2**4 < kinds[3] <= 5**4

# %% [markdown]
# ## Gradients: one winner, or everyone
# If the kernel is as large as the stride, windows do not overlap. Write w_ij for the weights [in, out] at row
# i and column j of the kernel. They meet the slice x[i::2, j::2] and nothing else. So y is a sum of four
# matrix products, and both gradients follow from each of them alone:
#
#     y                 = Σ_ij x[i::2, j::2] w_ij
#     ∂L/∂x[i::2, j::2] = ∂L/∂y w_ijᵀ                    each input is met once: nothing to add up
#     ∂L/∂w_ij          = Σ x[i::2, j::2]ᵀ ∂L/∂y         the sum is over samples and places
#
# Each input gets a gradient. A max-pool gives it to one input of each window only, the first maximum, whether
# that one fired or not. (In the code, gx, gy and gw are ∂L/∂x, ∂L/∂y and ∂L/∂w.)

# %%
w, x = rng.standard_normal((2, 2, 3, 5)), (rng.random((2, 4, 6, 3)) < 0.2).astype(float)
leaves = [Tensor(a, requires_grad=True) for a in (x, w)]
y, gy = ops.conv2d(*leaves, stride=2), rng.standard_normal((2, 2, 3, 5))
y.backward(gy)
gx, gw = np.zeros_like(x), np.zeros_like(w)
for i, j in np.ndindex(2, 2):
    gx[:, i::2, j::2] = gy @ w[i, j].T
    gw[i, j] = np.einsum("npqc,npqo->co", x[:, i::2, j::2], gy)
gap = max(abs(leaf.grad - g).max() for leaf, g in zip(leaves, (gx, gw), strict=True))
leaf = Tensor(x, requires_grad=True)
pooled = ops.max_pool2d(leaf, 3, stride=2, padding=1)
pooled.backward(rng.standard_normal(pooled.shape))
reached = [(g != 0).mean() for g in (leaf.grad, gx)]
print(f"∂L/∂x, ∂L/∂w: slices = autograd to {gap:.0e}; a gradient reaches {reached[1]:.0%} of the inputs,")
print(f"through a 3×3 max-pool {reached[0]:.0%}")
assert gap < 1e-12 and reached[0] <= 1 / 4 and reached[1] == 1
stem = SCS(1, 8, (False, True, False, False), neuron=partial(LIF, smooth=True, detach_reset=False), rng=0)
check_grads(lambda x: stem(x, T=2), rng.standard_normal((1, 2, 4, 4, 1)), *stem.parameters())
print(f"check_grads: SCS's image and all {len(stem.parameters())} parameters agree with finite differences")

# %% [markdown]
# ## Reading the image back
# How much of the image is left can be measured: guess the pixels from the spikes. The guess is a ridge
# regression (a linear map whose weights are kept small) from the mean over four steps of each neuron. Its
# score on digits not seen is R² = 1 − (squared error) / (squared error of the mean digit): 1 is a perfect
# guess, 0 is no better than the mean digit.
#
# Five ways to halve the grid are compared. All share the first brick and end in 4×4 places of 8 channels.
#
# - max-pool 3×3: SPS's pool, stride 2, after the neuron;
# - before the neuron: the same pool on the currents, as arXiv 2305.05954 does for the sake of the gradient;
# - max-pool 2×2: separates what the OR does from what the larger window does;
# - stride 2×2: SCS's convolution;
# - mean 2×2: a control, because a mean of spikes is no spike.
#
# Weights are random and not trained. `wake` sets batch norm's statistics to those of the images and its gain
# γ to 1, 2 or 3: the larger the gain, the more neurons fire.

# %%
(train, _), (test, _) = load_digits()
digits, n = np.concatenate([train, test]), len(train)
pixels = digits.reshape(-1, 64).astype(float)


def read_back(means, strength=300.0):
    """Return the guessed pixels of unseen digits, and R². W = (XᵀX + λ)⁻¹ XᵀY, X standardised, Y centred."""
    x = means.reshape(len(digits), -1).astype(float)
    x = (x - x[:n].mean(0)) / (x[:n].std(0) + 1e-9)  # or λ punishes whoever fires little
    centre = pixels[:n].mean(0)
    X, Y = x[:n], pixels[:n] - centre
    W = np.linalg.solve(X.T @ X + strength * np.eye(X.shape[1]), X.T @ Y)
    guessed = x[n:] @ W + centre
    error, variance = (((pixels[n:] - a) ** 2).sum() for a in (guessed, centre))
    return guessed, 1 - error / variance


def ways(seed, gain):
    """Return the spikes [T, 1797, 4, 4, 8] of a second brick, on a first one's, by each way to halve."""
    rng = np.random.default_rng(seed)
    convs = Conv2d(1, 8, rng=rng), Conv2d(8, 8, rng=rng), Conv2d(8, 8, 2, stride=2, padding=0, rng=rng)
    first, plain, strided = (Spiking(conv).to(dtype="float32") for conv in convs)
    wake(first, train[None], gain)
    s = first.eval()(digits[None], T=4)
    for brick in (plain, strided):
        wake(brick, s.data[:, :n], gain)
        brick.eval()
    current, pool = plain.norm(plain.map(s)), partial(ops.max_pool2d, k=3, stride=2, padding=1)
    fired = plain.neuron(current)
    return {
        "max-pool 3×3": pool(fired),
        "before the neuron": plain.neuron(pool(current)),
        "max-pool 2×2": ops.max_pool2d(fired, 2),
        "stride 2×2": strided(s),
        "mean 2×2, control": ops.avg_pool2d(fired, 2),
    }


found, shown = {}, {}  # {way: [seed, gain, (R², active share)]}; {way: (spikes, guessed pixels)}
with no_grad():
    for seed, i in np.ndindex(3, 3):
        for way, y in ways(seed, gain=i + 1).items():
            guessed, r2 = read_back(y.data.mean(0))
            if way not in found:
                found[way] = np.zeros((3, 3, 2))
            found[way][seed, i] = r2, (y.data != 0).mean()
            if (seed, i) == (0, 1):
                shown[way] = y.data, guessed
print("R², active share       gain 1       gain 2, least … most       gain 3")
for way, scores in found.items():
    low, middle, high = (f"{r2:.2f}, {share:>4.0%}" for r2, share in scores.mean(0))
    print(f"  {way:<18}  {low}   {middle}, {min(scores[:, 1, 0]):.2f} … {max(scores[:, 1, 0]):.2f}   {high}")
big, before, small, stride, _ = (scores[..., 0] for scores in found.values())
assert (stride - big)[:, 1:].min() > 0.03 and abs(stride - big)[:, 0].max() < 0.05  # asleep, they tie
assert abs(stride - small)[:, 1].max() < 0.05 and abs(before - big).max() < 0.05
active = {way: scores[..., 1] for way, scores in found.items()}
assert (active["stride 2×2"] < active["max-pool 2×2"]).all()
assert (active["max-pool 3×3"] > 2 * active["stride 2×2"])[:, 1:].all()
assert np.array_equal(shown["max-pool 3×3"][0][0], shown["before the neuron"][0][0])  # t = 0: see below

# %% [markdown]
# The *active share* is the share of the outputs that are not 0. (A pool's outputs are not neurons, so they
# have no firing rate.) How to read the table:
#
# - At gain 2 and 3 the stride keeps more than SPS's pool. The OR of nine has more than twice the active
#   share, and these additional ones say little.
# - A 2×2 pool keeps as much as the stride. But the stride needs fewer ones, and a ninth of the
#   multiply-accumulates, because the pool comes after a 3×3 convolution at full resolution.
# - At gain 1, where few neurons fire, the stride is no better than SPS's pool.
# - Pooling before the neuron changes almost nothing. The largest current fires exactly if any of them does,
#   so at the first step both are equal. What changes is the gradient.
#
# ## Whole stems, and a broken residual
# Does a whole untrained SCS keep more than an untrained SPS? No. SCS is 12 layers of spikes deep, SPS is 5,
# and each random layer loses something. Training has to make use of the depth. **Break it**: leave the
# residual out. Batch norm keeps the last neurons firing at the same rate, but what they say about the image
# is now a worse guess than the mean digit (R² below 0).


# %%
def without_residual(stage, x, T, visible):
    return stage.contract(stage.expand(stage.down(x, T)))


kinds = {"SPS": "sps", "SCS": "scs", "no residual": "scs"}
stems, rates = {name: [] for name in kinds}, {}
for seed in range(3):
    for name, kind in kinds.items():
        model = create_model("spikformer_v2_1_64_digits", depth=0, embed_dim=16, stem=kind, rng=seed)
        if name == "no residual":
            for stage in model.stem.stages:
                stage.forward = partial(without_residual, stage)
        wake(model, train[:256], gain=2)
        with no_grad():
            tokens = model.eval().stem(digits[None], T=4).data
        _, r2 = read_back(tokens.mean(0))
        stems[name].append(r2)
        *_, rates[name] = viz.firing_rates(model, test[:64]).values()  # of the last neurons
for name, r2 in stems.items():
    last = f"firing rate of its last neurons {rates[name]:.0%}"
    print(f"whole stem, {name}: R² {min(r2):.2f} … {max(r2):.2f}, {last}")
assert min(stems["SPS"]) > max(stems["SCS"]) and min(stems["SCS"]) > 0.1 > 0 > max(stems["no residual"])
assert abs(rates["no residual"] - rates["SCS"]) < 0.02

# %% [markdown]
# ## What the parameter counts tell
# Let a stage go from m to n channels, with a k×k strided convolution and an expansion to e·n channels in the
# pair. It has k²·mn weights in the first convolution and 9·n·en in each of the other two; its batch norms
# have 2n + 2en + 2n parameters. The paper names three models, with 29.11, 51.55 and 172 million parameters.
# k = 2 and e = 4 meet all three.


# %%
def count(D, depth, k=2, e=4):
    m, n = np.array([3, D // 8, D // 4, D // 2]), np.array([D // 8, D // 4, D // 2, D])
    stem = (k * k * m * n + 18 * e * n * n + 4 * n + 2 * e * n).sum()
    ssa, mlp = 4 * D * D + 9 * D, 8 * D * D + 15 * D  # q, k, v have no bias; hidden: 4D
    return stem + depth * (ssa + mlp) + 1000 * D + 1000


counts = [count(384, 8), count(512, 8), count(768, 16)]
built = create_model("spikformer_v2_8_384_imagenet").num_params()  # the larger ones take longer to build
print("parameters by formula:", *(f"{c:,}" for c in counts), f"; 8-384 built: {built:,}")
other = count(512, 8, k=3), count(512, 8, e=1)
print("8-512 with 3×3 strides: {:,}; with no expansion: {:,}".format(*other))
assert counts == [29_111_272, 51_545_064, 172_278_760] and built == counts[0]

# %% [markdown]
# ## The figure
# - Left, above: one unseen digit; its two guesses differ by as much as in the median digit. Below: the R² of
#   the whole stems; look at the grey bar, which is below 0.
# - Second: the spikes of four of eight channels (rows) in four steps (columns), above with SPS's pool, below
#   with the stride. Look at how full the orange maps are, and how blurred.
# - Third: the digit as read back from either. Look at rows 3 and 4, where the stroke is crossed: the guess
#   from the pool is too light there.
# - Right, above: R² of the five ways at gain 2. Below: R² against the active share at gains 1, 2 and 3. Look
#   for the highest point furthest to the left: most of the image for the fewest ones.

# %%
fig, axes = viz.figure(2, 4, size=(13.5, 6.8), width_ratios=(1, 1, 1, 1.5))
pair = {"max-pool 3×3": "Oranges", "stride 2×2": "Blues"}
errors = [((shown[way][1] - pixels[n:]) ** 2).sum(1) for way in pair]
digit = np.argsort(errors[0] - errors[1])[len(test) // 2]
look, edge = dict(cmap="gray_r", vmin=pixels.min(), vmax=pixels.max()), ((0, 0), (0, 1), (0, 0), (0, 1))
axes[0, 0].imshow(pixels[n + digit].reshape(8, 8), **look)
axes[0, 0].set(title="an unseen digit", xlabel="column", ylabel="row")
for (_, left, right, _), (way, cmap) in zip(axes, pair.items(), strict=True):
    y, guessed = shown[way]
    maps = y[:, n + digit][..., np.argsort(-y.mean(0).var((0, 1, 2)))[:4]]  # [T, h, w, channels]
    tiles = np.pad(maps.transpose(3, 1, 0, 2), edge, constant_values=np.nan).reshape(20, 20)
    left.imshow(tiles[:-1, :-1], cmap=cmap, vmin=0, vmax=1.4)
    left.set(title=f"{way}: spikes", xlabel="time step", ylabel="channel", facecolor=viz.GREY)
    left.set_xticks(1.5 + 5 * np.arange(4), range(4))
    left.set_yticks(1.5 + 5 * np.arange(4), "abcd")
    right.imshow(guessed[digit].reshape(8, 8), **look)
    right.set(title="read back from them", xlabel="column", ylabel="row")
colors = viz.ORANGE, "#f0b98c", viz.GREEN, viz.BLUE, viz.GREY
for i, (scores, color) in enumerate(zip(found.values(), colors, strict=True)):
    axes[0, 3].barh(i, scores[:, 1, 0].mean(), color=color)
    axes[0, 3].plot(scores[:, 1, 0], [i] * 3, "o", color=viz.INK, markersize=4)
    axes[1, 3].plot(100 * scores[..., 1].mean(0), scores[..., 0].mean(0), color=color, marker="o")
axes[0, 3].set_yticks(range(5), found)
axes[0, 3].invert_yaxis()
axes[0, 3].set(title="read back, gain 2; dots are seeds", xlabel="R² on unseen digits")
axes[1, 3].set(title="gains 1, 2, 3; colours as above", xlabel="active share, %", ylabel="R²", xlim=(0, 90))
for i, (r2, color) in enumerate(zip(stems.values(), (viz.ORANGE, viz.BLUE, viz.GREY), strict=True)):
    axes[1, 0].bar(i, np.mean(r2), color=color)
    axes[1, 0].plot([i] * 3, r2, "o", color=viz.INK, markersize=4)
axes[1, 0].set_xticks(range(3), ["SPS", "SCS", "SCS, no\nresidual"])
axes[1, 0].set(title="whole stems, untrained", ylabel="R² on unseen digits")
viz.save(fig, "07_scs")

# %% [markdown]
# ## What was shown
# What does a max-pool on spikes throw away? All but "did any fire?": of 65,536 windows it tells 16 apart. The
# currents of a strided convolution tell all of them apart, and its spikes in four steps tell 396. A pool
# passes its gradient to one input of a window, a stride to all.
#
# What does a stride keep? On random weights and at gain 2, R² is 0.76 with the stride and 0.68 with
# SPS's 3×3 pool. But it is 0.76 with a 2×2 pool, so the larger window loses more than the OR does. The
# stride needs the fewest ones. At gain 1 there is no difference. And a whole SCS, untrained, keeps less than
# a whole SPS. So these numbers do not decide which stem is better after training.
#
# Without its residual a deep stem fires on and says nothing about the image.
#
# ## Five questions (answers: lessons/solutions/07_scs.py)
#
# 1. Why does an OR of many neurons say less if the neurons fire more often?
# 2. A convolution of four channels gives spike trains over four steps. How many answers can it give at most,
#    and how many if each neuron could fire freely at each step?
# 3. A 3×3 kernel with stride 2 and padding 1 overlaps. What does its gradient look like that a 2×2 kernel's
#    with stride 2 does not?
# 4. The tokens of SCS are 0, 1 or 2. Why never 3, although four residuals come one after another?
# 5. Does another pair with k up to 4 and e up to 8 meet the published counts, as they are printed? What can
#    no count tell?
#
# ## Practice
#
#     python -m lessons.practice 07_scs
#
# ★ `or_of_nine`: predict at which firing rate an OR of nine neurons tells most.
#
# ★★ `halve`: write the strided convolution as one matrix product; it then runs in a stem.
#
# ★★ `coverage`: count how many windows cover each pixel.
#
# ★★★ `strided_backward`: derive both gradients where windows overlap or leave a border unused.
