# %% [markdown]
# # 11 · Events: a camera that sends no pictures
#
# Each pixel of an event camera waits until its own brightness has changed, and then says so: where, when, up
# or down. What comes out is a list of spikes with microseconds on them. A spiking transformer wants T frames.
# How is one made of the other, what is lost on the way, and what does the network have to do with it then?
# (CIFAR10-DVS and DVS128 Gesture are such lists; N-MNIST, Orchard et al. 2015, made one by moving a camera.)

# %%
import math
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from scipy.ndimage import zoom

from data_utils.events.aedat import HEADER2, read_aedat2, write_aedat2
from data_utils.events.frames import events_to_frames
from data_utils.events.simulator import crossings, moving, path, simulate
from data_utils.images.digits import load_digits
from lessons.common import wake
from minispike import Tensor, check_grads, create_model, no_grad, ops
from minispike.measure import viz

# %% [markdown]
# ## By hand
# A digit, enlarged to 26×26, makes three saccades of 100 ms before a sensor of 32×32 pixels. One pixel
# watches L = log(0.1 + brightness), and has a threshold of θ = 0.2. Straight from the rule, in loops: as long
# as L is θ above the level of the last event, or below, send one more.

# %%
SIZE, theta, T = (32, 32), 0.2, 8
(images, labels), _ = load_digits()
images = (images[..., 0] - images.min()) / (images.max() - images.min())  # [n, 8, 8], back to 0 … 1
chosen = [images[labels == label][0] for label in range(8)]  # one of each of 0 … 7
digits = [zoom(np.pad(image, 1), 2.6, order=1).clip(0, 1) for image in chosen]  # [26, 26] each
times = np.arange(0, 300_001, 1000)  # µs
L = np.log(0.1 + moving(digits[0], 4 * path(times), SIZE))  # [301, H, W]
y, x = np.unravel_index(np.abs(np.diff(L, axis=0)).sum(0).argmax(), SIZE)  # the pixel that sees most
level, by_hand = L[0, y, x], []
for s in range(300):
    before, after = L[s, y, x], L[s + 1, y, x]
    while abs(after - level) >= theta:
        level += math.copysign(theta, after - level)
        share = (level - before) / (after - before)  # L is taken as straight between two pictures
        by_hand.append((times[s] + int(share * 1000), after > before))
ups = sum(up for _, up in by_hand)
print(f"pixel ({x}, {y}): {len(by_hand)} events in 300 ms, {ups} up and {len(by_hand) - ups} down")

# %% [markdown]
# ## The library gives the same
# `crossings` does all pixels at once; `simulate` adds noise and a refractory time. What the events tell of a
# pixel, start + θ·(ups − downs), is right to within θ; and where nothing moves nothing is seen.

# %%
clean = crossings(L, times, theta)
here = clean[(clean["x"] == x) & (clean["y"] == y)]
assert len(here) == len(by_hand) and [up for _, up in by_hand] == here["p"].tolist()
assert max(abs(t - i) for (t, _), i in zip(by_hand, here["t"], strict=True)) <= 1  # µs, by rounding
told, half = np.zeros(SIZE), clean[clean["t"] <= 150_000]
np.add.at(told, (half["y"], half["x"]), np.where(half["p"], theta, -theta))
error = abs(L[0] + told - L[150]).max()
assert error < theta
events = simulate(digits[0], np.random.default_rng(0), threshold=theta, size=SIZE)  # [n] of (x, y, t, p)
assert len(simulate(digits[0], np.random.default_rng(0), noise_rate=0.0, travel=0.0, size=SIZE)) == 0
n = len(events)
print(f"library = loops; the {len(clean):,} events of all pixels tell L at 150 ms to {error:.3f} < θ")
print(f"with noise and a refractory time of 1 ms: {n:,} events, {events['p'].mean():.0%} of them up")

# %% [markdown]
# As CIFAR10-DVS keeps it: 8 bytes an event, an address and a time. The file comes back bit for bit.

# %%
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "digit.aedat"
    write_aedat2(file, events)
    assert np.array_equal(read_aedat2(file, SIZE), events)
    assert file.stat().st_size == len(HEADER2) + 8 * n
    print(f"as an AEDAT 2.0 file: {file.stat().st_size:,} bytes; 300 pictures: {300 * 32 * 32:,}")

# %% [markdown]
# ## Events to frames
# A frame counts events per pixel and polarity, [T, H, W, 2]. `number` gives every frame n // T events, `time`
# gives every frame the same share of the time; what is over goes into the last.

# %%
by_number = events_to_frames(events, T, "number", SIZE)
by_time = events_to_frames(events, T, "time", SIZE)
counted = np.zeros_like(by_number)
for i, (ex, ey, _, up) in enumerate(events.tolist()):
    counted[min(i // (n // T), T - 1), ey, ex, int(up)] += 1
assert np.array_equal(counted, by_number)
assert by_number.sum() == by_time.sum() == n  # nothing is dropped
edges = np.append(np.arange(T) * (n // T), n - 1)
durations = np.diff(events["t"][edges]) / 1000  # ms
counts = by_time.sum((1, 2, 3)).astype(int)
print(f"number: {n // T} events a frame, which last {durations.min():.0f} … {durations.max():.0f} ms")
print(f"time:   {300 / T} ms a frame, which hold {counts.min()} … {counts.max()} events")
assert durations.max() > 1.1 * durations.min() and counts.max() > 1.1 * counts.min()

# %% [markdown]
# ### What is kept and what is lost
# Within a frame the order goes, in both. Beyond that they differ: let the same scene start slowly and end
# fast (t → √t), and frames by number do not notice, frames by time do; mix up the list, and it is the other
# way round.

# %%
hurried = events.copy()
hurried["t"] = np.sqrt(events["t"] * 300_000)  # the order stays
mixed = np.random.default_rng(1).permutation(events)


def changed(other, split_by, frames):  # the share of the events that moved, at least
    return abs(events_to_frames(other, T, split_by, SIZE) - frames).sum() / (2 * n)


speed = [changed(hurried, "number", by_number), changed(hurried, "time", by_time)]
order = [changed(mixed, "number", by_number), changed(mixed, "time", by_time)]
print(f"another speed moves {speed[0]:.0%} of the events to another frame by number, {speed[1]:.0%} by time")
print(f"another order moves {order[0]:.0%} of the events to another frame by number, {order[1]:.0%} by time")
assert speed[0] == order[1] == 0 and min(speed[1], order[0]) > 0.2
values, cells = np.unique(by_number, return_counts=True)
shares = ", ".join(f"{v:.0f}: {c / cells.sum():.1%}" for v, c in zip(values[:4], cells[:4], strict=True))
print(f"what a cell of a frame counts ({shares}, … up to {values.max():.0f})")
assert values[0] == 0 and cells[0] > cells.sum() / 2  # mostly 0

# %% [markdown]
# ## A batch of frames is already a spiking input
# An image is shown T times over, and the first neurons turn it into spikes. Frames need no such thing: each
# step has its own, and they hold whole numbers, mostly 0: hardware that works event by event can add a weight
# for each and skip the rest (ours multiplies them all). The model takes them as [T, B, H, W, 2].

# %%
streams = [simulate(digit, np.random.default_rng(i), size=SIZE) for i, digit in enumerate(digits)]
batch = np.stack([events_to_frames(stream, T, size=SIZE) for stream in streams], 1)  # [T, B, H, W, 2]
small = dict(depth=1, embed_dim=64, num_heads=4, img_size=32, pools=(True, True, True, False))
model = create_model("spikformer_2_256_cifar10dvs", **small, rng=0)
wake(model, batch)
logits = model(batch)
assert logits.shape == (8, 10) and np.array_equal(batch, batch.round())
rates = viz.firing_rates(model, batch)
first = next(iter(rates))
print(f"frames {list(batch.shape)} -> logits {list(logits.shape)}; {first}: firing rate {rates[first]:.0%}")
macs = 9 * 2 * 8 * 32 * 32 * T  # of the first convolution, 3×3, 2 -> 8 channels, for one sample
additions = 9 * 8 * batch[:, 0].sum()  # at most: an event reaches 3×3 places in 8 channels
print(f"first convolution: {macs:,} multiply-accumulates, or at most {additions:,.0f} additions")
assert additions < macs / 2

# %% [markdown]
# ## The gradient, derived
# Give event i a weight wᵢ = 1. A frame is then F[c] = Σᵢ wᵢ·[event i falls into cell c], and so
#
#     ∂L/∂wᵢ = ∂L/∂F at the cell of event i
#
# which says how much each single event mattered. Compared with moving the weight of one, in smooth mode.

# %%
smooth = create_model(
    "spikformer_2_256_cifar10dvs",
    **(small | dict(embed_dim=16, num_heads=2, img_size=16, pools=(True, True, False, False))),
    dtype="float64", smooth=True, detach_reset=False,
)  # fmt: skip
few = events[(events["x"] < 16) & (events["y"] < 16)]
F = events_to_frames(few, 4, size=(16, 16)).astype("float64")[:, None]  # [T, 1, H, W, 2]


def loss(frames):
    return ops.softmax_cross_entropy(smooth(frames), labels[:1])


check_grads(loss, F + 0.1 * np.random.default_rng(3).random(F.shape))  # empty places tie in a pool: no slope
frames = Tensor(F, requires_grad=True)
loss(frames).backward()
slices = np.minimum(np.arange(len(few)) // (len(few) // 4), 3)
cells = (slices, 0 * slices, few["y"], few["x"], few["p"].astype(int))  # where each event has fallen
gw = frames.grad[cells]  # [n], every event's gradient at once
i, eps = abs(gw).argmax(), 1e-5
nudge = np.zeros_like(F)
nudge[tuple(index[i] for index in cells)] = eps
moved = (loss(F + nudge).item() - loss(F - nudge).item()) / (2 * eps)
assert abs(moved - gw[i]) < 1e-8 < abs(gw[i]) / 1e3
print(f"of {len(gw):,} events number {i} mattered most: ∂L/∂w = {gw[i]:+.6f}, by moving it {moved:+.6f}")

# %% [markdown]
# ## Break it: time in the wrong place
# Data sets serve samples first, [B, T, …]. With 8 samples of 8 steps nothing complains when they are not
# turned round, and neurons then carry their membranes from one sample into the next. The test for it: in eval
# mode a sample's logits must not depend on its neighbours.

# %%
other = batch.copy()
other[:, 0] = 0  # sample 0 sees nothing; samples 1 … 7 are as they were
model.eval()
with no_grad():
    right = abs(model(batch).data - model(other).data)[1:].max()
    wrong = abs(model(batch.swapaxes(0, 1)).data - model(other.swapaxes(0, 1)).data)
print(f"without sample 0, the logits of samples 1 … 7 change by {right:.0e} with [T, B, …]")
touched = (wrong > 0).any(1).sum()
print(f"with time and batch exchanged: {touched} of {len(wrong)} rows change, by up to {wrong.max():.2f}")
assert right == 0 and wrong.max() > 0.01 and touched > 1

# %% [markdown]
# ## The figure

# %%
fig, axes = viz.figure(3, T, size=(11, 7.8), height_ratios=(2.9, 1, 1))
grid = axes[0, 0].get_gridspec()
for ax in axes[0]:
    ax.remove()
cloud = fig.add_subplot(grid[0, :5], projection="3d")
for up, colour, name in ((True, viz.BLUE, "brighter"), (False, viz.ORANGE, "darker")):
    some = events[events["p"] == up]
    cloud.scatter(some["t"] / 1000, some["x"], some["y"], s=1.5, color=colour, label=name, linewidths=0)
cloud.set(xlabel="t (ms)", ylabel="x", zlabel="y", xlim=(0, 300), ylim=(0, 31), zlim=(31, 0))
cloud.set(xticks=(0, 100, 200, 300), yticks=(0, 15, 30), zticks=(0, 15, 30))
cloud.xaxis.labelpad = 12
cloud.zaxis.labelpad = 1
cloud.set_box_aspect((2.3, 1, 1), zoom=1.15)
cloud.view_init(elev=20, azim=-66)
cloud.legend(frameon=False, loc="upper left", markerscale=6)
cloud.set_title("what the camera sends: a cloud of events")
trace = fig.add_subplot(grid[0, 5:])
trace.yaxis.tick_right()
trace.yaxis.set_label_position("right")
trace.spines[["top", "left"]].set_visible(False)
trace.plot(times / 1000, L[:, y, x], color=viz.GREY, label="L")
told = L[0, y, x] + np.cumsum(np.where(here["p"], theta, -theta))
trace.step(here["t"] / 1000, told, where="post", color=viz.INK, linewidth=1, label="as its events tell it")
for up, colour in ((True, viz.BLUE), (False, viz.ORANGE)):
    trace.scatter(here["t"][here["p"] == up] / 1000, told[here["p"] == up], s=12, color=colour, zorder=3)
trace.set(title=f"what one pixel sees, ({x}, {y})", xlabel="t (ms)", ylabel="log brightness")
trace.set_ylim(top=L[:, y, x].max() + 0.6)
trace.legend(frameon=False, loc="upper right", ncols=2)
colours = LinearSegmentedColormap.from_list("polarity", [viz.ORANGE, "white", viz.BLUE])
for row, (frames, name) in enumerate(((by_number, "by number"), (by_time, "by time")), 1):
    for t, ax in enumerate(axes[row]):
        ax.imshow(frames[t, ..., 1] - frames[t, ..., 0], cmap=colours, vmin=-5, vmax=5)
        ax.set(xticks=[], yticks=[], title=f"{durations[t]:.0f} ms" if row == 1 else f"{counts[t]} events")
        ax.spines[:].set_visible(True)
    axes[row, 0].set_ylabel(name)
viz.save(fig, "11_events")

# %% [markdown]
# ## What was shown
# A pixel sends an event where its log brightness has moved by θ; the list of events tells the scene to
# within θ, in microseconds. Frames keep every event and lose the order within a frame: by number they lose
# the speed, by time they keep it. What they hold are counts, mostly 0, different at every step: spikes, as
# far as the first convolution is concerned. Time must come first; if it does not, only a test will notice.
# What models with and without attention learn from 6,000 such recordings stands in benchmarks/README.md.
#
# ## Exercises (solutions: lessons/solutions/11_events.py)
#
# ★ Predict: a pixel goes from black to white, from L = log 0.1 to log 1.1, with θ = 0.2. How many events?
# Set `how_many`.
#
#     assert len(crossings(black_to_white, np.array([0, 1000]), 0.2)) == how_many
#
# ★★ Re-derive: AEDAT 2.0 keeps an event's address in 16 bits: bit 0 is 1 for darker, bits 1–7 are 127 − y,
# bits 8–14 are 127 − x. Write `address(x, y, p)`, the number that is stored.
#
#     assert np.array_equal(address(*(events[name].astype(int) for name in "xyp")), stored)
#
# ★★★ From the paper: Spikformer's recipe for events mirrors a sample left to right. Could one also run it
# backwards? What brightens then darkens. Write `backwards(events)`, the film's events in reverse. (Their
# number must be a multiple of 8: take `events[: len(events) // 8 * 8]`, and the frames of those.)
#
#     assert np.array_equal(events_to_frames(backwards(events), 8), frames[::-1, ..., ::-1])
