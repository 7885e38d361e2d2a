# %% [markdown]
# # Solutions to 06 · Wavelets

# %%
import numpy as np

from minispike import ops
from minispike.ops.transform import Wavelet, analysis

# %% [markdown]
# ★ A row's average of two equal values is 2/√2 = √2 times as large, rows and columns together 2 times; three
# levels make 2³. The energy agrees: 64 tokens of 1 have 64 = 8², and every difference is 0.

# %%
corner = 2**3
assert np.isclose(ops.wavelet(np.ones((64, 1)), (8, 8), "haar", 3).data[0, 0], corner)

# %% [markdown]
# ★★ Analysis and synthesis change places: W'ᵀ W = I, transposed, says Wᵀ W' = I. So the dual of the dual is
# the family itself. PyWavelets calls it the reverse biorthogonal one.

# %%
dual = "rbio2.2"
assert np.allclose(analysis(dual, 16).T @ analysis("bior2.2", 16), np.eye(16))

# %% [markdown]
# ★★★ A value costs 2 taps along its row and 2 along its column, 4·N in all; each level goes on with a quarter
# of the values: 4·N·(1 + 1/4 + 1/16 + …) < 4·N·4/3. No logarithm is left. Fourier needs one.


# %%
def cost(m):
    return Wavelet.cost((4**m, 1), grid=(2**m, 2**m), family="haar", levels=m)


c = 16 / 3
assert all(cost(m) < c * 4**m for m in range(1, 20)) and cost(19) > 0.999 * c * 4**19
