# %% [markdown]
# # Solutions to 04 · Spikformer

# %%
import numpy as np

from minispike import create_model, ops

# %% [markdown]
# ★ A block holds 4 maps of 64×64 with bias and batch norm (SSA), and 64 → 128 → 64 likewise (MLP).

# %%
D, hidden = 64, 128
ssa = 4 * (D * D + D + 2 * D)
mlp = (D * hidden + hidden + 2 * hidden) + (hidden * D + D + 2 * D)
added = ssa + mlp
assert create_model("spikformer_1_64_digits", depth=2).num_params() == 96_258 + added

# %% [markdown]
# ★★ head(mean_t x_t) = (mean_t x_t) W + b = mean_t (x_t W + b) = mean_t head(x_t).


# %%
def late_average(model, x):
    tokens = model.stem(x[None], T=model.T)  # [T, B, N, D]
    for block in model.blocks:
        tokens = block(tokens)
    logits = ops.linear(tokens.mean(2), model.head.weight, model.head.bias)  # [T, B, 10]
    return logits.data.mean(0)  # [B, 10]


x = np.random.default_rng(0).standard_normal((5, 8, 8, 1))
model = create_model("spikformer_1_64_digits", dtype="float64")
assert np.allclose(late_average(model, x), model(x).data, atol=1e-12)

# %% [markdown]
# ★★★ The stem adds two binary maps, its last stage and the RPE: at most 2. Each block adds two binary
# maps, the mixer's and the MLP's last spikes: at most 2 more.


# %%
def bound(depth):
    stem = sum([1, 1])
    block = sum([1, 1])
    return stem + depth * block


deep = create_model("spikformer_1_64_digits", depth=2, dtype="float64", v_threshold=0.1)  # eager to fire
tokens = deep.stem(x[None], T=4)
for block in deep.blocks:
    tokens = block(tokens)
stream_maximum = tokens.data.max()
assert bound(2) == 6 == stream_maximum
