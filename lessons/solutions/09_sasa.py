# %% [markdown]
# # Solutions to 09 · SASA

# %%
import numpy as np

from minispike import lif
from minispike.blocks.sasa import Pool
from minispike.blocks.ssa import attend

# %% [markdown]
# ## 1 · Equal cost
# With n = N/4: 2·N·N/4 = d·(N + N/4), so N/2 = 5/4·d and N = 2.5·d = 80. For more tokens the second order,
# Q (K_Aᵀ K_A), is cheaper, because the first one grows with N².

# %%
assert 2 * 80 * 20 == 32 * (80 + 20)
assert 2 * 84 * 21 > 32 * (84 + 21) and 2 * 76 * 19 < 32 * (76 + 19)

# %% [markdown]
# ## 2 · Two query spikes
# At rest, m spikes give H = m/τ. The neuron fires if m/τ >= ½, so if m >= τ/2. For every τ above 2 and up to
# 4 it needs two. But such a neuron remembers: if τ = 4, one spike at every step fires at the third step, with
# H = 1/4, 7/16, 37/64. (Up to τ = 2 every spike fires and resets the neuron, so nothing is remembered.)


# %%
def passes(spikes, tau):
    return lif(np.array([float(spikes)]), tau=tau, v_threshold=0.5).data[0] == 1


assert not passes(1, 4.0) and passes(2, 4.0) and passes(1, 2.0) and not passes(2, 4.1)
one_each_step = lif(np.ones((3, 1)), tau=4.0, v_threshold=0.5).data[:, 0]
assert one_each_step.tolist() == [0, 0, 1]

# %% [markdown]
# ## 3 · Equal terms
# Write G for ∂L/∂I. The terms are K_A Qᵀ G and K_A Gᵀ Q. They are equal if QᵀG is symmetric, for example if
# G is a multiple of Q, or if a head has one channel. In general they differ, so a factor of 2 in place of
# the second term is wrong.

# %%
rng = np.random.default_rng(0)
Q, K_A, G = rng.random((16, 6)), rng.random((4, 6)), rng.random((16, 6))


def terms(Q, K_A, G):
    return (Q @ K_A.T).T @ G, (G @ K_A.T).T @ Q


assert np.allclose(*terms(Q, K_A, 3 * Q)) and np.allclose(*terms(Q[:, :1], K_A[:, :1], G[:, :1]))
assert not np.allclose(*terms(Q, K_A, G))

# %% [markdown]
# ## 4 · Cells that change places
# (Q K_Aᵀ) K_A is a sum over the cells: each adds its weight times its row. The order of a sum does not
# matter. In SSA a key's weight multiplies the value of the same token, so the values have to move together
# with the keys.

# %%
q, k, v = (rng.random((3, 3, 1, 2, 16, 8)) < 0.4).astype(float)
moved = np.roll(np.arange(16), 8)  # the upper two rows of the grid change places with the lower two
pool = Pool((4, 4))
assert np.array_equal(pool(q, k[..., moved, :]).data, pool(q, k).data)
assert np.array_equal(attend(q, k[..., moved, :], v[..., moved, :]).data, attend(q, k, v).data)
assert not np.array_equal(attend(q, k[..., moved, :], v).data, attend(q, k, v).data)

# %% [markdown]
# ## 5 · A smaller excess for larger cells
# The variance of a cell's count grows with its r² tokens, but the square of its mean, (r²·p)², grows with r⁴.
# Relative to the whole current, the excess is divided by r². A large cell's count is closer to its mean.

# %%
p = 0.2
cells = {r: (rng.random((200_000, r * r)) < p).sum(1) for r in (1, 2, 4)}
for r, count in cells.items():
    relative = count.var() / count.mean() ** 2
    assert abs(relative / ((1 - p) / (p * r * r)) - 1) < 0.05
