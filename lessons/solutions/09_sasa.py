# %% [markdown]
# # Solutions to 09 · SASA

# %%
import numpy as np

from minispike import lif
from minispike.blocks.sasa import Pool

# %% [markdown]
# ★ With n = N/4: 2·N·N/4 = d·(N + N/4) ⇔ N/2 = 5/4·d ⇔ N = 2.5·d. From there on the second is cheaper.

# %%
N_equal = 80
assert 2 * N_equal * (N_equal // 4) == 32 * (N_equal + N_equal // 4) and N_equal % 4 == 0 < N_equal

# %% [markdown]
# ★★ H[0] = n/τ >= ½ ⇔ n >= τ/2, so any τ in (2, 4] will do. From the second step on the neuron remembers:
# with what is left of one spike, another single spike may suffice. Up to τ = 2 each spike fires and resets
# it: no use for memory.


# %%
def passes(spikes, tau):
    return lif(np.array([float(spikes)]), tau=tau, v_threshold=0.5).data[0] == 1


tau = 4.0
assert not passes(1, tau) and passes(2, tau)
one_each_step = lif(np.ones((3, 1)), tau=tau, v_threshold=0.5).data[:, 0]
assert one_each_step.tolist() == [0, 0, 1]  # H = 1/4, 7/16, 37/64

# %% [markdown]
# ★★★ A cell's sum does not change when its four keys change places. Turn each cell around: its first row's
# tokens and its second row's change places, on the grid 0 ↔ 4, 1 ↔ 5, … Queries stay where they are.

# %%
order = np.arange(16).reshape(2, 2, 4)[:, ::-1].ravel()  # pairs of rows, swapped
rng = np.random.default_rng(0)
q, k = (rng.random((2, 3, 1, 2, 16, 8)) < 0.4).astype(float)
pool, moved = Pool((4, 4)), k[..., order, :]
assert (order != np.arange(16)).all() and np.array_equal(pool(q, moved).data, pool(q, k).data)

shifted = np.roll(np.arange(16), 1)  # keys that leave their cell are missed
assert not np.array_equal(pool(q, k[..., shifted, :]).data, pool(q, k).data)
