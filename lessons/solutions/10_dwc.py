# %% [markdown]
# # Solutions to 10 · DWC

# %%
import numpy as np

from minispike import Tensor, ops
from minispike.blocks.dwc import DWC

# %% [markdown]
# ## 1 · Parameters of a 5×5 DWC
# Each channel has 25 weights, no bias, and batch norm's γ and β: 384 · (25 + 2) = 10,368. Of these, 768
# belong to BN.

# %%
assert DWC(384, (8, 8), 5, rng=0).num_params() == 384 * (25 + 2) == 10_368
assert DWC(384, (8, 8), 5, rng=0).conv.norm.num_params() == 768

# %% [markdown]
# ## 2 · The gradient is a depthwise convolution
# Its kernel is w, turned by 180°. The output at a place reads the input i − 1 rows below through w[i, j]. So
# the input at a place gets its gradient from the output i − 1 rows *above*, through the same w[i, j]. With i
# and j counted backwards, "above" becomes "below" again.


# %%
def input_gradient(gy, w):
    return ops.depthwise_conv2d(gy, w[::-1, ::-1], padding=w.shape[0] // 2).data


rng = np.random.default_rng(0)
x = Tensor(rng.standard_normal((2, 6, 4, 8)), requires_grad=True)
gy, w = rng.standard_normal(x.shape), rng.standard_normal((5, 5, 8))
ops.depthwise_conv2d(x, w, padding=2).backward(gy)
assert np.allclose(input_gradient(gy, w), x.grad)

# %% [markdown]
# ## 3 · Constant channels with k = 1
# With k = 1 a channel's current has two values: 0 without a spike and w with a spike. BN shifts and scales
# both. At the first step a neuron fires if its input is at least τ = 2. If both values are below 2, the
# channel is silent; if both reached 2, it would fire everywhere. Rare spikes with a negative weight are a
# typical case: BN subtracts the mean, so places without a spike end just above 0, and those with one far
# below.

# %%
K = (rng.random((4, 2, 16, 8)) < 0.2).astype(float)
module = DWC(8, (4, 4), 1, rng=0)
module.conv.map.weight.data[...] = -1
module.conv.norm.weight.data[...] = 2
assert not module(K).data[0].any() and K[0].any((0, 1)).all()

# %% [markdown]
# ## 4 · A mean cosine of 0 and a low effective rank
# Yes. Silent tokens are left out of the cosine, and the cosine ignores how long a token is. Two tokens with
# no channel in common, one with 36 spikes and one with a single spike, have a cosine of 0. The singular
# values are their lengths, 6 and 1, so p = 6/7 and 1/7: effective rank 1.51.

# %%
tokens = np.zeros((16, 64))
tokens[3, :36], tokens[7, 40] = 1, 1
sigma = np.linalg.svd(tokens, compute_uv=False)
p = sigma[:2] / sigma.sum()
assert tokens[3] @ tokens[7] == 0 and np.allclose(p, [6 / 7, 1 / 7])
assert round(np.exp(-(p * np.log(p)).sum()), 2) == 1.51

# %% [markdown]
# ## 5 · Three controls
# - Noise with as many spikes: if it raises the rank, too, the rank does not show that information came back.
# - Identity in place of the mixer: if it is as accurate, the data set cannot show what any mixer is worth.
# - More seeds: on digits the standard error of a difference is 0.4 points with three seeds each. So
#   0.3 points, with one seed each, are within chance.
#
# Two more are K itself in place of DWC(K), which shows what the convolution adds to the way around attention,
# and k = 1, which shows what the neighbours add. A small example: one test image of 360 is 0.28 points.

# %%
assert round(100 / 360, 2) == 0.28
