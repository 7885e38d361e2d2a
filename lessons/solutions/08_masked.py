# %% [markdown]
# # Solutions to 08 · Masked images

# %%
import numpy as np

from minispike import Tensor
from minispike.blocks.ssa import attend
from minispike.masked import masked_autoencoder

# %% [markdown]
# ★ 196 tokens, 49 of them visible: N / n_visible = 4.

# %%
factor = 4
masked = masked_autoencoder(
    "spikformer_v2_1_64_digits", mask_ratio=0.75, img_size=28, embed_dim=16, num_heads=4
)
assert masked.grid == (14, 14) and masked.n_visible == 49
assert masked.blocks[0].mixer.scale == 0.125 * factor

# %% [markdown]
# ★★ The mean of x is f·μ, that of x² is f·(σ² + μ²), so the variance is f·(σ² + μ²) − f²μ². The more is
# hidden, the smaller the mean; the variance shrinks too, but where |μ| > σ it grows at first. Either way what
# the visible places are normalised by would depend on the mask.


# %%
def diluted(mean, var, f):
    return f * mean, f * var + f * (1 - f) * mean**2


rng = np.random.default_rng(0)
rows = rng.standard_normal((10, 6)) + 1
everything = np.concatenate([rows, np.zeros((30, 6))])
assert np.allclose(diluted(rows.mean(0), rows.var(0), 0.25), (everything.mean(0), everything.var(0)))

# %% [markdown]
# ★★★ In Σ_j (q_i·k_j) v_j a silent j adds nothing: to the sums of the visible tokens it is the same, bit for
# bit, whether the hidden ones are silent or absent. Absent is cheaper, and batch norm does not count them.


# %%
def silenced(q, k, v, visible):
    q, k, v = (a * visible[:, None] for a in (q, k, v))  # [T, B, h, N, d], visible [N]
    return attend(*map(Tensor, (q, k, v))).data[..., visible, :]


q, k, v = (rng.random((3, 4, 2, 2, 16, 6)) < 0.4).astype(float)
visible = rng.permutation(16) < 8
dropped = [Tensor(a[..., visible, :]) for a in (q, k, v)]
assert np.array_equal(silenced(q, k, v, visible), attend(*dropped).data)
