# %% [markdown]
# # Solutions to 05 · Fourier

# %%
import numpy as np

from minispike import create_model, ops

# %% [markdown]
# ★ Row N − k is row k again. Rows 0 … 98 remain: ⌊N/2⌋ + 1.

# %%
rows = 196 // 2 + 1
assert np.linalg.matrix_rank(ops.fourier(np.eye(196)).data) == rows

# %% [markdown]
# ★★ The real parts of (C − iS)² = R, the mirror, and of (C − iS)(C + iS) = I are C² − S² = R and C² + S² = I.
# Their mean is C² = (I + R)/2: two mixers in a row keep the even part and mix nothing beyond token and mirror
# token. What makes a second layer worth having is the neuron between them.


# %%
def twice(x):
    return (x + np.roll(np.flip(x, -2), 1, -2)) / 2


x = np.random.default_rng(0).standard_normal((2, 9, 4))
assert np.allclose(ops.fourier(ops.fourier(x)).data, twice(x))

# %% [markdown]
# ★★★ A block loses four D×D maps, the output map's bias, and three of four batch norms with γ and β each.


# %%
def saved(D, depth):
    return depth * (4 * D * D + D + 3 * 2 * D)


attention, fourier = (
    create_model(f"{family}_2_256_cifar10dvs") for family in ("spikformer", "attention_free_fft1d")
)
assert saved(256, 2) == attention.num_params() - fourier.num_params()
