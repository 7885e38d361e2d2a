# %% [markdown]
# # Solutions to 11 · Events

# %%
import math
import tempfile
from pathlib import Path

import numpy as np

from data_utils.events.aedat import HEADER2, write_aedat2
from data_utils.events.frames import events_to_frames, make_events
from data_utils.events.simulator import crossings, simulate

# %% [markdown]
# ★ log 1.1 − log 0.1 = log 11 = 2.398 holds θ eleven times; the twelfth would need 2.4.

# %%
how_many = math.floor(math.log(1.1 / 0.1) / 0.2)
black_to_white = np.log([0.1, 1.1]).reshape(2, 1, 1)
assert len(crossings(black_to_white, np.array([0, 1000]), 0.2)) == how_many

# %% [markdown]
# ★★ Each part is shifted to its place. 16 bits are kept in a big-endian word of 32.


# %%
def address(x, y, p):
    return (127 - x) << 8 | (127 - y) << 1 | (1 - p)


events = simulate(np.random.default_rng(0).random((20, 20)), np.random.default_rng(1))
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "noise.aedat"
    write_aedat2(file, events)
    stored = np.frombuffer(file.read_bytes()[len(HEADER2) :], ">u4")[::2]
assert np.array_equal(address(*(events[name].astype(int) for name in "xyp")), stored)

# %% [markdown]
# ★★★ The list is turned round, times count from the other end, and each polarity becomes the other: the
# frames come in reverse, with their channels exchanged. (Their number must divide by T, or the remainder,
# which goes into the last frame, changes place.) So yes, but a pixel's refractory time and thresholds are
# not those that a camera would have had.


# %%
def backwards(events):
    last = events[::-1]
    return make_events(last["x"], last["y"], events["t"].max() - last["t"], ~last["p"])


events = events[: len(events) // 8 * 8]
frames = events_to_frames(events, 8)
assert np.array_equal(events_to_frames(backwards(events), 8), frames[::-1, ..., ::-1])
