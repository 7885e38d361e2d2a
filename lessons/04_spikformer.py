# %% [markdown]
# # 04 · Spikformer: a transformer of spikes learns to read digits
#
# Stem and attention turned out to be bricks LIF(BN(map x)); the MLP is two more, 64 → 128 → 64 channels. Put
# together they are a Spikformer (arXiv 2209.15425): inside it no neuron says anything but 0 or 1. (Linear
# maps have biases here, convolutions none.) Can such a network learn, and what happens in it while it does?
# We train one on 1,437 real digits, in NumPy, and watch.

# %%
import numpy as np

from data_utils.images.digits import load_digits
from lessons.common import recorded, train_on_digits
from minispike import check_grads, create_model, ops
from minispike.measure import viz
from minispike.surrogate import Rectangle, Sigmoid

(images, labels), (test_images, test_labels) = load_digits()
model = create_model("spikformer_1_64_digits", rng=0)
print(f"spikformer_1_64_digits: {model.num_params():,} parameters, T = {model.T}")
assert model.num_params() == 96_258

# %% [markdown]
# ## By hand
# A model is its parts in a row. A static image is shown T times, but its first convolution is computed once.
#
#     image [B, 8, 8, 1] → stem → [T, B, 16, 64] → x + SSA(x) → x + MLP(x) → mean over N and T → [B, 10]

# %%
x = images[:8]
by_hand = model.stem(x[None], T=4)  # [T, B, N, D]
by_hand = by_hand + model.blocks[0].mixer(by_hand)
by_hand = by_hand + model.blocks[0].mlp(by_hand)
stream = by_hand.data
by_hand = ops.linear(by_hand.mean((0, 2)), model.head.weight, model.head.bias)  # [B, 10]
assert np.array_equal(by_hand.data, model(x).data)
assert set(np.unique(stream)) <= {0, 1, 2, 3, 4}  # the tokens' {0, 1, 2} and one spike from each sub-layer
print(f"the model is its parts in a row; its residual stream holds {np.unique(stream).astype(int).tolist()}")

# %% [markdown]
# ## The gradient, proved
# Every file's backward was derived alone. Together: a whole model in smooth mode, time, attention, batch norm
# and all, against finite differences in every parameter.

# %%
smooth = dict(dtype="float64", smooth=True, detach_reset=False)
small = create_model("spikformer_1_64_digits", embed_dim=16, **smooth, rng=0)
two = images[:2].astype("float64")
check_grads(lambda x: ops.softmax_cross_entropy(small(x), labels[:2]), two, *small.parameters())
n_arrays = len(small.parameters())
print(f"check_grads: the image and all {n_arrays} parameter arrays agree with finite differences")

# %% [markdown]
# ## Training
# One record an epoch. We also look in on the firing rates: with trace, without touching the model. The labels
# are smoothed by 0.1 (0.91 for the right class, 0.01 for each other one): the loss cannot fall below 0.50.

# %%
watched = {
    "first layer": "stem.stages.0.neuron",
    "end of the stem": "stem.stages.3.neuron",
    "attention": "blocks.0.mixer.attention",
    "end of the MLP": "blocks.0.mlp.fc2.neuron",
}
rates = []


def look(record):
    found = viz.firing_rates(model, test_images[:64])
    rates.append([found[path] for path in watched.values()])
    if record["epoch"] in (1, 2, 5, 10, 15, 20):
        last = ", ".join(f"{rate:.0%}" for rate in rates[-1])
        line = f"epoch {record['epoch']:>2}: loss {record['loss']:.3f}, test {record['test_accuracy']:.1%}"
        print(f"{line}   firing {last}")


print(f"firing rates of: {', '.join(watched)}")
history = train_on_digits(model, seed=0, on_epoch=look)
accuracy, seconds = history[-1]["test_accuracy"], sum(record["seconds"] for record in history)
print(f"last epoch: {accuracy:.1%} of 360 unseen digits, after {seconds:.0f} s of training")
assert accuracy >= 0.98  # seeds and processors differ by about half a point
assert max(rates[-1]) < 0.5

# %% [markdown]
# ## Break it: dead neurons
# A silent neuron passes nothing on; it learns only if the surrogate's slope is non-zero at its membrane
# potential. Raise every threshold but the attention neuron's: firing stops. While a few still fire, the
# gradient even grows, for batch norm divides by the small deviation of rare spikes. When none does, Sigmoid's
# slope is never quite zero, so a gradient still trickles down to the first layer; Rectangle's is exactly zero
# a half below the threshold, and the network is dead. (Training begins with gain 2, twice the current: so
# threshold 8 there.)

# %%
thresholds = [1.0, 1.5, 2.0, 3.0, 4.0]
surrogates = {"Sigmoid(4)": Sigmoid(4.0), "Rectangle(1)": Rectangle(1.0)}
firing, slope = [], {name: [] for name in surrogates}
for v_threshold in thresholds:
    for name, surrogate in surrogates.items():
        tried = create_model("spikformer_1_64_digits", v_threshold=v_threshold, surrogate=surrogate, rng=0)
        tried.train()
        ops.softmax_cross_entropy(tried(images[:64]), labels[:64]).backward()
        slope[name].append(float(abs(tried.stem.stages[0].map.weight.grad).max()))
    firing.append(float(tried.stem.stages[0](images[None, :64], T=4).data.mean()))
print(f"the first layer at thresholds {', '.join(map(str, thresholds))}:")
print(f"  firing rate   {'  '.join(f'{share:5.2%}' for share in firing)}; and its gradient:")
for name, values in slope.items():
    numbers = "  ".join(f"{value:.0e}" for value in values)
    print(f"  {name:<13} {numbers}")
assert firing[0] > 0 == firing[-1] and slope["Rectangle(1)"][-1] == 0 < slope["Sigmoid(4)"][-1]
dead = create_model("spikformer_1_64_digits", v_threshold=8.0, surrogate=Rectangle(1.0), rng=0)
hopeless = train_on_digits(dead, epochs=2, progress=False)[-1]["test_accuracy"]
alive = history[1]["test_accuracy"]
print(f"after two epochs: threshold 8 with Rectangle {hopeless:.1%}, threshold 1 with Sigmoid {alive:.1%}")
assert hopeless < 0.2 < alive and viz.firing_rates(dead, images[:64])["stem.stages.0.neuron"] == 0

# %% [markdown]
# ## Does time help?
# The same image is shown T times: more steps mean finer rates, for more operations. What they cost in
# seconds, and what they bring, is in the record: a second step helps; whether a third and fourth do, six
# seeds cannot say here, for two means of six differ by chance alone.

# %%
runs = recorded("spikformer_T")
if runs:
    points = np.array([[100 * run["test_accuracy"] for run in each] for each in runs.values()])  # [T, seed]
    error = np.sqrt(2 / points.shape[1] * points.var(1, ddof=1).mean())  # of a difference of two means
    one, two, four = points.mean(1)
    print(f"  2 beside 1: {two - one:+.1f} points, 4 beside 2: {four - two:+.1f}; by chance ± {error:.1f}")
    assert two - one > 2 * error > abs(four - two)

# %% [markdown]
# ## The figure
# Over the digit, one token's attention: it is framed in blue; the more orange a place, the more coincidences
# of its query with that place's key.

# %%
spikes = viz.spikes_of(model, test_images[:64])
counts = viz.attention_map(spikes, "blocks.0.mixer", 4).sum((0, 2))  # [B, N, N], over time and heads
pick = int(counts.sum((1, 2)).argmax())
token = int(counts[pick].sum(1).argmax())
epochs = [record["epoch"] for record in history]
fig, axes = viz.figure(2, 3, size=(11, 6.4))
first = spikes["stem.stages.0.neuron"][:, pick].reshape(4, 64, 8)  # [T, H·W, channels]
busiest = first.mean((0, 1)).argmax()
viz.raster(axes[0, 0], first[..., busiest], "first layer, one channel")
viz.attention_over(axes[0, 1], test_images[pick, ..., 0], counts[pick][token], token, "one token's attention")
viz.heat(axes[0, 2], counts[pick], "all tokens'", xlabel="key token", ylabel="query token")
axes[1, 0].plot(epochs, [record["loss"] for record in history], color=viz.BLUE)
axes[1, 0].axhline(0.5, color=viz.GREY, linestyle="--", linewidth=1, label="least, of smoothed labels")
axes[1, 0].set(title="training loss", xlabel="epoch", ylabel="cross-entropy", ylim=0)
axes[1, 0].legend(frameon=False)
axes[1, 1].plot(epochs, [record["accuracy"] for record in history], color=viz.GREY, label="training")
axes[1, 1].plot(epochs, [record["test_accuracy"] for record in history], color=viz.ORANGE, label="test")
axes[1, 1].set(title=f"accuracy: {accuracy:.1%} at the end", xlabel="epoch", ylim=(0.4, 1.01))
axes[1, 1].legend(frameon=False, loc="lower right")
for column, (name, color) in enumerate(zip(watched, (viz.INK, viz.BLUE, viz.ORANGE, viz.GREEN), strict=True)):
    axes[1, 2].plot(epochs, [rate[column] for rate in rates], color=color, label=name)
axes[1, 2].set(title="neurons that fire", xlabel="epoch", ylabel="firing rate", ylim=0)
axes[1, 2].legend(frameon=False, fontsize=8)
viz.save(fig, "04_spikformer")

# %% [markdown]
# ## What was shown
# A whole spiking transformer is its parts in a row, its backward pass is exact where that can be asked, and
# it learns real digits in under a minute. Most neurons are silent at most steps. A threshold out of reach
# kills it, for good where the surrogate's tails end.
#
# ## Exercises (solutions: lessons/solutions/04_spikformer.py)
#
# ★ Predict: how many parameters does one more block add to the model's 96,258? Set `added`.
#
#     assert create_model("spikformer_1_64_digits", depth=2).num_params() == 96_258 + added
#
# ★★ Re-derive: the head is linear, so averaging over time before it equals averaging after it. Write
# `late_average(model, x)`, which classifies each time step alone and averages the logits.
#
#     assert np.allclose(late_average(model, x), model(x).data, atol=1e-12)
#
# ★★★ From the paper: no norm stands in the residual stream, so it grows with depth. Derive its largest
# value, `bound(depth)`, from what the stem and each block add, and find a model of depth 2 that reaches it.
#
#     assert bound(2) == 6 == stream_maximum
