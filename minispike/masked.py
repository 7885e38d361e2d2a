"""Masked image modelling, Spikformer V2's pre-training: hide half of the patches or more, and predict them.

    images  →  SCS, on the visible patches alone   →  visible tokens  →  blocks       the encoder
            →  mean over T, Linear, a mask token in every hidden place, positions
            →  a few plain blocks, LayerNorm, Linear  →  each patch's pixels          the decoder, discarded

    loss = mean over the masked patches of (prediction − normalised pixels)²

Spikformer V2 (arXiv 2401.02020) pre-trains this way but leaves details open; we fill them in after masked
autoencoders (MAE, arXiv 2111.06377) and SparK (arXiv 2301.03580), which hides patches from a convolutional
network. Hidden patches leave no trace: see visible.py. The blocks are unchanged and see fewer tokens. SSA is
a sum over tokens, so its scale is multiplied by N / n_visible. Only visible tokens enter the blocks, which
makes the blocks cheaper; a whole step is cheaper than a supervised one where the blocks are large enough
(benchmarks/README.md).
"""

from __future__ import annotations

from .autograd import Tensor, where
from .backend import Array, get_device, get_xp, make_rng, to_device
from .blocks.decoder import LayerNorm, PlainBlock, positions
from .blocks.scs import SCS
from .blocks.ssa import SSA
from .models import SpikingTransformer, build_model, check_images, configuration
from .nn import Linear, Module, Parameter
from .ops import mse, put, take
from .train import fit
from .visible import Visible

# ---------------------------------------------------------------- patches


def patchify(images: Array, patch: int) -> Array:
    """Cut images [B, H, W, C] into patches of patch×patch pixels: [B, N, patch·patch·C], row by row."""
    B, H, W, C = images.shape
    if H % patch or W % patch:
        raise ValueError(f"{where()}images of {H}×{W} do not divide into patches of {patch}×{patch}")
    x = images.reshape(B, H // patch, patch, W // patch, patch, C).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(B, -1, patch * patch * C)


def unpatchify(patches: Array, img_size: tuple[int, int], patch: int) -> Array:
    """Put patches [B, N, patch·patch·C] back into images [B, H, W, C]: the inverse of `patchify`."""
    H, W = img_size
    x = patches.reshape(len(patches), H // patch, W // patch, patch, patch, -1).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(len(patches), H, W, -1)


def patch_moments(patches: Array, eps: float = 1e-6) -> tuple[Array, Array]:
    """Return each patch's mean and √(unbiased variance + eps), [B, N, 1] both."""
    mean = patches.mean(-1, keepdims=True)
    var = ((patches - mean) ** 2).sum(-1, keepdims=True) / (patches.shape[-1] - 1)
    return mean, (var + eps) ** 0.5


def random_visible(batch: int, grid: tuple[int, int], n_visible: int, rng) -> Array:
    """Draw which tokens are visible: bool [batch, h, w] on the host, n_visible in every sample."""
    order = rng.random((batch, grid[0] * grid[1])).argsort(1)
    visible = order.argsort(1) < n_visible  # the places of the n_visible smallest numbers
    return visible.reshape(batch, *grid)


# ---------------------------------------------------------------- the model


class MaskedAutoencoder(Module):
    """The stem and blocks of `encoder`, and a light decoder that reads them; model(images, visible) -> loss.

    The encoder's parameters keep their names ("stem.…", "blocks.…"), so that they move into a classifier by
    name: `checkpoint.load_encoder`. `encoder` must not be used elsewhere: SSA's scale is changed here.
    """

    def __init__(
        self,
        encoder: SpikingTransformer,
        mask_ratio: float = 0.5,
        decoder_dim: int = 64,
        decoder_depth: int = 2,
        decoder_heads: int = 4,
        *,
        rng,
    ):
        if not isinstance(encoder.stem, SCS):
            raise ValueError(f"{where()}masked image modelling needs the stem 'scs'")
        mixers = [block.mixer for block in encoder.blocks]
        if not all(isinstance(mixer, SSA) for mixer in mixers):
            raise ValueError(f"{where()}masked image modelling needs SSA as mixer")
        self.stem, self.blocks = encoder.stem, encoder.blocks
        self.img_size, self.in_channels, self.T = encoder.img_size, encoder.in_channels, encoder.T
        self.patch = 2 ** sum(stage.half for stage in self.stem.stages)
        (H, W), P = self.img_size, self.patch
        if H % P or W % P:
            raise ValueError(f"{where()}images of {H}×{W} do not divide into patches of {P}×{P}")
        self.grid = H // P, W // P
        N = self.grid[0] * self.grid[1]
        self.n_visible = round(N * (1 - mask_ratio))
        if not 0 < mask_ratio < 1 or not 0 < self.n_visible < N:
            got = f"mask_ratio {mask_ratio} of {N} patches leaves {self.n_visible} visible"
            raise ValueError(f"{where()}{got}: some must be hidden")
        for mixer in mixers:
            mixer.scale *= N / self.n_visible

        rng, width = make_rng(rng), encoder.head.weight.shape[0]
        self.embed = Linear(width, decoder_dim, rng=rng)
        self.mask_token = Parameter(0.02 * rng.standard_normal(decoder_dim))
        self.positions = positions(self.grid, decoder_dim)
        self.decoder = [PlainBlock(decoder_dim, decoder_heads, rng=rng) for _ in range(decoder_depth)]
        self.norm = LayerNorm(decoder_dim)
        self.to_pixels = Linear(decoder_dim, self.patch**2 * self.in_channels, rng=rng)
        self.config: dict | None = None  # how masked_autoencoder made it, for a checkpoint to tell

    def forward(self, images, visible: Array) -> Tensor:
        """Return the loss on images [B, H, W, C] of which the tokens visible, bool [B, h, w], are shown."""
        shown = Visible(visible)
        predicted = self.decode(self.encode(images, shown), shown)  # [B, N, P]
        patches = patchify(images.data if isinstance(images, Tensor) else images, self.patch)
        mean, deviation = patch_moments(patches)
        hidden = Visible(~visible).rows(*self.grid)
        B, N, P = patches.shape
        target = take(((patches - mean) / deviation).reshape(1, B * N, P), hidden)
        return mse(take(predicted.reshape(1, B * N, P), hidden), target)

    def encode(self, images, visible: Visible) -> Tensor:
        """Return the visible tokens [T, B, n_visible, D]; what images hold elsewhere does not matter."""
        x = check_images(images, self.img_size, self.in_channels, self.mask_token.dtype)
        if x.ndim != 4:
            takes = "masked image modelling takes images [B, H, W, C]"
            raise ValueError(f"{where()}{takes}, got frames {list(x.shape)}")
        x = self.stem(x.reshape(1, *x.shape), T=self.T, visible=visible)
        for block in self.blocks:
            x = block(x)
        return x

    def decode(self, tokens, visible: Visible) -> Tensor:
        """Return every patch's predicted pixels, normalised, [B, N, patch·patch·C]."""
        h, w = self.grid
        if visible.tokens.shape[1:] != self.grid or visible.per_sample != self.n_visible:
            needed = f"{self.n_visible} of {h}×{w} tokens, as many as SSA's scale is made for"
            raise ValueError(f"{where()}the mask must show {needed}")
        _, B, _, D = tokens.shape
        x = self.embed(tokens.mean(0).reshape(1, -1, D))  # [1, B·n_visible, decoder_dim]
        N = self.grid[0] * self.grid[1]
        x = put(x, visible.rows(*self.grid), B * N).reshape(B, N, -1)
        hidden = (~visible.tokens).reshape(B, N, 1).astype(x.dtype.name)
        x = x + self.mask_token * to_device(hidden, get_device(x.data).name) + self.positions
        for block in self.decoder:
            x = block(x)
        return self.to_pixels(self.norm(x))

    def reconstruct(self, images, visible: Array) -> Array:
        """Return images [B, H, W, C] whose hidden patches are the decoder's, in the true patches' scale."""
        shown = Visible(visible)
        predicted = self.decode(self.encode(images, shown), shown).data
        patches = patchify(images, self.patch)
        mean, deviation = patch_moments(patches)
        keep = to_device(shown.tokens.reshape(*patches.shape[:2], 1), get_device(patches).name)
        patches = get_xp(patches).where(keep, patches, predicted * deviation + mean)
        return unpatchify(patches, self.img_size, self.patch)


def masked_autoencoder(
    encoder: str,
    *,
    mask_ratio: float = 0.5,
    decoder_dim: int = 64,
    decoder_depth: int = 2,
    decoder_heads: int = 4,
    rng=0,
    dtype: str = "float32",
    **overrides,
) -> MaskedAutoencoder:
    """Build the masked autoencoder of a named Spikformer V2, with fresh weights from `rng`.

    mask_ratio: the share of patches that are hidden.    decoder_…: the size of the part that is discarded.
    overrides: fields of the encoder's Config, as for create_model.
    """
    decoder = dict(decoder_dim=decoder_dim, decoder_depth=decoder_depth, decoder_heads=decoder_heads)
    config = configuration(encoder, dtype=dtype, **overrides)
    return build_masked(dict(encoder=config, mask_ratio=mask_ratio, **decoder), rng=rng)


def build_masked(config: dict, *, rng=0) -> MaskedAutoencoder:
    """Build a masked autoencoder from a configuration as `model.config` holds it: its encoder is a Config."""
    rng = make_rng(rng)
    decoder = {key: value for key, value in config.items() if key not in ("family", "encoder")}
    encoder = build_model(config["encoder"], rng=rng)
    model = MaskedAutoencoder(encoder, **decoder, rng=rng).to(dtype=encoder.config.dtype)
    model.config = {"family": "masked_autoencoder", **config}
    return model


# ---------------------------------------------------------------- training


def pretrain(model: MaskedAutoencoder, optimizer, batches, *, rng, **options) -> list[dict]:
    """Train on batches of (images, anything), with fresh masks from `rng`; other options as in `train.fit`.

    Raises ValueError for options that need labels or a forward without masks.
    """
    odd = sorted(options.keys() & {"objective", "label_smoothing", "calibration", "test"})
    if odd:
        raise ValueError(f"{where()}pretrain has no {', '.join(odd)}")
    rng = make_rng(rng)

    def objective(model, images, _):
        return model(images, random_visible(len(images), model.grid, model.n_visible, rng)), {}

    return fit(model, optimizer, batches, objective=objective, **options)
