# %% [markdown]
# # Solutions to 08 · Masked images

# %%
import numpy as np

from data_utils.images.digits import load_digits
from minispike import no_grad
from minispike.masked import masked_autoencoder, patch_moments, patchify, random_visible
from minispike.visible import Visible

rng = np.random.default_rng(0)
images = load_digits()[0][0][:64]
visible = random_visible(len(images), (4, 4), 8, rng)

# %% [markdown]
# ## 1 · Batch norm that counts hidden zeros
# Write μ and σ² for the mean and the variance of the visible places. Among the zeros the mean of x is f·μ and
# that of x² is f·(σ² + μ²). So the variance is f·(σ² + μ²) − f²·μ² = f·σ² + f·(1 − f)·μ². What the visible
# places are normalised by would depend on how much is hidden, and would change once nothing is.


# %%
def diluted(mean, var, f):
    return f * mean, f * var + f * (1 - f) * mean**2


rows = rng.standard_normal((10, 6)) + 1
everything = np.concatenate([rows, np.zeros((30, 6))])
assert np.allclose(diluted(rows.mean(0), rows.var(0), 0.25), (everything.mean(0), everything.var(0)))

# %% [markdown]
# ## 2 · Why patches are normalised
# On digits more than half of the pixels' variance is between patches: some are dark, some are bright. A
# network that copies the brightness of a neighbour, or knows where digits usually are, would be nearly right.
# Without mean and deviation only the pattern inside a patch is left to guess.

# %%
patches = patchify(images, 2)
mean, deviation = patch_moments(patches)
between = mean.var() / patches.var()
inside = ((patches - mean) / deviation).mean(-1)
assert 0.5 < between < 0.9 and abs(inside).max() < 1e-3

# %% [markdown]
# ## 3 · Hidden patches only
# A visible patch is known, so a network would be rewarded for copying it. A guess that copies what is visible
# and says 0 elsewhere would have half of the loss of saying 0 everywhere, and would have learned nothing.

# %%
truth, seen = (patches - mean) / deviation, visible.reshape(len(images), 16, 1)
zero, copied = ((truth - guess) ** 2 for guess in (0 * truth, np.where(seen, truth, 0)))
assert abs(copied.mean() / zero.mean() - 0.5) < 0.1
hidden = ~seen[..., 0]
assert np.array_equal(copied[hidden], zero[hidden])  # over hidden patches the two are equal

# %% [markdown]
# ## 4 · The decoder without positions
# All hidden places have the same mask token, and attention treats equal entries equally. So the decoder gives
# one and the same guess at every hidden place of an image.

# %%
model = masked_autoencoder("spikformer_v2_1_64_digits", embed_dim=16, num_heads=2, T=1, rng=0)


def spread():  # how much the guesses at the hidden places of an image differ
    with no_grad():
        guesses = model.decode(model.encode(images, Visible(visible)), Visible(visible)).data
    return max(np.ptp(each[~mask.ravel()], axis=0).max() for each, mask in zip(guesses, visible, strict=True))


with_positions = spread()
model.positions = 0 * model.positions
assert spread() < 1e-5 < 0.01 < with_positions

# %% [markdown]
# ## 5 · No hidden pixel, and still harm
# Behind a shortcut, neurons fire in hidden places, though what they say is the same for any hidden pixels.
# The next 3×3 convolutions carry these spikes to visible neighbours, so visible tokens depend on where the
# mask is. Batch norm counts the hidden places and so depends on how many there are (question 1). After
# pre-training, on whole images, there is no such place: the network has learned with inputs that it will
# not meet again. Here shortcut (b), the image masked and nothing else, changes visible tokens.

# %%
model.train()
with no_grad():
    pixels = images * visible.repeat(2, 1).repeat(2, 2)[..., None]
    masked = model.stem(pixels[None], T=1, visible=Visible(visible)).data[0]  # [B, 8, D]
    shortcut = model.stem(pixels[None], T=1).data[0]  # [B, 16, D]
assert (shortcut[~visible.reshape(-1, 16)] > 0).any()
assert (masked.reshape(-1, 16) != shortcut[visible.reshape(-1, 16)]).any()
