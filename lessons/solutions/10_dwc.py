# %% [markdown]
# # Solutions to 10 · DWC

# %%
import numpy as np

from minispike import Tensor, ops
from minispike.blocks.dwc import DWC

# %% [markdown]
# ★ 25 weights a channel, no bias, and batch norm's γ and β.

# %%
predicted = 384 * (25 + 2)
assert DWC(384, (8, 8), 5, rng=0).num_params() == predicted

# %% [markdown]
# ★★ y[p, q] reads x[p + i − 1, q + j − 1] through w[i, j], so gx[p, q] collects gy[p − i + 1, q − j + 1] from
# it: the same sum with i and j running backwards. The kernel is turned around by 180°.


# %%
def input_gradient(gy, w):
    return ops.depthwise_conv2d(gy, w[::-1, ::-1], padding=w.shape[0] // 2).data


rng = np.random.default_rng(0)
x = Tensor(rng.standard_normal((2, 6, 4, 8)), requires_grad=True)
gy, w = rng.standard_normal(x.shape), rng.standard_normal((5, 5, 8))
ops.depthwise_conv2d(x, w, padding=2).backward(gy)
assert np.allclose(input_gradient(gy, w), x.grad)

# %% [markdown]
# ★★★ Σ_c (Σ_ij x[·, c] w[i, j, c]) W[c, o]: the kernel from c to o is w[:, :, c] · W[c, o]. All D kernels of
# an input channel are multiples of one: D·k² + D² numbers for k²·D².


# %%
def full(w, W):
    return w[..., None] * W  # [k, k, D, 1] · [D, D]


x, w, W = rng.standard_normal((2, 6, 4, 8)), rng.standard_normal((3, 3, 8)), rng.standard_normal((8, 8))
depthwise = ops.depthwise_conv2d(x, w, padding=1).data
assert np.allclose(ops.conv2d(x, full(w, W), padding=1).data, depthwise @ W)
