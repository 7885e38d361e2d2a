# %% [markdown]
# # 16 · Pairs: a task that needs mixing
#
# On the digits, a model that never mixes its tokens is as good as one with attention (lessons 04, 10, 13). So
# the digits cannot show which mixer is better, and lesson 14 asks for a task that can. This lesson builds
# one: two digits lie far apart on a canvas; are they the same digit? It proves that no model without mixing
# can solve the task, and then lets all mixers try.
#
# You will be able to prove that a task needs mixing, to check that a task is what it claims to be, and to
# read a ladder of controls. It needs lessons 03 to 06 and 09, and it follows lesson 14. Twelve minutes to
# read, and a few seconds to run; notation and glossary: [NOTATION.md](NOTATION.md).

# %%
import json

import numpy as np

from data_utils.images.pairs import GAP, open_pairs
from lessons.common import RESULTS, wake
from minispike import Tensor, compare, create_model, no_grad, ops
from minispike.blocks.control import MaxPoolMix, StaticMix
from minispike.measure import viz

# %% [markdown]
# ## The task
# A canvas has 8×32 pixels: a digit, 16 blank columns, and another digit. The label y is 1 where both show the
# same digit, and 0 where they do not. A pair is drawn in three steps: the left class (any of ten), the label
# (0 or 1), and the right class (the same one, or any of the other nine). Then an image of each class.
#
# So either digit alone says nothing about y: whichever digit is on the left, y is 1 in half of the pairs, and
# the same holds for the right. The training pairs are drawn again in every epoch, so that no pair can be
# learned by heart. The test pairs are made of digits that no training pair shows.

# %%
train, test = open_pairs(32)
canvas, y = (np.concatenate(parts) for parts in zip(*test, strict=True))
C = 10
together = np.zeros((2, C, C))  # P(y, left class, right class)
for left in range(C):
    together[1, left, left] = 1 / C / 2
    together[0, left] = np.where(np.arange(C) == left, 0, 1 / C / 2 / (C - 1))
given_left, given_right = together.sum(2) / together.sum((0, 2)), together.sum(1) / together.sum((0, 1))
assert np.allclose(given_left, 0.5) and np.allclose(given_right, 0.5) and y.mean() == 0.5
print(f"a canvas {list(canvas.shape[1:3])}; P(y = 1 | left) = {given_left[1].min():.2f} for every digit")
print(f"{train.n_samples} fresh pairs an epoch, {len(y)} test pairs, {y.mean():.1%} of them equal")

# %% [markdown]
# ## No token sees both digits
# The stem is made of 3×3 convolutions and a pool, so a token sees a window of the image and nothing else. To
# find the windows, change one half of the canvas and look which tokens change. With a gap of 16 columns no
# token depends on both halves. With a gap of 0 all do, and then no mixing is needed: this is the control.


# %%
def tokens_that_change(model, images, columns):
    other = images.copy()
    other[:, :, columns] = rng.permutation(other[:, :, columns])
    with no_grad():
        before, after = (model.stem(x.reshape(1, *x.shape), T=4).data for x in (images, other))
    return (before != after).any((0, 1, 3)).reshape(4, -1)  # [rows, columns] of the token grid


rng, seen = np.random.default_rng(0), {}
for gap in (GAP, 0):
    images = np.concatenate([canvas[:64, :, :8], canvas[:64, :, 8 : 8 + gap], canvas[:64, :, -8:]], 2)
    model = create_model("attention_free_identity_1_64_pairs", img_size=(8, 16 + gap), rng=1)
    wake(model, images)
    seen[gap] = [tokens_that_change(model, images, side) for side in (slice(0, 8), slice(8 + gap, None))]
    left, right = seen[gap]
    both = int((left & right).sum())
    assert left.any() and right.any() and (both > 0) == (gap == 0)
    print(
        f"gap {gap:>2}: {left.sum()} tokens see the left digit, {right.sum()} the right one, {both} see both"
    )

# %% [markdown]
# ## The proof
# Without mixing, each token goes its own way to the head, and the head takes the mean of all tokens. So the
# logit z of "same" is a sum: one part depends on the left digit L, the other on the right digit R.
#
#     z = a(L) + b(R)        ℓ(z, y) = ln(1 + eᶻ) − y z = ln(2 cosh(z/2)) − (y − ½) z
#
# (ℓ is the cross-entropy of the two classes, with z the difference of their logits.) Take its expectation:
#
#     E ℓ = E ln(2 cosh(z/2)) − E[(y − ½) a(L)] − E[(y − ½) b(R)]
#
# Given L, the mean of y is ½, so E[(y − ½) a(L)] = 0 for every function a; and likewise for b. What is left
# is at least ln 2, because cosh is never below 1. It is ln 2 only where z = 0: the best such a model can do
# is to say nothing. In numbers: 200 random choices of a and b, and 500 steps of gradient descent from one.


# %%
def loss_and_slope(z):
    """E ℓ for logits z [left class, right class], and its derivative."""
    p = 1 / (1 + np.exp(-z))
    expected = (together * np.stack([np.log1p(np.exp(z)), np.log1p(np.exp(-z))])).sum()
    return expected, together.sum(0) * p - together[1]


draws = [loss_and_slope(a[:, None] + b)[0] for a, b in rng.standard_normal((200, 2, C))]
a, b = rng.standard_normal((2, C))
for _ in range(500):
    _, slope = loss_and_slope(a[:, None] + b)
    a, b = a - 5 * slope.sum(1), b - 5 * slope.sum(0)
best, spread = loss_and_slope(a[:, None] + b)[0], abs(a[:, None] + b).max()
assert min(draws) > np.log(2) and 0 <= best - np.log(2) < 1e-6 and spread < 0.01
print(
    f"a sum a(L) + b(R): at least {min(draws):.3f} of 200, {best:.6f} after descent; ln 2 = {np.log(2):.6f}"
)
z = np.zeros((C, C))
for _ in range(500):
    z = z - 50 * loss_and_slope(z)[1]
mixed, _ = loss_and_slope(z)
assert mixed < 0.02
print(f"a logit for each pair of digits, as mixing can give it: {mixed:.3f} after as many steps")

# %% [markdown]
# ## Why the loss, and not the accuracy
# Accuracy alone proves nothing. Put the digits in an order and let a(L) = L and b(R) = ½ − R: "same" unless
# the right digit is larger. Every equal pair is right, and so is half of the others: 75 %, without mixing. It
# is paid for with a large loss: this model is sure of itself where it is wrong.

# %%
order = np.arange(C)[:, None] + 0.5 - np.arange(C)
right = together[1][order > 0].sum() + together[0][order < 0].sum()
costly = loss_and_slope(order)[0]
assert abs(right - 0.75) < 1e-12 and costly > np.log(2)
print(f"an order of the digits: accuracy {right:.0%}, but a loss of {costly:.3f}")

# %% [markdown]
# ## The ladder
# Each rung adds one thing, and everything else stays as it is: stem, MLP, LIF(BN(·)) behind the mixer.
#
#     identity                       no mixing
#     max-pool, depthwise 3×3        neighbours alone: one block moves a spike by one token, the gap is eight
#     random, Fourier, wavelets      all tokens, by a matrix that is given
#     learned matrix                 all tokens, y = M x, M learned, the same for every image
#     SSA with q and k frozen        the mixture depends on the image, by maps that are not learned
#     SSA, SASA                      by maps that are learned
#     softmax attention              real q, k, v and a softmax: not spike-driven
#     SSA without spikes             max(x, 0) in place of every neuron, at T = 1
#
# The two new ones by hand: a learned matrix multiplies the tokens, and a max-pool takes the largest of the
# nine tokens around. And how far does each reach in one block? Change one token, and count.

# %%
H, W, D = 4, 16, 64
grid, x = (H, W), rng.integers(0, 2, (2, 3, H * W, D)).astype(float)
static, pool = StaticMix(D, H * W, rng=1), MaxPoolMix(D, grid)
compare(static, lambda x: ops.matmul(static.matrix, x), x)
padded = np.full((2, 3, H + 2, W + 2, D), -np.inf)
padded[:, :, 1:-1, 1:-1] = x.reshape(2, 3, H, W, D)
near = [padded[:, :, i : i + H, j : j + W] for i in range(3) for j in range(3)]
assert np.array_equal(pool(x).data, np.max(near, axis=0).reshape(x.shape))
moved = x.copy()
moved[:, :, 2 * W + 8] += 1
reach = {}
for name, mixer in (("max-pool 3×3", pool), ("learned matrix", static)):
    changed = (mixer(Tensor(x)).data != mixer(Tensor(moved)).data).any((0, 1, 3))
    reach[name] = int(changed.sum())
assert reach == {"max-pool 3×3": 9, "learned matrix": H * W}
print("one token reaches", ", ".join(f"{n} tokens ({name})" for name, n in reach.items()))

# %% [markdown]
# ## What the ladder shows
# `python -m benchmarks.pairs RUNS` trains every rung with three seeds; its record is shown here. Identity
# must be at ln 2, or the task would be wrong.

# %%
path = RESULTS / "pairs.json"
record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"rows": [], "runs": []}
rows = [row for row in record["rows"] if row["depth"] == 1 and not row["rung"].startswith("digits")]
print("recorded, one block:" if rows else "no record here; in a clone: python -m benchmarks.pairs RUNS")
for row in sorted(rows, key=lambda row: row["test_loss"][0])[:16]:
    (loss, e), (accuracy, off) = row["test_loss"], row["test_accuracy"]
    print(f"  {row['rung']:<20} loss {loss:.3f} ± {e:.3f}   accuracy {accuracy:.1f} ± {off:.1f} %")

# %% [markdown]
# ## The figure
# Left: six pairs; look at the gap between the digits. Middle: the token grid, and which digit each token
# sees; with the gap no token sees both. Right: the test loss of the recorded runs over the epochs (where
# there is a record), or the loss of the two kinds of logits above; the dotted line is ln 2.

# %%
fig, axes = viz.figure(1, 3, size=(13, 4))
chosen = [*np.flatnonzero(y == 1)[:3], *np.flatnonzero(y == 0)[:3]]
axes[0].imshow(
    np.concatenate([np.pad(canvas[i, ..., 0], 1, constant_values=3) for i in chosen]), cmap="gray_r"
)
axes[0].set(title="three equal pairs, three unequal", xticks=[], yticks=[])
tiles = np.full((11, 16), np.nan)
for top, (left, right) in zip((1, 6), seen.values(), strict=True):
    tiles[top : top + 4, : left.shape[1]] = left + 2 * right
    for code, word in ((1, "left"), (2, "right"), (3, "both")):
        places = np.argwhere(left + 2 * right == code)
        if len(places):
            row, column = places.mean(0)
            axes[1].text(column, row + top, word, ha="center", va="center")
axes[1].imshow(tiles, cmap="Pastel1", vmin=0, vmax=8)
axes[1].set(title="what each token sees", xticks=[], yticks=[2.5, 7.5])
axes[1].set_yticklabels([f"gap {gap}" for gap in seen])
if record["runs"]:
    for row in rows:
        curves = [
            run["test_loss"] for run in record["runs"] if (run["rung"], run["depth"]) == (row["rung"], 1)
        ]
        mean = np.mean(curves, axis=0)
        line = axes[2].plot(range(1, len(mean) + 1), mean, lw=1.2)[0]
        axes[2].text(len(mean) + 0.5, mean[-1], row["rung"], fontsize=6, color=line.get_color(), va="center")
    axes[2].set(xlabel="epoch", ylabel="test loss", xlim=(0, 1.5 * len(mean)))
else:
    axes[2].bar(
        ["random sum", "best sum", "order", "mixed"], [min(draws), best, costly, mixed], color=viz.BLUE
    )
    axes[2].set_ylabel("loss")
axes[2].axhline(np.log(2), color=viz.INK, linestyle=":")
axes[2].set_title("no mixing gets below ln 2")
viz.save(fig, "16_pairs")

# %% [markdown]
# ## What was shown
# Where the label depends on two far parts of an image and on neither alone, a model that does not mix its
# tokens has a cross-entropy of at least ln 2, whatever it learns. The proof needs two facts, and both were
# checked: y has the mean ½ given either digit, and no token sees both digits. Accuracy is no such proof: an
# order of the digits has 75 %. What each mixer does with the task stands in the record.
#
# ## Five questions (answers: lessons/solutions/16_pairs.py)
#
# 1. Why are the training pairs drawn again in every epoch?
# 2. Why does the identity model solve the task when the gap is 0?
# 3. Which of the two facts fails if "different" pairs were drawn so that the digit 0 is never in them?
# 4. A learned matrix mixes all tokens, but the same way for every image. Where in the block can two digits
#    then be compared at all?
# 5. How many blocks with a 3×3 max-pool are needed until a token can know of both digits?
#
# ## Practice
#
#     python -m lessons.practice 16_pairs
#
# ★ `best_without_mixing`: the lowest cross-entropy of a model without mixing.
# ★★ `an_order`: two lists of numbers a and b whose sum a(L) + b(R) has an accuracy of 75 %.
# ★★ `mix_backward`: the gradients of the learned matrix.
# ★★★ `max_mix`: the 3×3 max-pool over a token grid, and where its gradient goes.
