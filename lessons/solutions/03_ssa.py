# %% [markdown]
# # Solutions to 03 · Spiking self-attention

# %%
import numpy as np

from minispike import lif
from minispike.blocks.fourier import FourierMix
from minispike.blocks.ssa import SSA

# %% [markdown]
# ★ 2·N²·d = 2·N·d² where N = d: with more tokens than channels a head, Q (Kᵀ V) is cheaper.

# %%
d_equal = 196
assert 2 * 196**2 * d_equal == 2 * 196 * d_equal**2 and d_equal > 0

# %% [markdown]
# ★★ H[0] = 0 + (s·n − 0)/τ >= 0.5 ⇔ n >= 0.5·τ/s = 8: eight coincidences with tokens whose value fires.


# %%
def fires(current):
    return lif(np.array([current]), v_threshold=0.5).data[0] == 1


needed = 0.5 * 2 / 0.125
assert fires(0.125 * needed) and not fires(0.125 * (needed - 1))

# %% [markdown]
# ★★★ q, k, v and the last map treat each token by itself; in Σ_j (q_i·k_j) v_j the order of j is
# immaterial, and i only names the row. BN's statistics are sums over tokens. So SSA knows nothing of
# places: the stem's convolutions, RPE among them, must tell. A Fourier mixer does know its tokens' places.


# %%
def permuted_equally(mixer, x, order):
    return np.allclose(mixer(x[:, :, order]).data, mixer(x).data[:, :, order], atol=1e-12)


rng = np.random.default_rng(0)
ssa, x, order = SSA(16, 4, rng=0), rng.integers(0, 3, (4, 2, 9, 16)).astype(float), rng.permutation(9)
fourier = FourierMix(16)
assert permuted_equally(ssa, x, order) and not permuted_equally(fourier, x, order)
