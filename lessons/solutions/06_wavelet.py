# %% [markdown]
# # Solutions to 06 · Wavelets

# %%
import numpy as np

from minispike import lif, ops
from minispike.ops.transform import Wavelet, analysis

# %% [markdown]
# ## 1 · Eight by eight ones
# All differences are 0, so one coefficient remains: the average of averages in the upper left corner. A level
# doubles it, by √2 along the row and √2 along the column: 2³ = 8. The energy agrees: 64 ones have 64 = 8².

# %%
y = ops.wavelet(np.ones((64, 1)), (8, 8), "haar", 3).data[:, 0]
assert np.isclose(y[0], 8) and np.allclose(y[1:], 0)

# %% [markdown]
# ## 2 · The dual of bior2.2
# PyWavelets calls it rbio2.2, reverse biorthogonal. Let W' be the dual's matrix, so W'ᵀ W = 1. Transposed,
# this says Wᵀ W' = 1: the transpose of bior2.2 inverts the dual. So the dual of the dual is bior2.2.

# %%
W, dual = analysis("bior2.2", 16), analysis("rbio2.2", 16)
assert np.allclose(dual.T @ W, np.eye(16)) and np.allclose(W.T @ dual, np.eye(16))
assert not np.allclose(W.T @ W, np.eye(16))

# %% [markdown]
# ## 3 · The cost of Haar
# A level takes two taps per value along the rows and two along the columns: 4·N operations. The next level
# has a quarter of the values, and so on: 4·N·(1 + 1/4 + 1/16 + …) < 4·N·4/3 = 16/3·N. There is no logarithm.


# %%
def cost(m):
    return Wavelet.cost((4**m, 1), grid=(2**m, 2**m), family="haar", levels=m)


assert all(cost(m) < 16 / 3 * 4**m for m in range(1, 20)) and cost(19) > 0.999 * 16 / 3 * 4**19

# %% [markdown]
# ## 4 · Values of a coefficient
# It is half the sum of four spikes with signs. An average has 0, ½, 1, 1½ or 2; a difference has −1, −½, 0, ½
# or 1. A neuron with τ = 2 and threshold 1 charges by half of its input, so differences alone never make it
# fire. BN moves each channel to mean 0 and variance 1, and its gain and shift set how often a neuron fires.

# %%
spikes = np.array(list(np.ndindex(2, 2, 2, 2)), dtype=float).T  # [4 tokens, 16 patterns]
y = ops.wavelet(spikes, (2, 2)).data
assert set(y[0].round(6)) == {0, 0.5, 1, 1.5, 2} and set(y[1:].ravel().round(6)) == {-1, -0.5, 0, 0.5, 1}
steps = np.ones((50, 1))
assert not lif(steps * 1).data.any() and lif(steps * 2).data.all()  # ½ + ¼ + … stays below 1

# %% [markdown]
# ## 5 · Three in a row, twice
# The tokens come back as they were. Three transforms in a row are an orthogonal matrix, and on 8×8 tokens it
# is symmetric: its transpose is its inverse, and it equals its transpose, so the matrix times itself is 1.
# Three levels are orthogonal, too, but not symmetric: the second and third level work on averages alone.
# Applied twice they give something else.

# %%
x = np.random.default_rng(0).standard_normal((64, 3))
again, deep = x, ops.wavelet(ops.wavelet(x, (8, 8), levels=3), (8, 8), levels=3).data
for _ in range(6):
    again = ops.wavelet(again, (8, 8)).data
assert np.allclose(again, x) and not np.allclose(deep, x)
three = np.linalg.matrix_power(ops.wavelet(np.eye(64), (8, 8)).data, 3)
assert np.allclose(three, three.T)
