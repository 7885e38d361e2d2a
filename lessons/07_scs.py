# %% [markdown]
# # 07 · The convolutional stem: what a max-pool on spikes throws away, and what a stride keeps
#
# Spikformer V2 (arXiv 2401.02020) replaces SPS by SCS, a spiking convolutional stem: strided convolutions in
# the place of max-pools, and behind each a pair of convolutions shaped like an MLP. The authors published no
# code. Kernel sizes and the expansion by 4 follow from their parameter counts, as shown below; the residual
# around the pair has no parameters and is our reading, as is where small nets halve the grid.

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
# A 2×2 convolution with stride 2 halves the grid; then x gets added what a pair of 3×3 convolutions makes of
# it, C → 4C → C. Each of the three is followed by batch norm and neurons.


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
# The maximum of zeros and ones is a logical OR. Of a 3×3 window's nine bits it keeps one, "did any fire?",
# not which and not how many. A strided convolution asks each output neuron a question about *all* places and
# channels. Put every window of 2×2 places and 4 channels, 2¹⁶ of them, to both. The convolution's currents
# still tell all apart. Its neurons answer by a train: to a constant current there are five in four steps.

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
# With a kernel as large as the stride, windows do not overlap: tap (i, j) meets the slice x[i::2, j::2].
#
#     y = Σ_ij x[i::2, j::2] w_ij        gx[i::2, j::2] = gy w_ijᵀ        gw_ij = Σ x[i::2, j::2]ᵀ gy
#
# So each input gets a gradient. A max-pool sends it to a window's first maximum alone, fired or not.

# %%
w, x = rng.standard_normal((2, 2, 3, 5)), (rng.random((2, 4, 6, 3)) < 0.2).astype(float)
leaves = [Tensor(a, requires_grad=True) for a in (x, w)]
y, gy = ops.conv2d(*leaves, stride=2), rng.standard_normal((2, 2, 3, 5))
y.backward(gy)
gx, gw = np.zeros_like(x), np.zeros_like(w)
for i, j in np.ndindex(2, 2):
    gx[:, i::2, j::2] = gy @ w[i, j].T  # each once: nothing to add up
    gw[i, j] = np.einsum("npqc,npqo->co", x[:, i::2, j::2], gy)
gap = max(abs(leaf.grad - g).max() for leaf, g in zip(leaves, (gx, gw), strict=True))
leaf = Tensor(x, requires_grad=True)
pooled = ops.max_pool2d(leaf, 3, stride=2, padding=1)
pooled.backward(rng.standard_normal(pooled.shape))
reached = [(g != 0).mean() for g in (leaf.grad, gx)]
print(f"gx, gw by taps and by autograd within {gap:.0e}; a gradient reaches {reached[1]:.0%} of the inputs,")
print(f"through a 3×3 max-pool {reached[0]:.0%}")
assert gap < 1e-12 and reached[0] <= 1 / 4 and reached[1] == 1
stem = SCS(1, 8, (False, True, False, False), neuron=partial(LIF, smooth=True, detach_reset=False), rng=0)
check_grads(lambda x: stem(x, T=2), rng.standard_normal((1, 2, 4, 4, 1)), *stem.parameters())
print(f"check_grads: SCS's image and all {len(stem.parameters())} parameters agree with finite differences")

# %% [markdown]
# ## Reading the image back
# What is kept can be measured: guess the pixels from the means over four steps by ridge regression, and score
# the guess on digits not seen, R² = 1 − error²/variance. All ways share the first brick and end in 4×4 places
# of 8 channels; weights are random, only woken. A 2×2 pool tells what is the OR's doing and what the larger
# window's; a mean is no spike, but a control; and pooling the currents *before* the neuron is arXiv
# 2305.05954's, for its gradient.

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
# The *active share* counts what is not 0 in what goes on. A pool's output is no neuron's, so it has an active
# share and no firing rate. At gain 2 and 3 the stride keeps more than SPS's pool, whose OR of nine has more
# than twice the active share: more ones say little more. But a 2×2 pool keeps as much as the stride, which
# needs fewer ones and fewer weights for it; and at gain 1, where few neurons fire, the stride is no better
# than SPS's pool. Pooling before the neuron changes next to nothing forward (max and threshold commute; at
# the first step exactly): its point is the gradient.
#
# ## Whole stems, and a broken residual
# Does an untrained SCS keep more than an untrained SPS? No: it is 12 layers of spikes deep, SPS 5, and random
# layers lose; to make use of them is for training. **Break it**: leave the residual out. Batch norm keeps
# the last neurons firing as before, but the mean digit is a better guess than theirs.


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
# A stage from m to n channels has k²mn weights in its strided convolution and 9n·en twice in the pair, and
# batch norms 2n + 2en + 2n. Published are 29.11, 51.55 and 172 million: k = 2 and e = 4 meet all three.


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
# The digit is the one whose two errors differ by the median. Of eight channels the four most varied.

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
# A max-pool on spikes is an OR, with a gradient for one input; a strided convolution's neurons weigh all, and
# all get a gradient. On random weights it keeps more than a 3×3 pool once neurons are awake, as much as a 2×2
# pool, and with fewer spikes. Without its residual a deep stem fires on and says nothing of the image.
#
# ## Exercises (solutions: lessons/solutions/07_scs.py)
#
# ★ Predict: nine independent neurons fire with probability p. At which p does their OR carry one full bit?
# Set `p`.
#
#     assert abs(ops.max_pool2d((rng.random((900, 900, 1)) < p) * 1.0, 3).data.mean() - 0.5) < 0.01
#
# ★★ Re-derive: a 3×3 kernel with stride 2 and padding 1 overlaps. How many windows collect the gradient of
# each pixel of an H×H image, H even? Write `windows(H)`, an array [H, H]; `collected` asks autograd.
#
#     assert np.array_equal(windows(8), collected(8))
#
# ★★★ From the paper: try k = 1 … 4 and e = 1 … 8. Which (k, e) give 29.11, 51.55 and 172 million, as
# printed? Write `meets(k, e)`.
#
#     assert [(k, e) for k in range(1, 5) for e in range(1, 9) if meets(k, e)] == [(2, 4)]
