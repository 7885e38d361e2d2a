# %% [markdown]
# # Solutions to 07 · The convolutional stem

# %%
import numpy as np

from minispike import LIF, Tensor, lif, ops
from minispike.blocks.scs import SCS

# %% [markdown]
# ## 1 · An OR of busy neurons
# If each of nine neurons fires with probability p, the OR is silent with probability (1 − p)⁹. At p = 7.4 %
# it is silent half of the time, and its answer carries one full bit. At p = 30 % it is silent in 4 % of the
# cases: then "yes" is nearly certain beforehand, and carries 0.24 bits.


# %%
def bits(p, n=9):
    silent = (1 - p) ** n
    return -silent * np.log2(silent) - (1 - silent) * np.log2(1 - silent)


assert bits(1 - 0.5 ** (1 / 9)) > 0.9999 and 0.03 < 0.7**9 < 0.05 and 0.23 < bits(0.3) < 0.25
fired = (np.random.default_rng(7).random((900, 900, 1)) < 0.3) * 1.0
assert abs(ops.max_pool2d(fired, 3).data.mean() - (1 - 0.7**9)) < 0.01

# %% [markdown]
# ## 2 · How many answers
# A constant current gives one of five trains in four steps: the larger the current, the earlier and the more
# often the neuron fires. So four neurons give at most 5⁴ = 625 answers. If each could fire freely, there
# would be 2⁴ trains for each neuron and 2¹⁶ = 65,536 answers, as many as there are windows.

# %%
currents = np.tile(np.linspace(0, 3, 1000), (4, 1))  # [T, neurons], constant in time
trains = np.unique(lif(currents).data.T, axis=0)
assert len(trains) == 5 and len(trains) ** 4 == 625 and (2**4) ** 4 == 2**16

# %% [markdown]
# ## 3 · Overlapping windows
# Along one axis, window p of a 3×3 kernel covers the pixels 2p − 1, 2p and 2p + 1. So an even pixel is in one
# window and an odd pixel in two, except for the last. In two axes the numbers multiply: some pixels collect
# four times the gradient of their neighbours. This chequerboard is missing if windows do not overlap.


# %%
def collected(k, padding):
    x = Tensor(np.zeros((8, 8, 1)), requires_grad=True)
    y = ops.conv2d(x, np.ones((k, k, 1, 1)), stride=2, padding=padding)
    y.backward(np.ones_like(y.data))
    return x.grad[..., 0]


assert collected(3, 1)[:3, :3].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
assert (collected(2, 0) == 1).all()

# %% [markdown]
# ## 4 · Tokens are 0, 1 or 2
# A stage's first brick ends with neurons, so its output is 0 or 1, whatever came in. The residual of this
# stage adds one more spike. The next stage starts again with neurons. Only the blocks let the sum grow.

# %%
stem = SCS(2, 16, (True, False, True, False), neuron=LIF, rng=0)
for stage in stem.stages:
    for brick in (stage.down, stage.expand, stage.contract):
        brick.norm.weight.data[...] = 3
tokens = stem(np.random.default_rng(1).standard_normal((1, 4, 8, 8, 2)), T=3).data
assert set(np.unique(tokens)) == {0, 1, 2}

# %% [markdown]
# ## 5 · The search over k and e
# The total is the lesson's `count`, rounded as the paper prints it. Of all pairs with k up to 4 and e up to 8
# only (2, 4) is left. Residuals, strides and neurons have no parameters, so no count can tell them.


# %%
def meets(k, e):
    for D, depth, digits, published in ((384, 8, 2, 29.11), (512, 8, 2, 51.55), (768, 16, 0, 172)):
        m, n = np.array([3, D // 8, D // 4, D // 2]), np.array([D // 8, D // 4, D // 2, D])
        stem = (k * k * m * n + 18 * e * n * n + 4 * n + 2 * e * n).sum()
        total = stem + depth * (12 * D * D + 24 * D) + 1000 * D + 1000
        if round(total / 1e6, digits) != published:
            return False
    return True


assert [(k, e) for k in range(1, 5) for e in range(1, 9) if meets(k, e)] == [(2, 4)]
