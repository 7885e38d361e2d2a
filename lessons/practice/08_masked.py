"""Tasks for lesson 08: the scale of fewer tokens, one silence, the loss on hidden patches, masked BN."""

import numpy as np

from minispike import LIF, Tensor, ops
from minispike.autograd import Function
from minispike.blocks.scs import SCS
from minispike.blocks.ssa import attend
from minispike.masked import (
    MaskedAutoencoder,
    masked_autoencoder,
    patch_moments,
    patchify,
    random_visible,
)
from minispike.models import build_model, configuration
from minispike.visible import Visible

from .checks import Wrong, finite_differences, same, task

IMPORTS = """
import numpy as np
"""

# ---------------------------------------------------------------- predict


def wrong_factor(value):
    if not isinstance(value, (int, float)):
        return f"a factor is a number, not {type(value).__name__}"
    name, size = "spikformer_v2_1_64_digits", dict(img_size=28, embed_dim=16, num_heads=4, decoder_depth=1)
    model = masked_autoencoder(name, mask_ratio=0.75, **size)
    scale = 0.125 * value
    if model.blocks[0].mixer.scale != scale:
        N = model.grid[0] * model.grid[1]
        return f"with {N} tokens, {model.n_visible} of them visible, the scale is not 0.125 · {value:.6g}"
    return ""


@task(
    "★",
    hints=["How many tokens does SSA sum over now, and how many before?", "14 · 14 = 196; a quarter is 49."],
    answer=wrong_factor,
)
def factor():
    """Return by which factor SSA's scale is multiplied for 14×14 tokens, three quarters of them hidden."""
    return 4


def wrong_silences(value):
    if not isinstance(value, str) or set(value) - set("qkv") or len(set(value)) < len(value):
        return f'the answer is a text with some of the letters q, k, v, each once, like "qk"; got {value!r}'
    rng = np.random.default_rng(0)
    all_three = {name: (rng.random((3, 4, 2, 16, 6)) < 0.4).astype(float) for name in "qkv"}
    visible = rng.permutation(16) < 9
    absent = attend(*(Tensor(a[..., visible, :]) for a in all_three.values())).data
    for name in "qkv":
        one = {key: Tensor(a * visible[:, None] if key == name else a) for key, a in all_three.items()}
        gap = abs(attend(*one.values()).data[..., visible, :] - absent).max()
        if name in value and gap:
            return f"with {name} alone silent, an entry of a visible row is off by {gap:.0f}"
        if name not in value and not gap:
            return "there is another one that is enough alone"
    return ""


@task(
    "★★",
    hints=[
        "Write row i of (Q Kᵀ) V as a sum over tokens j.",
        "Row i is Σ_j (q_i · k_j) v_j. Which factors make the term of a hidden j vanish for a visible i?",
    ],
    answer=wrong_silences,
)
def enough():
    """Return which of q, k, v are enough: silenced alone, and in hidden places only, as if those were absent.

    All N tokens go through Y = (Q Kᵀ) V, with some of them hidden. To silence one of the three means to put
    zeros into its rows of the hidden tokens; the other two keep their spikes there. It is enough if the
    visible rows of Y are then exactly those of the visible tokens alone.
    Return a text of letters, each that is enough: "" for none, "qkv" if each of the three is.
    """
    return "kv"


# ---------------------------------------------------------------- the loss on hidden patches


def loss_cases(rng):
    sizes = (2, (2, 3), 4, 4), (3, (4, 2), 12, 1), (1, (3, 3), 2, 8), (5, (1, 4), 9, 2)
    for B, (h, w), P, n_visible in sizes:
        visible = random_visible(B, (h, w), n_visible, rng)
        patches, predicted = 3 * rng.random((B, h * w, P)), rng.standard_normal((B, h * w, P))
        patches[0, 0] = 0.7  # nothing to see: a flat patch
        yield {"patches": patches, "predicted": predicted, "visible": visible}


def library_loss(patches, predicted, visible):
    mean, deviation = patch_moments(patches)
    target, (B, N, P) = (patches - mean) / deviation, patches.shape
    hidden = Visible(~visible).rows(*visible.shape[1:])
    rows = (ops.take(a.reshape(1, B * N, P), hidden) for a in (Tensor(predicted), Tensor(target)))
    return {"target": target, "loss": ops.mse(*rows).data}


def loss_of(hidden_loss):
    """Put it in the place of a masked autoencoder's loss."""

    class Mine(MaskedAutoencoder):
        def forward(self, images, visible):
            shown = Visible(visible)
            predicted = self.decode(self.encode(images, shown), shown).data
            return hidden_loss(patchify(images, self.patch), predicted, visible)["loss"]

    size = dict(img_size=(8, 12), in_channels=2, embed_dim=16, num_heads=4, T=2, dtype="float64")
    rng = np.random.default_rng(1)
    images, visible = rng.random((3, 8, 12, 2)), random_visible(3, (4, 6), 12, rng)
    losses = []
    for kind in (Mine, MaskedAutoencoder):
        encoder = build_model(configuration("spikformer_v2_1_64_digits", **size), rng=0)
        model = kind(encoder, decoder_dim=8, decoder_depth=1, rng=0).to(dtype="float64")
        model.to_pixels.weight.data *= 30  # so that the guesses are not all near 0
        loss = model(images, visible)
        losses.append(loss.data if isinstance(loss, Tensor) else loss)
    same("a model's loss", *losses)


@task(
    "★★",
    hints=[
        "Mean and variance are taken over the last axis, one for each patch, with keepdims=True.",
        "The sum of the squared differences is divided by P − 1, and 1e-6 is added before the square root.",
        "predicted[hidden] with a bool array [B, N] picks the hidden patches; visible has to be flattened.",
    ],
    cases=loss_cases,
    expected=library_loss,
    place=loss_of,
)
def hidden_loss(patches, predicted, visible):
    """Compute the loss of masked image modelling.

    patches, predicted: [B, N, P], the pixels of each patch, and the decoder's guesses of them, normalised.
    visible: bool [B, h, w], N = h·w, row by row.
    Each patch is normalised by itself: minus its mean, divided by √(its unbiased variance + 1e-6).
    Return a dict: "target" [B, N, P], all patches normalised, and "loss", a number: the mean squared error
    over what is hidden, and over nothing else.
    """
    mean = patches.mean(-1, keepdims=True)
    variance = ((patches - mean) ** 2).sum(-1, keepdims=True) / (patches.shape[-1] - 1)
    target = (patches - mean) / np.sqrt(variance + 1e-6)
    hidden = ~visible.reshape(len(visible), -1)
    return {"target": target, "loss": ((predicted - target)[hidden] ** 2).mean()}


# ---------------------------------------------------------------- masked batch norm, both ways


def norm_cases(rng):
    for T, B, (h, w), side, C, n_visible in (
        (2, 3, (2, 2), 1, 2, 2),
        (1, 2, (3, 2), 2, 1, 4),
        (4, 1, (2, 3), 1, 5, 5),
        (3, 2, (2, 4), 3, 4, 1),
    ):
        tokens = random_visible(B, (h, w), n_visible, rng)
        visible = tokens.repeat(side, 1).repeat(side, 2)
        shape = (T, *visible.shape, C)
        x, gz = rng.normal(0.5, 2, shape), rng.standard_normal(shape)
        yield {"x": x, "visible": visible, "gamma": rng.uniform(0.5, 2, C), "gz": gz, "eps": 0.01}


def library_norm(x, visible, gamma, gz, eps):
    seen, (H, W), C = Visible(visible), x.shape[2:4], x.shape[-1]

    def run(gain):
        leaf, beta = Tensor(x, requires_grad=True), np.zeros(C)
        running = np.zeros(C), np.ones(C)
        rows = ops.batch_norm(seen.take(leaf), gain, beta, *running, training=True, eps=eps)
        return leaf, seen.put(rows, H, W)

    _, x_hat = run(np.ones(C))
    leaf, z = run(gamma)
    z.backward(gz)
    return {"x_hat": x_hat.data, "gx": leaf.grad}


def norm_of(masked_norm_backward):
    """Put it in the place of the backward of every batch norm of a masked stem."""

    class Norm(Function):
        def forward(self, x, gamma, beta, *, visible, eps):
            self.x, self.gamma, self.visible, self.eps = x, gamma, visible, eps
            rows = x[:, visible]
            x_hat = (rows - rows.mean((0, 1))) / np.sqrt(rows.var((0, 1)) + eps)
            z = np.zeros_like(x)
            z[:, visible] = gamma * x_hat + beta
            return z

        def backward(self, gy):
            found = masked_norm_backward(self.x, self.visible, self.gamma, gy, self.eps)
            seen = gy * self.visible[..., None]
            return found["gx"], (seen * found["x_hat"]).sum((0, 1, 2, 3)), seen.sum((0, 1, 2, 3))

    class Mine(Visible):
        def through(self, brick, x, T=1):
            y = brick.map(x)
            where = np.zeros(y.shape[1:4], bool)
            where.flat[self.rows(*y.shape[2:4])] = True
            norm = brick.norm
            z = Norm.apply(y, norm.weight, norm.bias, visible=where, eps=norm.eps)
            z = ops.broadcast_to(z, (T, *z.shape[1:])) if T > 1 else z
            return self.put(brick.neuron(self.take(z)), *y.shape[2:4])

    def neuron(**constants):
        return LIF(smooth=True, detach_reset=False, **constants)

    rng = np.random.default_rng(2)
    stem = SCS(2, 8, (False, True, False, False), neuron=neuron, rng=rng)
    images, visible = rng.standard_normal((1, 3, 4, 6, 2)), Mine(random_visible(3, (2, 3), 4, rng))
    with_library = stem(images, T=2, visible=Visible(visible.tokens)).data
    same("the visible tokens", stem(images, T=2, visible=visible).data, with_library)
    if with_library.std() < 0.01:
        raise Wrong("this stem is silent")
    finite_differences(lambda x: stem(x, T=2, visible=visible), images, *stem.parameters())


@task(
    "★★★",
    hints=[
        "x[:, visible] are the visible rows, [T, M, C]. Mean and variance are over their first two axes.",
        "For visible rows it is batch norm's backward: gz loses its mean and its part along x̂. Both are "
        "means over visible rows only.",
        "gx = (γ/σ) (gz − mean(gz) − x̂ · mean(gz x̂)) at visible places, and 0 elsewhere.",
    ],
    cases=norm_cases,
    expected=library_norm,
    place=norm_of,
)
def masked_norm_backward(x, visible, gamma, gz, eps):
    """Compute ∂L/∂x of a batch norm that counts visible places only.

    Forward: at visible places z = γ x̂ + β, x̂ = (x − μ) / √(σ² + eps), with μ and σ² (biased) per channel
    over the visible places of all steps and samples; at hidden places z = 0, whatever x is.
    x, gz: the input and ∂L/∂z, [T, B, H, W, C].    visible: bool [B, H, W].    gamma: γ, [C].
    Return a dict: "x_hat" with x̂ at visible places and 0 elsewhere, and "gx" = ∂L/∂x, both like x.
    """
    rows, g = x[:, visible], gz[:, visible]  # [T, M, C]
    sigma = np.sqrt(rows.var((0, 1)) + eps)
    unit = (rows - rows.mean((0, 1))) / sigma
    x_hat, gx = np.zeros_like(x), np.zeros_like(x)
    x_hat[:, visible] = unit
    gx[:, visible] = gamma / sigma * (g - g.mean((0, 1)) - unit * (g * unit).mean((0, 1)))
    return {"x_hat": x_hat, "gx": gx}
