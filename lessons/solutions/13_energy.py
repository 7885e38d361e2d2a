# %% [markdown]
# # Solutions to 13 · Energy

# %%
import numpy as np

from minispike.measure.energy import Operations
from minispike.ops.matmul import MatMul

# %% [markdown]
# ★ T additions cost 0.9·T pJ, one MAC 4.6 pJ: up to T = 5 even a network that always fires wins. That says
# more about the prices than about spikes.

# %%
T_loses = 6
assert 0.9 * (T_loses - 1) < 4.6 < 0.9 * T_loses

# %% [markdown]
# ★★ Q Kᵀ: each of the N·N·d triples is a coincidence with probability p². An entry A_ij is 0 if none of its d
# channels coincides, (1 − p²)^d; A V adds it for each of the d channels of v_j with probability p. (v is
# independent of A.) With p = 0.2, d = 32 a quarter of A is 0, and A V is the dearer product.


# %%
def expected(N, d, p):
    return N * N * d * p * (p + 1 - (1 - p * p) ** d)


def measured(N, d, p, samples=50):
    rng = np.random.default_rng(0)
    q, k, v = (rng.random((3, samples, N, d)) < p).astype(float)
    k_t = k.swapaxes(1, 2)
    coincidences = (q * MatMul.fan_out(q, k_t)[0]).sum()
    return (coincidences + (v * MatMul.fan_out(q @ k_t, v)[1]).sum()) / samples


assert abs(measured(64, 32, 0.2) / expected(64, 32, 0.2) - 1) < 0.02

# %% [markdown]
# ★★★ The paper charges 4.6 pJ · 4 · 9·3·64·224² = 1.595 mJ. Once and with 96 channels it is 0.598 mJ: three
# eighths. The rest is 0.9 pJ for each of 22.09 G operations.

# %%
millijoules = 1e3 * Operations(ac=22.09e9, mac=9 * 3 * 96 * 224**2).joules()
assert abs(millijoules - (21.477 - 0.997)) < 0.001
