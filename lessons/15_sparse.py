# %% [markdown]
# # 15 · Fewer spikes: put a price on them, and train
#
# A spike costs additions, one for each output that it reaches (lesson 13). None of the four papers tells the
# network so. Its loss asks only for right answers, and a trained model fires as often as it likes. Here the
# number of additions becomes part of the loss. How does this price reach a neuron, and how much does it save?
#
# You will be able to put a price on a network's spikes, derive its gradient, and say when a price silences a
# network for good. It needs lessons 01, 04 and 13. Fifteen minutes to read, and fifty seconds to run (it
# trains five small models and shows how far it is); notation and glossary: [NOTATION.md](NOTATION.md).

# %%
import json
from functools import partial

import numpy as np

from data_utils.images.digits import load_digits
from data_utils.loader import Loader
from lessons.common import RESULTS, train_on_digits, wake
from minispike import Tensor, create_model, evaluate, fit, lif, ops, trace
from minispike.measure import viz
from minispike.measure.energy import additions_per_image
from minispike.measure.price import Additions, priced
from minispike.optim import AdamW
from minispike.surrogate import Rectangle, Sigmoid
from minispike.train import classify, set_gains

(images, labels), (test_images, test_labels) = load_digits()

# %% [markdown]
# ## By hand
# A map reads entries x (spikes, or sums of spikes), and each entry reaches some outputs. Their number is its
# fan-out. The price of a run is the number of its additions, as a share of the multiply-accumulates (MACs)
# that an ordinary, dense network of the same shape needs:
#
#     price = Σ x · fan-out / MACs        the sum is over all entries of all maps
#
# Fan-outs are treated as constants. So the slope of the price along an entry is fan-out / MACs. This is also
# the slope where x = 0: it is what a spike would cost there, if there were one. From a neuron's spikes S the
# slope goes back to its current X as in lesson 01 (g′ is the surrogate's slope at H[t] − 1; L is the price):
#
#     ∂L/∂H[t] = ∂L/∂S[t] g′ + ∂L/∂V[t] (1 − S[t])
#     ∂L/∂X[t] = ∂L/∂H[t] / τ                    ∂L/∂V[t−1] = ∂L/∂H[t] (1 − 1/τ)
#
# Below, a map with three outputs and a map with five read the same spikes, so a spike costs eight additions.
# In the code, gv, gh and gx are ∂L/∂V, ∂L/∂H and ∂L/∂X.

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
assert additions == spent.total.item() and macs == spent.macs
assert np.allclose(gx, current.grad)
print(f"{s.data.sum():.0f} spikes cost {additions} of {macs} additions: price {price.item():.3f}")
print(f"its gradient by loops = autograd's; {(gx > 0).mean():.0%} of all entries feel it, silent ones too")

# %% [markdown]
# ## What a spike costs in a Spikformer
# A spike in a token is read by four maps: q, k and v with 64 outputs each, and the MLP's first map, fc1, with
# 128. It costs 320 additions itself. But it also drives neurons, or keeps them silent, and their spikes cost
# additions, too. The gradient adds all of this up. The cell prints it for the tokens that enter a block of an
# untrained model which was made to fire.

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
# The loss becomes loss + λ · price. Here a small Spikformer (D = 32, T = 2) is trained for six epochs with
# three values of λ. That is short, so expect few right answers, and compare the rows.

# %%
small = dict(embed_dim=32, num_heads=2, T=2, rng=0)
lambdas, ends = (0.0, 1.0, 2.0), []
for price in lambdas:
    model = create_model("spikformer_1_64_digits", **small)
    accuracy = train_on_digits(model, epochs=6, price=price)[-1]["test_accuracy"]
    ends.append((accuracy, additions_per_image(model, test_images, 60)))
    share = ends[-1][1] / ends[0][1]
    print(f"λ = {price:g}: test {accuracy:.1%}, {ends[-1][1]:,.0f} additions an image, {share:.0%}")
accuracies, costs = zip(*ends, strict=True)
assert list(costs) == sorted(costs, reverse=True) and costs[1] < 0.8 * costs[0]

# %% [markdown]
# ## Two models that were trained for longer
# The folder weights/ holds two models that had 20 epochs (D = 64, T = 4): one without a price, and one with
# λ = 2. The price was chosen on held-out training digits; both models are the last epoch's, of one seed.

# %%
trained = {}
for name, weights in (("without a price", True), ("λ = 2", "sparse")):
    model = create_model("spikformer_1_64_digits", pretrained=weights)
    right = evaluate(model, Loader(test_images, test_labels, 180))[1]
    rates = viz.firing_rates(model, test_images)
    trained[name] = right, additions_per_image(model, test_images, 60), rates
    print(f"trained {name}: test {right:.1%}, {trained[name][1]:,.0f} additions an image")
(dense, sparse) = trained.values()
assert sparse[1] < 0.35 * dense[1] and abs(sparse[0] - dense[0]) < 0.01
print(f"  the price saves {1 - sparse[1] / dense[1]:.0%} of the additions")

# %% [markdown]
# ## Break it: a price that silences
# With λ = 100 the fastest way to a small loss is silence. Batch norm (BN) does not prevent it: the price
# lowers BN's gain γ and its shift β until no current reaches the threshold. And a layer that reads only
# silence is worse off: BN turns a constant input into a constant, so all neurons of a channel get the same
# current, β.
#
# Then λ is set to 0 again. Does the network wake up? The slope of Sigmoid is small far from the threshold,
# but never 0. Rectangle's slope is exactly 0 where H is more than ½ below the threshold. A neuron there
# learns neither from the loss nor from the price.

# %%
phases = (0.0, 2), (100.0, 3), (0.0, 6)  # λ, epochs
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
        fit(model, optimizer, **data, epochs=epochs, objective=objective, on_epoch=look)
    model.train()
    optimizer.zero_grad()
    classify(model, images[:64], labels[:64])[0].backward()
    slope = max(float(abs(p.grad).max()) for path, p in model.named_parameters() if path.startswith("stem"))
    course[name] = seen
    (before, _), (_, silenced), (after, woken) = seen[1], seen[4], seen[-1]
    dead = sum(rate == 0 for rate in silenced), sum(rate == 0 for rate in woken)
    rates = f"mean rate {np.mean(seen[1][1]):.1%}, {np.mean(silenced):.1%} and {np.mean(woken):.1%}"
    assert np.mean(silenced) < 0.2 * np.mean(seen[1][1])
    print(f"{name}: {before:.0%}; after λ = 100, {dead[0]} of {len(silenced)} layers are silent;")
    print(f"  λ = 0 again: {dead[1]} silent, {after:.0%}; largest gradient of the stem {slope:.0e}; {rates}")
assert dead[0] == dead[1] > 3 and slope == 0 and course["Sigmoid(4)"][-1][0] > course["Rectangle(1)"][-1][0]

# %% [markdown]
# ## What it saves on Fashion-MNIST
# `python -m benchmarks.sparse RUNS` takes some hours. It trains the small Spikformer of Fashion-MNIST with
# three prices and chooses one of them on training pictures that are held out. It also trains the simplest
# rival, the same model with fewer time steps. Is a price better than a smaller T? If the record of that
# command exists, the cell prints it. Milliseconds are those of inference where few spikes are handled one by
# one. Without a record this lesson shows only the digits, and leaves that question open.

# %%
path = RESULTS / "sparse.json"
record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"rows": {}, "measured": []}
rows = {name: row for name, row in record["rows"].items() if name.startswith("Spikformer")}
times = {row["variant"]: row["ms an image"]["events, inference"] for row in record["measured"]}
missing = "no record of Fashion-MNIST here; in a clone: python -m benchmarks.sparse RUNS"
print("recorded by python -m benchmarks.sparse" if rows else missing)
for name, row in rows.items():
    about = f"{row['accuracy']:.2f} ± {row['error']:.2f} %, {row['additions'] / 1e6:.2f} M additions"
    print(f"  {name:<22} {about}, {times[name]:.2f} ms")

# %% [markdown]
# ## The figure
# Top: with a record of Fashion-MNIST, accuracy over additions (left) and over milliseconds (right); look at
# which line is higher, the price or the smaller T. Without a record, the digits. Left, accuracy over
# additions, the three short trainings and the two long ones; look at the long ones, which lie at one height.
# Right, the additions of the long ones after each epoch; look at when the price takes effect.
# Bottom: left, the firing rates of the two long-trained models, layer by layer; look at the stem,
# where the price cuts most. Right, the mean firing rate before, during and after λ = 100; look at what each
# surrogate does after the grey band.

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
    axes[0, 0].plot([cost / 1e6 for cost in costs], [100 * a for a in accuracies], "o-", color=viz.BLUE)
    for price, cost, accuracy in zip(lambdas, costs, accuracies, strict=True):
        axes[0, 0].text(cost / 1e6 + 0.04, 100 * accuracy - 0.4, f"λ = {price:g}, short", fontsize=8)
    for (name, (right, cost, _)), color in zip(trained.items(), (viz.GREY, viz.ORANGE), strict=True):
        axes[0, 0].plot(cost / 1e6, 100 * right, "D", color=color, label=f"long, {name}")
        file = "spikformer_1_64_digits" + (".sparse" if "λ" in name else "") + ".metrics.csv"
        epochs = np.genfromtxt(RESULTS.parents[1] / "weights" / file, delimiter=",", names=True)
        million = epochs["additions"] / 1e6
        axes[0, 1].plot(epochs["epoch"], million, "o-", color=color, markersize=4, label=name)
    axes[0, 1].set(title="additions while training (long)", xlabel="epoch", ylim=0)
    axes[0, 1].set_ylabel("million additions an image")
axes[0, 0].set(title="accuracy over additions", ylabel="test accuracy, %")
axes[0, 0].set_xlabel("million additions an image")
names = [path.removesuffix(".neuron").removeprefix("blocks.") for path in dense[2]]
for name, color, offset in zip(trained, (viz.GREY, viz.ORANGE), (-0.2, 0.2), strict=True):
    found = [100 * rate for rate in trained[name][2].values()]
    axes[1, 0].barh(np.arange(len(names)) + offset, found, 0.4, color=color, label=name)
axes[1, 0].set_yticks(range(len(names)), names, fontsize=7)
axes[1, 0].invert_yaxis()
axes[1, 0].set(title="digits, long: which layers fire less", xlabel="firing rate, %", xlim=(0, 36))
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
# How does the price reach a neuron? As one more term of the loss. With fan-outs held constant its slope is
# simple: every entry feels what a spike costs there, and the surrogate carries that to the neuron.
#
# How much can be saved? On digits, a model trained with λ = 2 makes 0.58 million additions an image in place
# of 1.86 million, 69 % fewer, and is right on 98.3 % of the test digits; without a price it is right on
# 98.1 %. That is one seed each, and seeds differ by a point (without a price the mean of six is 98.9 %). So
# the record shows a large saving at little or no cost, and cannot say whether the cost is zero. In the short
# trainings above, the price does cost accuracy. Whether a price is better than a smaller T is decided, if at
# all, by the record of Fashion-MNIST.
#
# A large price silences the network: after three epochs of λ = 100, neurons that fired at 22 % of the steps
# fire at 2 % (Sigmoid) or 0.7 % (Rectangle, ten of twelve layers silent). With Sigmoid the network wakes up
# again, slowly: its rate doubles in six epochs without a price. With Rectangle, whose slope is 0 far from the
# threshold, the silent layers stay silent, and the stem's gradient is exactly 0.
#
# ## Five questions (answers: lessons/solutions/15_sparse.py)
#
# 1. An entry that is 0 costs nothing. Why does the price have a slope there, and what is it good for?
# 2. A common alternative adds the firing rate of each layer to the loss. How does a price on additions treat
#    a spike of the MLP's first layer (64 outputs behind it), and a spike in a token (320)?
# 3. While training, BN subtracts from each channel's gradient its mean over the batch. Suppose that the price
#    gives every entry behind a BN the same slope. What reaches the weights before the BN? Which parameters
#    still feel the price?
# 4. Why can a network with Sigmoid wake up after λ = 100, and one with Rectangle not? Could a different
#    Rectangle?
# 5. In Q Kᵀ the counted signal is q, and the number of keys that it meets is held constant. So the price
#    tells k nothing there. By how much do the additions really grow if k_jc turns from 0 to 1? Does k pay
#    nothing at all?
#
# ## Practice
#
#     python -m lessons.practice 15_sparse
#
# ★ `of_ones_and_twos`: predict two prices.
#
# ★★ `price`: write the price of one map and its gradient; finite differences check it in the library's place.
#
# ★★ `growth`: say how the additions of Q Kᵀ really grow with each spike of k.
#
# ★★ `budgeted`: charge only what exceeds a budget; it then trains a model in the place of `priced`.
#
# ★★★ `spent_by_neurons`: send the price of a layer's spikes back through time to its currents.
