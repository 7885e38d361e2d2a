# %% [markdown]
# # 11 · Events: a camera that sends no pictures
#
# Each pixel of an event camera waits until its own brightness has changed, and then reports where, when, and
# whether it got brighter or darker. The result is a list of events with times in microseconds. A spiking
# transformer takes T frames instead. How are frames made of events, what is lost, and what is left to do for
# the network? (CIFAR10-DVS and DVS128 Gesture are such lists. N-MNIST, Orchard et al. 2015, was made by
# moving a camera in front of digits; here the camera is simulated.)
#
# You will be able to turn brightness into events and events into frames, say what either kind of frame
# forgets, and test whether time is on the right axis. It needs lessons 00 to 04.
# Twelve minutes to read, and ten seconds to run; notation and glossary: [NOTATION.md](NOTATION.md).

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
# A digit, enlarged to 26×26, makes three small jumps (saccades) of 100 ms each in front of a sensor of 32×32
# pixels. A pixel watches L = log(0.1 + brightness), with brightness from 0 to 1. It remembers a level: L at
# the beginning. The rule, with a threshold of θ = 0.2: as long as L differs from the level by θ or more, send
# an event and move the level by θ towards L. An event is *up* if L is above the level, else *down*.
#
# L is computed every millisecond and taken as a straight line in between; this gives an event its time.

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
        share = (level - before) / (after - before)  # of the millisecond
        by_hand.append((times[s] + int(share * 1000), after > before))
ups = sum(up for _, up in by_hand)
print(f"pixel ({x}, {y}): {len(by_hand)} events in 300 ms, {ups} up and {len(by_hand) - ups} down")

# %% [markdown]
# ## The library gives the same
# `crossings` computes the events of all pixels at once. `simulate` adds noise and a refractory time: after an
# event a pixel is blind for 1 ms. From the events one can follow a pixel: to within θ, L is its start plus
# θ·(ups − downs). Where nothing moves there are no events.

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
# CIFAR10-DVS stores events in AEDAT 2.0 files: 8 bytes for each event, 4 for its address (x, y and up or
# down) and 4 for its time. What is read back is equal, bit for bit.

# %%
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "digit.aedat"
    write_aedat2(file, events)
    assert np.array_equal(read_aedat2(file, SIZE), events)
    assert file.stat().st_size == len(HEADER2) + 8 * n
    print(f"as an AEDAT 2.0 file: {file.stat().st_size:,} bytes; 300 pictures: {300 * 32 * 32:,}")

# %% [markdown]
# ## Events to frames
# A frame counts events per pixel and polarity (down, up). T frames are an array [T, H, W, 2]. The list of n
# events is cut into T slices in one of two ways: "number" gives each frame n // T events, "time" gives each
# frame the same duration. The last frame also gets the rest.

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
# In both kinds of frame, the order of the events within a frame is lost. Beyond that they differ. Two tests:
#
# - Let the same scene start slowly and end fast (t → √t, scaled to the same 300 ms). The order of the events
#   stays. Frames by number do not notice; frames by time do.
# - Mix up the list, so that the order is lost but each event keeps its time. Frames by time do not notice;
#   frames by number do.

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
# A static image is shown to the network T times, and the first neurons turn it into spikes. Frames are
# different at every step, and they hold whole numbers, mostly 0. For each event, hardware that works event by
# event adds one weight to each output that the event reaches, and skips everything else. (This library
# multiplies by the zeros, too.) The model takes a batch of B recordings as [T, B, H, W, 2].

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
# How much does one single event matter for the loss? Give event i a weight wᵢ = 1. A *cell* c is a place in
# [T, H, W, 2]. The frames F are then F[c] = the sum of wᵢ over all events i that fall into cell c. (L is the
# log brightness here, so the loss is written out.)
#
#     ∂loss/∂wᵢ = ∂loss/∂F[c]     where c is the cell of event i
#
# So one backward pass gives it for all events at once (in the code: gw). It is compared with moving the
# weight of one event a little, in smooth mode, where the loss has a slope (lesson 01).

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
print(f"of {len(gw):,} events number {i} mattered most: ∂loss/∂w = {gw[i]:+.6f}, by moving it {moved:+.6f}")

# %% [markdown]
# ## Break it: time in the wrong place
# Data sets give samples first, [B, T, …]. If B = T = 8 and nobody exchanges the two axes, nothing complains.
# The neurons then carry their membrane potentials from one sample into the next. The test for this mistake:
# in eval mode the logits of a sample must not depend on its neighbours.

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
# - Above, left: all events of the digit 0 over time; blue got brighter, orange darker. Look at the three
#   saccades: at every corner of the path the events shift.
# - Above, right: what one pixel sees (grey) and what its events tell (black). The black line is never further
#   than θ from the grey one.
# - Below: the frames by number, with the duration of each, and by time, with the events in each. Look at the
#   titles: one row has equal events and unequal durations, the other the reverse.

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
# How are frames made of events, and what is lost? A pixel sends an event each time its log brightness has
# moved by θ, so the list tells the scene to within θ, with times in microseconds. Frames keep every event and
# lose the order within a frame. Frames by number do not notice another speed (0 % of the events move to
# another frame; by time 60 %). Frames by time do not notice a list that is mixed up (0 %; by number 68 %).
#
# What is left to do for the network? No encoding: frames hold counts, 81 % of them 0, and differ at every
# step. The first convolution can add weights for each event instead of multiplying. Time must come first; if
# it does not, only a test will notice.
#
# Do such recordings need attention? On 6,000 simulated ones (Fashion-DVS) the record cannot tell: SSA has
# 81.7 %, no mixing at all 80.9 %, and a difference has a standard error of 0.6 points by images and as much
# by seeds (benchmarks/README.md).
#
# ## Five questions (answers: lessons/solutions/11_events.py)
#
# 1. Why does the camera watch the logarithm of the brightness, and why log(0.1 + brightness)?
# 2. A recording has 103 events, and T = 8. How many events has each frame by number? Which events do both
#    kinds of frame count twice, or not at all?
# 3. Play a recording backwards. What happens to the times, to the polarities, and to the frames by number?
# 4. Why does the neighbour test need eval mode? What would it find in training mode, even with time first?
# 5. Why does the gradient with respect to the weight of an event say nothing about moving the event in time?
#    What would frames have to be like for a gradient with respect to t to exist?
#
# ## Practice
#
#     python -m lessons.practice 11_events
#
# ★ `how_many`: predict the events of a pixel that goes from black to white.
#
# ★★ `address`: pack x, y and polarity into 16 bits; the library's reader then reads them.
#
# ★★ `by_time`: count events in frames of equal duration; a model then sees them.
#
# ★★★ `soft_frames`: share each event between two frames and derive the gradient of its time.
