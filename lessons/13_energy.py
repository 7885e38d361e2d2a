# %% [markdown]
# # 13 · Energy: what a spike saves, counted
#
# Papers on spiking transformers compare their models in millijoules. These are not measured. The operations
# are counted and each gets a price: 0.9 picojoules (pJ) for an addition, 4.6 pJ for a multiplication followed
# by an addition (a multiply-accumulate, MAC). Multiplying by a spike means adding or not adding, so spikes
# come out cheap. This lesson counts the additions one by one, and shows what the papers' number leaves out.
#
# You will be able to count the additions of a layer and of a whole model, compute the papers' energy in three
# ways, and say what it does not contain. It needs lessons 01 to 04. Twenty minutes to read, and fifteen
# seconds to run; notation and glossary: [NOTATION.md](NOTATION.md).

# %%
import json

import numpy as np

from data_utils.images.digits import load_digits
from lessons.common import RESULTS
from lessons.event_machine import EventMachine
from minispike import Tensor, create_model, no_grad, ops
from minispike.measure import viz
from minispike.measure.energy import COLUMNS, PARTS, PICOJOULES, Operations, count
from minispike.ops.conv import Convolve2d
from minispike.ops.matmul import MatMul

# %% [markdown]
# ## By hand
# A spike adds weights to the outputs that it reaches. The number of these outputs is its *fan-out*. In a 3×3
# convolution a spike reaches nine places, and fewer at a border, times the number of output channels.
#
# In attention there are no weights; spikes meet spikes. Q, K and V [N, d] hold the spikes of N tokens in d
# channels. In A = Q Kᵀ, a spike of Q in channel c makes one addition for each key that fires in channel c. In
# A V, a spike of V adds the integer A_ij, once for each query i with A_ij ≠ 0. The loops count the additions
# one by one; the library computes them from fan-outs.

# %%
rng = np.random.default_rng(13)
x, w = (rng.random((1, 4, 4, 2)) < 0.3).astype(float), rng.standard_normal((3, 3, 2, 5))
y, additions = np.zeros((1, 4, 4, 5)), 0  # [1, H, W, out]
for _, p, q, c in np.argwhere(x):
    for i, j in np.ndindex(3, 3):
        if 0 <= p + 1 - i < 4 and 0 <= q + 1 - j < 4:
            y[0, p + 1 - i, q + 1 - j] += w[i, j, c]
            additions += 5
(fan_out,) = Convolve2d.fan_out(x, w, stride=1, padding=1)  # [H, W, C], defined next to `cost` in the op
assert np.allclose(y, ops.conv2d(x, w, padding=1).data) and additions == (x * fan_out).sum()
dense = Convolve2d.cost(x.shape, w.shape, stride=1, padding=1)
print(f"convolution: {additions} additions; {x.mean():.0%} of {dense} dense MACs are {x.mean() * dense:.0f}")

Q, K, V = (rng.random((3, 8, 6)) < 0.4).astype(float)  # [N, d] each
A, pairs, sums = np.zeros((8, 8)), 0, 0
for i, j, c in np.ndindex(8, 8, 6):
    if Q[i, c] and K[j, c]:
        A[i, j] += 1
        pairs += 1
for i, j, c in np.ndindex(8, 8, 6):
    sums += bool(A[i, j] and V[j, c])
assert pairs == (Q * MatMul.fan_out(Q, K.T)[0]).sum() and sums == (V * MatMul.fan_out(A, V)[1]).sum()
print(f"attention: {pairs} coincidences and {sums} additions, for 2·N²·d = {2 * 8 * 8 * 6} dense MACs")

# %% [markdown]
# ## The gradient of a count
# The number of additions is Σ x · fan-out, the sum over all entries x of the input. It is linear in x, so its
# gradient is the fan-out. Backward can therefore find fan-outs for us: replace every weight by 1. Then the
# sum of all outputs is the number of additions, and its gradient is the fan-out, borders included.

# %%
leaf = Tensor(x, requires_grad=True)
total = ops.conv2d(leaf, np.ones_like(w), padding=1).sum()
total.backward()
assert total.item() == additions and np.array_equal(leaf.grad[0], fan_out)
print(f"fan-out = gradient of the count: {fan_out[0, 0, 0]} at a corner, {fan_out[1, 1, 0]} inside")

# %% [markdown]
# ## The library counts the same
# The next cell takes a trained Spikformer and runs it in two ways: as a network, and on an *event machine*
# (lessons/event_machine.py), which looks up and adds weights, spike by spike. After the first convolution,
# which reads the image, the machine multiplies no weight. It halves (τ = 2), it scales by a power of two, and
# it divides once at the end. `count` sees only the network and says how many additions the machine needs.

# %%
_, (images, _) = load_digits()
model = create_model("spikformer_1_64_digits", pretrained=True)  # from weights/, T = 4
images = images[:12].astype("float64")
model.to(dtype="float64").eval()
machine, found = EventMachine(model), count(model, images)
logits, spikes = machine(images), viz.spikes_of(model, images)
with no_grad():
    gap = abs(logits - model(images).data).max()
differ = sum((fired != machine.spikes[path]).sum() for path, fired in spikes.items())
n_spikes = sum(int(fired.sum()) for fired in spikes.values())
needed, counted = sum(machine.additions.values()), sum(int(row.events.ac) for row in found.rows)
assert needed == counted and differ == 0 and gap < 1e-10 and set(machine.products) == {"stem.stages.0.map"}
print(f"event by event: {needed:,} additions, counted {counted:,}; {differ} of {n_spikes:,} spikes differ")

# %% [markdown]
# ## Three ways to count
# The *active share* of an input is the share of its entries that are not 0. (The *firing rate* is something
# else: spikes per neuron and step, as they leave the neurons. After a max-pool or a sum the two differ.) The
# stream between the blocks is a sum of spikes, so it holds integers: 0, 1, 2, …
#
# - `paper`: active share · dense MACs, charged as additions wherever spikes or integers enter. The first
#   convolution reads real numbers; it is charged as MACs, and at each of the T steps.
# - `strict`: the same, but where integers enter, MACs are charged. Only 0 and 1 need no multiplication.
# - `events`: what the event machine did.
#
# Which way is chosen matters. For Spikformer's model 8-384, its own table has 7.7 mJ. Tables that charge
# integers as MACs give 12.4 mJ for the same model.

# %%
for column in COLUMNS:
    parts = ", ".join(f"{part} {found.joules(column, part) / found.joules(column):.0%}" for part in PARTS)
    print(f"{column:<7} {1e9 * found.joules(column):6.0f} nJ an image: {parts}")
assert found.joules("strict") > 1.5 * found.joules("paper") > found.joules("events")
for published, ops_published in ((7.734, 6.82e9), (11.577, 11.09e9), (13.899, 13.67e9), (21.477, 22.09e9)):
    joules = Operations(ac=ops_published, mac=4 * 9 * 3 * 64 * 224**2).joules()
    assert abs(1e3 * joules - published) < 0.001
print("Spikformer's four ImageNet energies = 0.9 pJ · its published operations (OPs)")
print("  + 1.595 mJ, its first convolution T times, with 64 channels: to 0.001 mJ")

# %% [markdown]
# ## Break it
# Two mistakes look plausible. A counter that watches only layers (by hooks, as is usual) never sees SSA's two
# products, because they belong to no layer. And a counter in which each spike reaches all nine places forgets
# the borders. The event machine disagrees with both.

# %%
hooked = sum(row.events.ac for row in found.rows if row.op != "MatMul")
borderless = sum(row.paper.ac if row.op == "Convolve2d" else row.events.ac for row in found.rows)
assert hooked < needed < borderless
print(f"without SSA's products {hooked / needed - 1:+.1%}, without borders {borderless / needed - 1:+.1%}")

# %% [markdown]
# ## How it moves with T and with the mixer
# The record below holds three seeds of the 64-wide model for each *mixer*, the part of a block that mixes
# tokens. `ssa` is attention (lesson 03), `fft1d` … `wavelets` are fixed transforms (lessons 05, 06), `sasa`
# is SAFormer's (lesson 09), and `identity` does not mix at all. The attention-free papers (arXiv 2308.02557,
# 2403.18228) claim 20 to 25 % less energy than SSA, for whole models on CIFAR and event data. SAFormer (arXiv
# 2412.13553) claims to be more efficient than SSA; it drops V, one of four maps.
#
# Accuracy stands next to the energy, because saving is easy for a model that does not work.

# %%
path, table, right = RESULTS / "energy.json", {}, {}
for run in json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else []:
    right.setdefault((run["mixer"], run["T"]), []).append(run["test_accuracy"])
    for column in COLUMNS:
        table.setdefault((column, run["mixer"], run["T"]), []).append(sum(run["nJ"][column].values()))
table = {key: float(np.mean(values)) for key, values in table.items()}
mixers, steps = (list(dict.fromkeys(key[i] for key in table)) for i in (1, 2))
change = {m: [table[c, m, 4] / table[c, "ssa", 4] - 1 for c in COLUMNS] for m in mixers}
recorded = "`python -m benchmarks.energy`: nJ at T = 1, 2, 4 (paper); at T = 4 accuracy, energy against SSA"
print(recorded if table else "no record here; in a clone: python -m benchmarks.energy")
for mixer in mixers:
    energies = " ".join(f"{table['paper', mixer, T]:6.0f}" for T in steps)
    ratios = ", ".join(f"{c} {r:+.0%}" for c, r in zip(COLUMNS, change[mixer], strict=True))
    print(f"  {mixer:<9}{energies}   {np.mean(right[mixer, 4]):.1%}   {ratios}")
theirs = (0.392, 0.523), (0.578, 0.748), (0.752, 0.943), (0.650, 0.822)  # mJ, 1D-FFT and SSA
claims = ", ".join(f"{fft / ssa - 1:+.0%}" for fft, ssa in theirs)
print(f"  the papers' fft1d, on CIFAR-10, CIFAR-100, CIFAR10-DVS, Gesture: {claims}")
saved = {mixer: change[mixer][0] for mixer in mixers[1:]}
few = [saved.pop(mixer) for mixer in ("sasa", "sasa+dwc") if mixer in saved]  # one map of four is gone
assert not few or -0.1 < min(few) < max(few) < 0
assert not saved or -0.3 < min(saved.values()) < max(saved.values()) < -0.1  # identity among them
assert not table or abs(np.mean(right["identity", 4]) - np.mean(right["ssa", 4])) < 0.006  # two images

# %% [markdown]
# ## What the count leaves out
# By the papers' prices a spiking network of four steps cannot lose. If *every* neuron fired at all four steps
# it would pay 4 · 0.9 = 3.6 pJ where an ordinary network pays 4.6. But memory is not in the price. Each
# addition needs its weight, and each membrane potential is read and written at every step. A 32-bit number
# from a small on-chip memory costs about 5 pJ, and one from DRAM 640 pJ (45 nm, as quoted in arXiv
# 1506.02626). Both are more than any addition.
#
# A study that includes memory and data movement (arXiv 2409.08290) finds that firing rates must be below
# about 6 % if a spiking network is to need less energy than an equivalent quantised network (6.4 % for T = 5
# … 10 in the study's third version, 5.7 % for T = 5 in its fourth).

# %%
rate = sum(float(fired.sum()) for fired in spikes.values()) / sum(fired.size for fired in spikes.values())
assert 4 * PICOJOULES["ac"] < PICOJOULES["mac"] and rate > 2 * 0.064
print(f"our neurons' firing rate is {rate:.0%}, break-even is near 6 %")
print(f"with one on-chip fetch for each, an addition costs {1 + 5 / PICOJOULES['ac']:.1f} times as much")

# %% [markdown]
# ## The figure
# Left: the trained model, layer by layer. Above, the active share of what enters; look at q, k, v and fc1,
# which read the stream of integers. Below, the energy (pale: `paper`, full: `events`); look at the first
# layer, where an event machine skips the black pixels, and at fc1, where a 2 is added twice.
# Middle: above, energy grows with T in proportion; look at the lines, which fall into two groups. Below,
# energy against SSA; look at `identity`, which saves as much as the transforms do.
# Right: above, accuracy against energy, each seed a point; look at `identity` next to `ssa`. Below, the
# additions of Q Kᵀ for the token framed in blue: the more orange a place, the more channels in which its key
# and the token's query both fire.

# %%
fig, axes = viz.figure(2, 3, size=(14.5, 7.8), width_ratios=(3, 2, 1.9))
joules = {c: [getattr(row, c).joules() / found.images for row in found.rows] for c in ("paper", "events")}
names, parts = [row.label for row in found.rows], [row.part for row in found.rows]
viz.layer_bars(axes[:, 0], names, parts, [row.active_share for row in found.rows], joules)
axes[0, 0].set_title("a small Spikformer on digits, layer by layer")
colors = (viz.INK, viz.BLUE, "#7fb2e5", viz.GREEN, "#8fce9f", viz.ORANGE, "#f2b98c", viz.GREY)
for mixer, color in zip(mixers, colors, strict=False):
    energies = [table["paper", mixer, T] for T in steps]
    dash = (0, (4, 3)) if mixer in ("haar", "identity") else "-"  # they lie on fft1d
    axes[0, 1].plot(steps, energies, color=color, marker="o", linestyle=dash, label=mixer)
    points = [100 * each for each in right[mixer, 4]]
    axes[0, 2].plot([energies[-1]] * len(points), points, "o", color=color, alpha=0.5, markersize=4)
    axes[0, 2].plot(energies[-1], np.mean(points), "_", color=color, markersize=16, markeredgewidth=3)
    if mixer in ("ssa", "identity"):
        at = (energies[-1], np.mean(points))
        axes[0, 2].annotate(mixer, at, (0, -40), textcoords="offset points", fontsize=9, ha="center")
axes[0, 1].set(title="energy grows with time (paper)", xlabel="time steps T", ylabel="nJ an image", ylim=0)
axes[0, 1].set_xticks(steps)
axes[0, 2].set(title="accuracy, T = 4 (bar: mean)", xlabel="nJ an image (paper)", ylabel="test accuracy, %")
axes[0, 2].set(ylim=(96, 100.2), xlim=(1420, 2000))
for i, (column, color) in enumerate(zip(COLUMNS, (viz.ORANGE, viz.GREY, viz.BLUE), strict=True)):
    places = np.arange(len(mixers[1:])) + 0.27 * (i - 1)
    axes[1, 1].bar(places, [100 * change[mixer][i] for mixer in mixers[1:]], 0.25, color=color, label=column)
axes[1, 1].axhspan(-25, -20, color=viz.ORANGE, alpha=0.2, linewidth=0, zorder=0, label="the papers' claim")
axes[1, 1].set(title="other mixers, T = 4", ylabel="energy against SSA, %", ylim=(-60, 0))
axes[1, 1].set_xticks(range(len(mixers[1:])), mixers[1:], rotation=25)
for ax in axes[:, 1]:
    ax.legend(frameon=False, fontsize=9, ncols=2, loc="best" if ax is axes[0, 1] else "lower center")
pairs = viz.attention_map(spikes, "blocks.0.mixer", 4).sum((0, 2))  # [B, N, N], over time and heads
digit = int(pairs.sum((1, 2)).argmax())
token = int(pairs[digit].sum(1).argmax())
title = f"Q Kᵀ of one token: {pairs[digit, token].sum():.0f} additions"
viz.attention_over(axes[1, 2], images[digit, :, :, 0], pairs[digit, token], token, title)
viz.save(fig, "13_energy")

# %% [markdown]
# ## What was shown
# What does a spike save? A trained Spikformer runs on additions: the event machine made exactly as many as
# were counted, 22 million for twelve digits, and no spike differed. In the papers' arithmetic that is about
# 1.9 µJ an image. It depends on the rules: 3.6 µJ if integers are charged as multiplications, 1.7 µJ if
# events are counted. Memory is in none of them, and it decides on real hardware.
#
# Replacing attention by a transform saves 18 to 21 %, about what the papers claim (here on another task and
# at another size). A model that does not mix at all saves 21 % too, because what goes are SSA's four maps,
# and it is right on 98.9 % of the digits, where SSA has 99.1 %: less than one image of 360. (In an earlier
# record of three other seeds, lessons 04 and 10, identity has 98.9 % and SSA 98.5 %.) So on digits attention
# buys nothing, and saving it says nothing about the transforms either. Lesson `16_pairs` has a task that no
# model without mixing can solve. There it shows what each mixer's energy buys.
#
# ## Five questions (answers: lessons/solutions/13_energy.py)
#
# 1. A 3×3 convolution (padding 1, five output channels) reads a map with 4×4 places. What is the fan-out of a
#    spike at a corner, at an edge, inside? And inside, if the stride is 2?
# 2. Why is `strict` nearly twice `paper`? Which layers of the trained model make the difference?
# 3. Can the additions of Q Kᵀ be computed from the firing rates of q and k? Give an example.
# 4. Spikformer's table has 21.477 mJ for 8-768, at 22.09 G operations. What would it be if the first
#    convolution were charged once, not T = 4 times, and with the 96 channels that this model has?
# 5. Let each addition and each MAC fetch its weight from on-chip memory, at 5 pJ. Below which firing rate
#    does a spiking network of T = 4 steps win? What if the ordinary network uses a fetched weight for 100
#    places of an image before it fetches the next? Why is even that more than the study's 6 %?
#
# ## Practice
#
#     python -m lessons.practice 13_energy
#
# ★ `loses`: predict at which T even the papers' prices turn against a network that always fires.
#
# ★★ `fan_out`: say how many outputs each entry of a convolution's input reaches; it then counts a model's
# stem.
#
# ★★ `attention_additions`: count the additions of (Q Kᵀ) V; it then counts a model's attention.
#
# ★★ `three_counts`: price a linear layer in the three ways; it then prices a model's layers.
#
# ★★★ `expected_additions`: derive how many additions attention takes on average.
