# %% [markdown]
# # Solutions to 02 · Spiking patch splitting

# %%
from math import erfc, sqrt

import numpy as np

from minispike import lif
from minispike.blocks.sps import SPS

# %% [markdown]
# ★ Four pools halve the grid four times, from 128 to 8. So there are 8·8 = 64 tokens.

# %%
n_tokens = (128 // 2**4) ** 2
assert SPS(2, 8, (True,) * 4, rng=0)(np.zeros((1, 1, 128, 128, 2))).shape[2] == n_tokens

# %% [markdown]
# ★★ Until its first spike the neuron only charges: H[t] = X·(1 − 2^−(t+1)), which grows with t. So it fires
# by the last step, t = T − 1, if X·(1 − 2^−T) >= 1. X is `gain` times a normally distributed number z, so
# the condition is z >= 1 / (gain·(1 − 2^−T)). The probability of z >= a is erfc(a/√2)/2.


# %%
def ever_fires(gain, T):
    return erfc(1 / (gain * (1 - 2.0**-T)) / sqrt(2)) / 2


current = np.broadcast_to(np.random.default_rng(2).standard_normal(10**6), (4, 10**6))
assert abs(ever_fires(2, 4) - lif(2 * current).data.max(0).mean()) < 0.005

# %% [markdown]
# ★★★ By the zeros of the padding. In the middle of a blank image every window reads the same values, so all
# tokens that no zero reaches are equal. A window at the edge also reads zeros, and its sum is different.
# Every layer carries this difference further inwards; after the last layer only the four tokens in the middle
# are unaffected. So the padding, whose purpose is to keep the grid's size, also tells tokens where they are.

# %%
stem = SPS(1, 64, (False, False, True, True), rng=0)
for brick in (*stem.stages, stem.rpe):
    brick.norm.weight.data[...] = 2  # so that enough neurons fire for the difference to be seen
tokens = stem(np.ones((1, 1, 32, 32, 1)), T=4).data.reshape(4, 8, 8, 64)
assert (tokens[:, 3:5, 3:5] == tokens[:, 3:4, 3:4]).all() and (tokens[:, 0, 0] != tokens[:, 3, 3]).any()
