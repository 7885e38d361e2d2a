# %% [markdown]
# # Solutions to 13 · Energy

# %%
import numpy as np

from data_utils.images.digits import load_digits
from minispike import create_model
from minispike.measure.energy import PICOJOULES, Operations, count
from minispike.ops.conv import Convolve2d
from minispike.ops.matmul import MatMul

# %% [markdown]
# ## 1 · Fan-outs of a convolution
# Inside, a place lies in nine windows: 9 · 5 = 45. At an edge three windows fall outside: 6 · 5 = 30. At a
# corner four remain: 20. With stride 2 every second window is taken, in both directions. So a place lies in
# one, two or four of them, depending on whether its row and column are even or odd: 5, 10 or 20.

# %%
x, w = np.ones((1, 4, 4, 1)), np.ones((3, 3, 1, 5))
fan = Convolve2d.fan_out(x, w, stride=1, padding=1)[0][:, :, 0]
assert (fan[0, 0], fan[0, 1], fan[1, 1]) == (20, 30, 45)
x = np.ones((1, 8, 8, 1))
fan = Convolve2d.fan_out(x, w, stride=2, padding=1)[0][:, :, 0]
assert (fan[2, 2], fan[2, 3], fan[3, 3]) == (5, 10, 20)

# %% [markdown]
# ## 2 · Why strict is nearly twice paper
# `strict` charges MACs where integers enter, and a MAC costs 4.6 / 0.9 = 5.1 times an addition. Integers
# enter q, k, v and fc1, which read the stream, and the head, which reads its sum. These layers are a fifth of
# `paper`, and 5.1 times a fifth is the difference. The stem's layers read spikes (and the first the image),
# so they cost the same in both.

# %%
_, (images, _) = load_digits()
model = create_model("spikformer_1_64_digits", pretrained=True)
found = count(model, images[:12])
integers = [row for row in found.rows if row.strict.joules() != row.paper.joules()]
assert [row.label for row in integers] == ["0.mixer.q", "0.mixer.k", "0.mixer.v", "0.mlp.fc1", "head"]
share = sum(row.paper.joules() for row in integers) / sum(row.paper.joules() for row in found.rows)
assert 0.2 < share < 0.25 and all(
    np.isclose(r.strict.joules(), 4.6 / 0.9 * r.paper.joules()) for r in integers
)
assert np.isclose(found.joules("strict") / found.joules("paper"), 1 + share * (4.6 / 0.9 - 1))

# %% [markdown]
# ## 3 · Rates do not give coincidences
# No. An addition needs a spike of q and a spike of k in the same channel. Below, half of all entries fire in
# both cases; once in the same channels, once in different ones. The number of additions is 32, or 0. Only if
# the spikes are independent does the product of the two rates give the mean.

# %%
q, k = np.zeros((4, 4)), np.zeros((4, 4))
q[:, :2] = k[:, :2] = 1
other = k[:, ::-1]
assert k.mean() == other.mean() == 0.5
assert [int((q * MatMul.fan_out(q, each.T)[0]).sum()) for each in (k, other)] == [32, 0]

# %% [markdown]
# ## 4 · Spikformer's 8-768, charged again
# The paper charges 4.6 pJ · 4 · 9·3·64·224² = 1.595 mJ for the first convolution. Once and with 96 channels
# it is 0.598 mJ: three eighths. The rest stays as it is, 0.9 pJ for each of 22.09 G operations. The sum is
# 20.480 mJ.

# %%
published, again = (Operations(ac=22.09e9, mac=n * 224**2 * 27).joules() for n in (4 * 64, 96))
assert abs(1e3 * published - 21.477) < 0.001 and abs(1e3 * again - 20.480) < 0.001

# %% [markdown]
# ## 5 · With a fetch for each operation
# The ordinary network pays 4.6 + 5 pJ for each weight and place; the spiking one pays 4 · rate · (0.9 + 5).
# They are equal at a rate of 41 %. If one fetch serves 100 places, the ordinary network pays 4.6 + 0.05, and
# the break-even is 20 %. A spike comes when it comes, so its weights cannot be shared like this as easily.
# The study counts more: membrane potentials are read and written at every step, whether or not anything
# fires, and its ordinary network is quantised, so its operations cost less than 4.6 pJ.

# %%
fetch, additions = 5.0, 4 * (PICOJOULES["ac"] + 5.0)
break_even = [(PICOJOULES["mac"] + fetch / reuse) / additions for reuse in (1, 100)]
assert np.allclose(break_even, (0.407, 0.197), atol=0.001)
