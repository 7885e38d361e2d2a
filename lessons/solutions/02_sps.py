# %% [markdown]
# # Solutions to 02 · Spiking patch splitting

# %%
from math import erfc, sqrt

import numpy as np

from minispike import lif
from minispike.blocks.sps import SPS

# %% [markdown]
# ★ Four pools halve the grid four times: 128 → 8, and 8·8 = 64 tokens.

# %%
n_tokens = (128 // 2**4) ** 2
assert SPS(2, 8, (True,) * 4, rng=0)(np.zeros((1, 1, 128, 128, 2))).shape[2] == n_tokens

# %% [markdown]
# ★★ Until its first spike the neuron only charges: H[t] = x·(1 − 2^−(t+1)), which grows with t. So it fires
# by the last step, t = T − 1, if x·(1 − 2^−T) >= 1, where x is `gain` times a normal number z. That is z >=
# 1 / (gain·(1 − 2^−T)), and P(z >= a) = erfc(a/√2)/2.


# %%
def ever_fires(gain, T):
    return erfc(1 / (gain * (1 - 2.0**-T)) / sqrt(2)) / 2


current = np.broadcast_to(np.random.default_rng(2).standard_normal(10**6), (4, 10**6))
assert abs(ever_fires(2, 4) - lif(2 * current).data.max(0).mean()) < 0.005

# %% [markdown]
# ★★★ By the zeros around it. In the middle of a blank image every window sees the same, so all tokens that
# no zero reaches are equal. A convolution at the edge also sees zeros, and its sum is another. Every layer
# carries that further inwards: by the last one only the four tokens in the middle are untouched. So the
# padding, which was there to keep the size, is what tells tokens where they are.

# %%
stem = SPS(1, 64, (False, False, True, True), rng=0)
for brick in (*stem.stages, stem.rpe):
    brick.norm.weight.data[...] = 2  # so that enough neurons fire for the difference to be seen
tokens = stem(np.ones((1, 1, 32, 32, 1)), T=4).data.reshape(4, 8, 8, 64)
assert (tokens[:, 3:5, 3:5] == tokens[:, 3:4, 3:4]).all() and (tokens[:, 0, 0] != tokens[:, 3, 3]).any()
