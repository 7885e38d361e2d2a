# %% [markdown]
# # 15 · Fewer spikes: put a price on them, and train
#
# A spike costs additions, one for each output that it reaches (lesson 13). None of the four papers tells the
# network so: the loss asks for right answers, and a trained model fires as it likes. Here the bill becomes a
# part of the loss. What does one spike cost? How does the bill reach a neuron? And how much can be saved?

# %%
import json
from functools import partial

import numpy as np

from data_utils.images.digits import load_digits
from data_utils.loader import Loader
from lessons.common import RESULTS, train_on_digits, wake
from minispike import Tensor, create_model, fit, lif, ops, trace
from minispike.measure import viz
from minispike.measure.energy import additions_per_image
from minispike.measure.price import Additions, priced
from minispike.optim import AdamW
from minispike.surrogate import Rectangle, Sigmoid
from minispike.train import classify, set_gains

(images, labels), (test_images, test_labels) = load_digits()

# %% [markdown]
# ## By hand
# The price of a run is the number of its additions, as a share of the multiply-accumulates (MACs) that a
# dense network of its shape would need:
#
#     price = Σ x · fan / MACs        x: the entries that a map reads; fan: the outputs that an entry reaches
#
# Fan-outs are constants, so gX = fan / MACs. This holds for an entry that is 0, too: it is what a spike would
# cost there. From a neuron's spikes the gradient goes back as any gradient does (lesson 01):
#
#     gH[t] = gS[t] g'(H[t] − 1) + gV[t] (1 − S[t])        gX[t] = gH[t] / τ        gV[t−1] = gH[t] (1 − 1/τ)
#
# Below, a map with three outputs and one with five read the same spikes. So a spike costs eight additions.

# %%
rng, T, N, C, tau = np.random.default_rng(15), 4, 6, 2, 2.0
x = 2 * rng.standard_normal((T, N, C))
current = Tensor(x, requires_grad=True)
spent = Additions(current)  # follows what comes from `current`, and prices each contraction
with trace(spent):
    s = lif(current, tau=tau)  # [T, N, C]
    ops.linear(s, rng.standard_normal((C, 3)))
    ops.linear(s, rng.standard_normal((C, 5)))
price = spent.total * (1 / spent.macs)
price.backward()

additions, gx, macs = 0, np.zeros_like(x), T * N * C * (3 + 5)
for n, c in np.ndindex(N, C):
    v, h, fired = 0.0, np.zeros(T), np.zeros(T)
    for t in range(T):
        h[t] = v + (x[t, n, c] - v) / tau
        fired[t] = h[t] >= 1
        v = 0.0 if fired[t] else h[t]
        additions += 8 * int(fired[t])
    gv = 0.0
    for t in reversed(range(T)):
        gh = 8 / macs * Sigmoid(4.0).g_prime(h[t] - 1) + gv * (1 - fired[t])
        gx[t, n, c], gv = gh / tau, gh * (1 - 1 / tau)
assert additions == spent.total.item() and macs == spent.macs and np.allclose(gx, current.grad)
print(f"{s.data.sum():.0f} spikes cost {additions} of {macs} additions: price {price.item():.3f}")
print(f"its gradient by loops = autograd's; {(gx > 0).mean():.0%} of all entries feel it, silent ones too")

# %% [markdown]
# ## What a spike costs in a Spikformer
# A token's spike is read by q, k and v, 64 outputs each, and by fc1, 128: it costs 320 additions itself. But
# it also drives neurons, whose spikes cost additions. The gradient adds both up: through the residual sum a
# spike feels every later map, and through the neurons what it sets off.

# %%
model = create_model("spikformer_1_64_digits", rng=0)
wake(model, images[:64])
model.eval()  # in training, batch norm takes the mean out of every gradient
tokens = model.stem(images[None, :64], T=4).data  # [T, B, N, D]
tokens = Tensor(tokens, requires_grad=True)
spent = Additions(tokens)
with trace(spent):
    model.blocks[0](tokens)
spent.total.backward()
itself, bill = 3 * 64 + 128, tokens.grad.mean((0, 1, 2))  # [D]
print(f"a token's spike costs {itself} additions itself; with what it sets off, {bill.mean():.0f} on")
print(f"  average, from {bill.min():.0f} to {bill.max():.0f} by channel: some keep other neurons from firing")
assert bill.min() < itself < bill.max()

# %% [markdown]
# ## Training with a price
# Loss + λ · price, for four λ: a small Spikformer (D = 32, T = 2) and ten epochs.

# %%
small = dict(embed_dim=32, num_heads=2, T=2, rng=0)
lambdas, rates, ends = (0.0, 0.5, 1.0, 2.0), [], []
for price in lambdas:
    model = create_model("spikformer_1_64_digits", **small)
    accuracy = train_on_digits(model, epochs=10, price=price, progress=False)[-1]["test_accuracy"]
    ends.append((accuracy, additions_per_image(model, test_images, 60)))
    rates.append(viz.firing_rates(model, test_images))
    share = ends[-1][1] / ends[0][1]
    print(f"λ = {price:g}: test {accuracy:.1%}, {ends[-1][1]:,.0f} additions an image, {share:.0%}")
accuracies, costs = zip(*ends, strict=True)
assert list(costs) == sorted(costs, reverse=True) and costs[2] < 0.75 * costs[0]
assert accuracies[2] > accuracies[0] - 0.05  # one digit is 0.3 points

# %% [markdown]
# ## Break it: a price that silences
# With λ = 100 the fastest way down is silence. Batch norm does not prevent it: the price moves its gain and
# its bias, until no current reaches the threshold. A layer whose input is silent is worse off, for batch norm
# makes a constant out of a constant: all its neurons get the current β. Then set λ to 0 again. Does the
# network wake? Sigmoid's slope is small far from the threshold, but never 0. Rectangle's is exactly 0 where
# H is more than a half below: there nothing can learn, neither from the loss nor from the price.

# %%
phases = (0.0, 2), (100.0, 3), (0.0, 4)  # λ, epochs
surrogates = {"Sigmoid(4)": Sigmoid(4.0), "Rectangle(1)": Rectangle(1.0)}
course = {}
for name, surrogate in surrogates.items():
    model = create_model("spikformer_1_64_digits", surrogate=surrogate, **small)
    set_gains(model, 2)
    optimizer, seen = AdamW(model.parameters(), lr=3e-3, weight_decay=0.06), []

    def look(record, model=model, seen=seen):
        found = viz.firing_rates(model, test_images)
        seen.append((record["test_accuracy"], list(found.values())))

    for price, epochs in phases:
        objective = partial(classify, label_smoothing=0.1)
        objective = priced(objective, price) if price else objective
        data = {"batches": Loader(images, labels, 32), "test": Loader(test_images, test_labels, 180)}
        fit(model, optimizer, **data, epochs=epochs, objective=objective, on_epoch=look, progress=False)
    model.train()
    optimizer.zero_grad()
    classify(model, images[:64], labels[:64])[0].backward()
    slope = max(float(abs(p.grad).max()) for path, p in model.named_parameters() if path.startswith("stem"))
    course[name] = seen
    (before, _), (_, silenced), (after, woken) = seen[1], seen[4], seen[-1]
    dead = sum(rate == 0 for rate in silenced), sum(rate == 0 for rate in woken)
    print(f"{name}: {before:.0%}; after λ = 100, {dead[0]} of {len(silenced)} layers are silent;")
    print(f"  λ = 0 again: {dead[1]} silent, {after:.0%}, the stem's largest gradient is {slope:.0e}")
assert dead[0] == dead[1] > 3 and slope == 0 and course["Sigmoid(4)"][-1][0] > course["Rectangle(1)"][-1][0]

# %% [markdown]
# ## What it brings on Fashion-MNIST
# `python -m benchmarks.sparse RUNS` takes some hours. It trains the small Spikformer with three prices, of
# which one is chosen on training pictures that are held out, and its honest rival, fewer time steps. Where
# its record is, it is shown here. Milliseconds are those of inference, where few spikes go by events.

# %%
path = RESULTS / "sparse.json"
record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"rows": {}, "measured": []}
rows = {name: row for name, row in record["rows"].items() if name.startswith("Spikformer")}
times = {row["variant"]: row["ms an image"]["events, inference"] for row in record["measured"]}
print("recorded by python -m benchmarks.sparse" if rows else "no record here; in a clone: benchmarks.sparse")
for name, row in rows.items():
    about = f"{row['accuracy']:.2f} ± {row['error']:.2f} %, {row['additions'] / 1e6:.2f} M additions"
    print(f"  {name:<22} {about}, {times[name]:.2f} ms")

# %% [markdown]
# ## The figure
# Above: accuracy over additions and over milliseconds, of the record, where there is one; else of this
# lesson's digits. Below: what the price does to each layer, and how a network falls silent.

# %%
fig, axes = viz.figure(2, 2, size=(11, 7.4))
if rows:
    prices = [name for name in rows if "T =" not in name]
    steps = [name for name in rows if "price" not in name]
    for chosen, color, label in ((prices, viz.ORANGE, "a price on spikes"), (steps, viz.GREY, "T = 4, 2, 1")):
        chosen = sorted(chosen, key=lambda name: rows[name]["additions"])
        y, error = ([rows[name][key] for name in chosen] for key in ("accuracy", "error"))
        million = [rows[name]["additions"] / 1e6 for name in chosen]
        for ax, x in zip(axes[0], (million, [times[name] for name in chosen]), strict=True):
            ax.errorbar(x, y, error, fmt="o-", color=color, capsize=2, label=label)
    axes[0, 1].set(title="and over time", xlabel="ms for a picture, two cores", ylabel="test accuracy, %")
else:
    axes[0, 0].plot([cost / 1e6 for cost in costs], [100 * a for a in accuracies], "o-", color=viz.ORANGE)
    for price, cost, accuracy in zip(lambdas, costs, accuracies, strict=True):
        axes[0, 0].text(cost / 1e6, 100 * accuracy - 0.9, f"λ = {price:g}", ha="center", fontsize=8)
    axes[0, 1].axis("off")
axes[0, 0].set(title="accuracy over additions", ylabel="test accuracy, %")
axes[0, 0].set_xlabel("million additions an image")
names = [path.removesuffix(".neuron").removeprefix("blocks.") for path in rates[0]]
for found, color, price in ((rates[0], viz.GREY, lambdas[0]), (rates[2], viz.ORANGE, lambdas[2])):
    offset = 0.2 if price else -0.2
    places = np.arange(len(names)) + offset
    axes[1, 0].barh(places, [100 * rate for rate in found.values()], 0.4, color=color, label=f"λ = {price:g}")
axes[1, 0].set_yticks(range(len(names)), names, fontsize=7)
axes[1, 0].invert_yaxis()
axes[1, 0].set(title="digits: each layer fires less", xlabel="firing rate, %")
for (name, seen), color in zip(course.items(), (viz.BLUE, viz.ORANGE), strict=True):
    mean = [100 * np.mean(found) for _, found in seen]
    axes[1, 1].plot(range(1, len(mean) + 1), mean, "o-", color=color, label=name)
axes[1, 1].axvspan(2.5, 5.5, color=viz.GREY, alpha=0.15, linewidth=0, label="λ = 100")
axes[1, 1].set(title="a price that silences", xlabel="epoch", ylabel="mean firing rate, %", ylim=0)
for ax in axes.flat:
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, fontsize=9)
viz.save(fig, "15_sparse")

# %% [markdown]
# ## What was shown
# A price on additions is one term of the loss. Held fan-outs make its gradient simple: every entry feels what
# a spike costs there, and the surrogate carries that to the neuron. A moderate price saves a good part of the
# additions for little accuracy. A large one silences the network, and with a surrogate that is 0 far from the
# threshold, it never wakes.
#
# ## Exercises (solutions: lessons/solutions/15_sparse.py)
#
# ★ Predict: what is the price of a linear map whose input is all ones, and of one whose input is all twos?
# Set `of_ones` and `of_twos`.
#
#     assert (of_ones, of_twos) == (price_of(1.0), price_of(2.0))
#
# ★★ Re-derive: in Q Kᵀ, where q is counted, the price tells k nothing. By how much do the additions really
# grow when k_jc turns from 0 to 1? Write `growth(q, c)` for q [N, d].
#
#     assert growth(q, 2) == additions_of(q, fired) - additions_of(q, k)
#
# ★★★ Extend: put a price only on additions above a budget, λ · max(0, price − budget). Write
# `budgeted(objective, weight, budget)` as `priced` is written.
#
#     assert below == 0 and np.isclose(above, 2.0 * (whole - 0.01))
