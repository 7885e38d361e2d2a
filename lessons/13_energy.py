# %% [markdown]
# # 13 · Energy: what a spike saves, counted
#
# Every paper on spiking transformers ends in a column of millijoules. Nobody held a meter: operations were
# counted and priced, 0.9 pJ an addition, 4.6 pJ a multiply-accumulate (MAC), because multiplying by a spike
# is adding or not adding. So the column is an argument. How is it made, and what does it leave out?

# %%
import json

import numpy as np

from data_utils.images.digits import load_digits
from lessons.common import RESULTS, train_on_digits
from lessons.event_machine import EventMachine
from minispike import Tensor, create_model, no_grad, ops
from minispike.measure import viz
from minispike.measure.energy import COLUMNS, PARTS, PICOJOULES, Operations, count
from minispike.ops.conv import Convolve2d
from minispike.ops.matmul import MatMul

# %% [markdown]
# ## By hand
# A spike adds a column of weights to the outputs that it reaches: its *fan-out*. In a 3×3 convolution that is
# 9 places, at a border fewer. In A = Q Kᵀ it is the keys that fire in the same channel; in A V a spike of V
# adds one integer for each query whose A_ij is not 0. Loops, additions counted one by one.

# %%
rng = np.random.default_rng(13)
x, w = (rng.random((1, 4, 4, 2)) < 0.3).astype(float), rng.standard_normal((3, 3, 2, 5))
y, additions = np.zeros((1, 4, 4, 5)), 0  # [1, H, W, out]
for _, p, q, c in np.argwhere(x):
    for i, j in np.ndindex(3, 3):
        if 0 <= p + 1 - i < 4 and 0 <= q + 1 - j < 4:
            y[0, p + 1 - i, q + 1 - j] += w[i, j, c]
            additions += 5
(fan_out,) = Convolve2d.fan_out(x, w, stride=1, padding=1)  # [H, W, C], beside `cost` in the op
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
# The count Σ x · fan-out is linear in x, so the fan-out is its gradient. Put 1 in the place of every weight:
# then the outputs' sum is the count itself, and backward finds the fan-out, borders and all.

# %%
leaf = Tensor(x, requires_grad=True)
total = ops.conv2d(leaf, np.ones_like(w), padding=1).sum()
total.backward()
assert total.item() == additions and np.array_equal(leaf.grad[0], fan_out)
print(f"fan-out = gradient of the count: {fan_out[0, 0, 0]} at a corner, {fan_out[1, 1, 0]} inside")

# %% [markdown]
# ## The library counts the same
# Train a small Spikformer for a few seconds and run it twice: as a network, and on a machine that looks up
# and adds weights, event by event. After the first convolution it multiplies nothing: it halves (τ = 2),
# scales by a power of two, and divides once. `count` sees the network only, and says what the machine needs.

# %%
_, (images, _) = load_digits()
model = create_model("spikformer_1_64_digits", embed_dim=32, num_heads=2, T=2, rng=0)
train_on_digits(model, epochs=6, progress=False)
images = images[:60].astype("float64")
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
# `paper`: active share · dense MACs, as additions wherever spikes or integers enter, and the first
# convolution T times. (*Active share*: what is not 0, among the entries that enter. *Firing rate*: spikes
# per neuron and step, as they leave the neurons.) `strict`: integers are no spikes, what they enter is
# multiplied; the stream between blocks holds them. `events`: what the machine above did. For one model,
# 8-384, Spikformer's own table has 7.7 mJ; where others count it with integers multiplied, it is 12.4.

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
# A counter that hangs on layers never sees SSA's products: they belong to no layer. And a count that lets
# every spike reach everything forgets the borders. Both look plausible; the machine disagrees.

# %%
hooked = sum(row.events.ac for row in found.rows if row.op != "MatMul")
borderless = sum(row.paper.ac if row.op == "Convolve2d" else row.events.ac for row in found.rows)
assert hooked < needed < borderless
print(f"without SSA's products {hooked / needed - 1:+.1%}, without borders {borderless / needed - 1:+.1%}")

# %% [markdown]
# ## How it moves with T and with the mixer
# Recorded over three seeds of the 64-wide model. The attention-free papers (arXiv 2308.02557, 2403.18228)
# claim −20 … −25 % against SSA, for whole models on CIFAR and event data. SAFormer (arXiv 2412.13553) claims
# to be more efficient than SSA: it drops V, one of four maps, and sums keys first (lesson 09).

# %%
path, table = RESULTS / "energy.json", {}
for run in json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else []:
    for column in COLUMNS:
        table.setdefault((column, run["mixer"], run["T"]), []).append(sum(run["nJ"][column].values()))
table = {key: float(np.mean(values)) for key, values in table.items()}
mixers, steps = (list(dict.fromkeys(key[i] for key in table)) for i in (1, 2))
change = {m: [table[c, m, 4] / table[c, "ssa", 4] - 1 for c in COLUMNS] for m in mixers}
recorded = "recorded by `python -m benchmarks.energy`: nJ at T = 1, 2, 4 (paper), then T = 4 against SSA"
print(recorded if table else "no record here; in a clone: python -m benchmarks.energy")
for mixer in mixers:
    energies = " ".join(f"{table['paper', mixer, T]:6.0f}" for T in steps)
    ratios = ", ".join(f"{c} {r:+.0%}" for c, r in zip(COLUMNS, change[mixer], strict=True))
    print(f"  {mixer:<9}{energies}   {ratios}")
theirs = (0.392, 0.523), (0.578, 0.748), (0.752, 0.943), (0.650, 0.822)  # mJ, 1D-FFT and SSA
claims = ", ".join(f"{fft / ssa - 1:+.0%}" for fft, ssa in theirs)
print(f"  the papers' fft1d, on CIFAR-10, CIFAR-100, CIFAR10-DVS, Gesture: {claims}")
saved = {mixer: change[mixer][0] for mixer in mixers[1:]}
few = [saved.pop(mixer) for mixer in ("sasa", "sasa+dwc") if mixer in saved]  # one map of four is gone
assert not few or -0.1 < min(few) < max(few) < 0
assert not saved or -0.3 < min(saved.values()) < max(saved.values()) < -0.1  # identity among them

# %% [markdown]
# ## What the count leaves out
# In the papers' arithmetic a spiking network of four steps cannot lose: if *every* neuron fired at all T =
# 4 steps it would pay 4 · 0.9 = 3.6 pJ where a plain network pays 4.6. But each addition needs its weight,
# and each membrane is read and written at every step. A 32-bit word from a small on-chip memory costs about
# 5 pJ, from DRAM 640 (45 nm, as quoted in arXiv 1506.02626): more than any addition. A study with memory
# and data movement (arXiv 2409.08290) finds that the firing rate must be below about 6 % if a spiking
# network is to beat an equivalent quantised one (6.4 % for T = 5 … 10 in its third version, 5.7 % for T = 5
# in its fourth).

# %%
rate = sum(float(fired.sum()) for fired in spikes.values()) / sum(fired.size for fired in spikes.values())
assert 4 * PICOJOULES["ac"] < PICOJOULES["mac"] and rate > 2 * 0.064
print(f"our neurons' firing rate is {rate:.0%}, break-even is near 6 %")
print(f"with one on-chip fetch for each, an addition costs {1 + 5 / PICOJOULES['ac']:.1f} times as much")

# %% [markdown]
# ## The figure
# On the right what is counted: the spikes of one token's keys, and the pairs of Q Kᵀ, one addition each (of
# the token framed in blue; the more orange a place, the more).

# %%
fig, axes = viz.figure(2, 3, size=(14, 7.6), width_ratios=(3, 2, 1.5))
joules = {c: [getattr(row, c).joules() / found.images for row in found.rows] for c in ("paper", "events")}
names, parts = [row.label for row in found.rows], [row.part for row in found.rows]
viz.layer_bars(axes[:, 0], names, parts, [row.active_share for row in found.rows], joules)
axes[0, 0].set_title("a small Spikformer on digits, layer by layer")
colors = (viz.INK, viz.BLUE, "#7fb2e5", viz.GREEN, "#8fce9f", viz.ORANGE, "#f2b98c", viz.GREY)
for mixer, color in zip(mixers, colors, strict=False):
    energies = [table["paper", mixer, T] for T in steps]
    dash = (0, (4, 3)) if mixer in ("haar", "identity") else "-"  # they lie on fft1d
    axes[0, 1].plot(steps, energies, color=color, marker="o", linestyle=dash, label=mixer)
axes[0, 1].set(title="energy grows with time (paper)", xlabel="time steps T", ylabel="nJ an image", ylim=0)
axes[0, 1].set_xticks(steps)
for i, (column, color) in enumerate(zip(COLUMNS, (viz.ORANGE, viz.GREY, viz.BLUE), strict=True)):
    places = np.arange(len(mixers[1:])) + 0.27 * (i - 1)
    axes[1, 1].bar(places, [100 * change[mixer][i] for mixer in mixers[1:]], 0.25, color=color, label=column)
axes[1, 1].axhspan(-25, -20, color=viz.ORANGE, alpha=0.2, linewidth=0, zorder=0, label="the papers' claim")
axes[1, 1].set(title="other mixers, T = 4", ylabel="energy against SSA, %", ylim=(-60, 0))
axes[1, 1].set_xticks(range(len(mixers[1:])), mixers[1:], rotation=25)
for ax in axes[:, 1]:
    ax.legend(frameon=False, fontsize=9, ncols=2, loc="best" if ax is axes[0, 1] else "lower center")
pairs = viz.attention_map(spikes, "blocks.0.mixer", 2).sum((0, 2))  # [B, N, N], over time and heads
digit = int(pairs.sum((1, 2)).argmax())
token = int(pairs[digit].sum(1).argmax())
viz.raster(axes[0, 2], spikes["blocks.0.mixer.k.neuron"][:, digit, token], "keys of one token")
title = f"Q Kᵀ of one token: {pairs[digit, token].sum():.0f} additions"
viz.attention_over(axes[1, 2], images[digit, :, :, 0], pairs[digit, token], token, title)
viz.save(fig, "13_energy")

# %% [markdown]
# ## What was shown
# A trained Spikformer runs on additions, exactly as many as were counted. The papers' formula is close to
# that count as long as integers pass for spikes; where they are multiplied the energy nearly doubles.
# Replacing attention saves about what the papers say, here on another task and size, and a model that does
# not mix at all saves it too: what goes are SSA's four maps. SASA saves 5 %, V's map. Memory, which no column
# holds, decides on real hardware.
#
# ## Exercises (solutions: lessons/solutions/13_energy.py)
#
# ★ Predict: from which T on does a network in which every neuron fires at every step cost more, by the
# papers' prices, than one that multiplies once? Set `T_loses`.
#
#     assert 0.9 * (T_loses - 1) < 4.6 < 0.9 * T_loses
#
# ★★ Re-derive: q, k, v fire independently with probability p. How many additions does (Q Kᵀ) V take on
# average, for N tokens and d channels? Write `expected(N, d, p)`.
#
#     assert abs(measured(64, 32, 0.2) / expected(64, 32, 0.2) - 1) < 0.02
#
# ★★★ From the paper: charge the published 21.477 mJ of 8-768 again, its first convolution with the 96
# channels that the model has, and once, not T times. Set `millijoules`.
#
#     assert abs(millijoules - (21.477 - 0.997)) < 0.001
