# %% [markdown]
# # Solutions to 11 · Events

# %%
import numpy as np

from data_utils.events.frames import events_to_frames, make_events
from data_utils.events.simulator import crossings, simulate
from lessons.common import wake
from minispike import create_model, no_grad

# %% [markdown]
# ## 1 · Why a logarithm
# A difference of logarithms is the logarithm of a quotient, so the pixel reports contrast: twice as much
# light is the same change in sunshine and in the shade. The logarithm of 0 is −∞, so that a black pixel would
# send events without end; the 0.1 keeps L finite. It also makes dark pixels less sensitive.


# %%
def events_between(a, b, dark):
    pictures = np.log([dark + a, dark + b]).reshape(2, 1, 1)
    return len(crossings(pictures, np.array([0, 1000]), 0.2))


assert events_between(0.01, 0.02, 0) == events_between(0.4, 0.8, 0) == 3
assert events_between(0.01, 0.02, 0.1) == 0 < events_between(0.4, 0.8, 0.1)

# %% [markdown]
# ## 2 · The rest of a division
# 103 // 8 = 12: seven frames have 12 events each, and the last has 12 + 7 = 19. No event is counted twice or
# left out, in either kind of frame: each frame takes what is left of its end, and the last takes the rest.

# %%
events = simulate(np.random.default_rng(0).random((20, 20)), np.random.default_rng(1))
some = events[:103]
counts = events_to_frames(some, 8, "number").sum((1, 2, 3)).tolist()
assert counts == [12] * 7 + [19] and events_to_frames(some, 8, "time").sum() == 103

# %% [markdown]
# ## 3 · Backwards
# The list is reversed, the times count from the other end, and what got brighter now gets darker. The frames
# by number come in reverse order with their two channels exchanged. (Their number must be a multiple of T, or
# the rest, which belongs to the last frame, changes its place.) A real camera that saw the film backwards
# would not send exactly these events, because its level and its refractory time start from the other end.


# %%
def backwards(events):
    last = events[::-1]
    return make_events(last["x"], last["y"], events["t"].max() - last["t"], ~last["p"])


events = events[: len(events) // 8 * 8]
frames = events_to_frames(events, 8)
assert np.array_equal(events_to_frames(backwards(events), 8), frames[::-1, ..., ::-1])

# %% [markdown]
# ## 4 · The neighbour test in training mode
# In training mode batch norm takes its mean and variance over the whole batch. A sample's logits then depend
# on its neighbours even if time comes first, so the test would always find something.

# %%
small = dict(depth=1, embed_dim=16, num_heads=2, img_size=16, pools=(True, True, False, False))
model = create_model("spikformer_2_256_cifar10dvs", **small, rng=0)
inside = [
    simulate(np.random.default_rng(i).random((12, 12)), np.random.default_rng(i), size=(16, 16))
    for i in range(4)
]
batch = np.stack([events_to_frames(each, 6, size=(16, 16)) for each in inside], 1)
wake(model, batch)
other = batch.copy()
other[:, 0] = 0
with no_grad():
    for mode, depends in ((model.train, True), (model.eval, False)):
        mode()
        assert (model(batch).data != model(other).data)[1:].any() == depends

# %% [markdown]
# ## 5 · A gradient for the time
# As t moves, an event stays in its cell, and nothing changes, until it jumps into another cell: the slope is
# 0 or infinite. If each event is shared between two neighbouring frames, by how near it is to each, the
# frames change smoothly with t. The task `soft_frames` derives the gradient of the times for these.


# %%
def three_events(t):  # the first and the last fix the frames: 1,000 µs each
    return events_to_frames(make_events([0, 5, 0], [0, 7, 0], [0, t, 8000], [1, 1, 1]), 8, "time")


assert np.array_equal(three_events(1000), three_events(1999))
assert not np.array_equal(three_events(1999), three_events(2000))
