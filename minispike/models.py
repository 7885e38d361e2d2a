"""Whole models by name: one machine, put together from a stem, blocks and a head.

image or frames → STEM → tokens → depth × { x + MIXER(x);  x + MLP(x) } → mean over N and T → head

create_model("spikformer_4_384_cifar10")                  4 blocks of width 384, as published
create_model("spikformer_4_384_cifar10", T=1, depth=2)    any part of the configuration overridden
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from inspect import signature

from .autograd import Tensor, as_tensor, expect, where
from .backend import get_xp, make_rng
from .blocks.control import Identity, RandomMix
from .blocks.dwc import DWC
from .blocks.encoder import Block
from .blocks.fourier import FourierMix
from .blocks.mlp import MLP
from .blocks.sasa import SASA, Channel, Global, Pool
from .blocks.scs import SCS
from .blocks.sps import SPS
from .blocks.ssa import SSA
from .blocks.wavelet import Mixture, WaveletMix
from .configs import MODELS
from .nn import LIF, Linear, Module, Spiking


class SpikingTransformer(Module):
    """Classify images x [B, H, W, C], shown T times, or frames x [T, B, H, W, C] -> logits [B, classes].

    x: float array or Tensor in the parameters' dtype. A static image passes the first convolution once, not T
    times; frames bring their own number of steps. ValueError for another rank, size or channel count, or for
    NaN.
    """

    def __init__(
        self,
        stem: Module,
        blocks: list[Block],
        head: Linear,
        *,
        T: int,
        img_size: tuple[int, int],
        in_channels: int,
    ):
        self.stem, self.blocks, self.head = stem, blocks, head
        self.T, self.img_size, self.in_channels = T, img_size, in_channels
        self.config: dict | None = None  # how create_model made it, for a checkpoint to tell

    def forward(self, x) -> Tensor:
        x = check_images(x, self.img_size, self.in_channels, self.head.weight.dtype)
        if x.ndim == 4:
            x = self.stem(x.reshape(1, *x.shape), T=self.T)  # [T, B, N, D]
        else:
            x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((0, 2)))  # [B, D] -> [B, classes]


def check_images(x, img_size: tuple[int, int], in_channels: int, dtype) -> Tensor:
    """Return images or frames x as a Tensor. ValueError for another shape or NaN, TypeError for a dtype."""
    x = as_tensor(x)
    sizes = ", ".join(map(str, (*img_size, in_channels)))
    ok = x.ndim in (4, 5) and x.shape[-3:] == (*img_size, in_channels) and 0 not in x.shape
    expect(ok, f"expected images [B, {sizes}] or frames [T, B, {sizes}], got {list(x.shape)}")
    if x.dtype != dtype:
        raise TypeError(
            f"{where()}x is {x.dtype}, the parameters {dtype}: convert with x.astype({str(dtype)!r})"
        )
    expect(bool(get_xp(x.data).isfinite(x.data).all()), f"x {list(x.shape)} holds NaN or Inf")
    return x


# ---------------------------------------------------------------- families

STEMS = {"sps": SPS, "scs": SCS}


def transformer(
    make_mixer: Callable[..., Module],
    *,
    img_size: int | tuple[int, int],
    in_channels: int,
    num_classes: int,
    stem: str = "sps",
    pools: tuple[bool, ...],
    embed_dim: int,
    depth: int,
    mlp_ratio: float = 4,
    T: int = 4,
    rng=0,
    **neuron,
) -> SpikingTransformer:
    """Build the machine around a mixer: stem, blocks of mixer and MLP, head. Every family takes these.

    make_mixer(grid, neuron, rng) makes a block's mixer for a token grid (H, W).
    stem: "sps", or Spikformer V2's "scs".    pools: which of the stem's four stages halve the grid: SPS's by
    a max-pool behind the stage, SCS's by the stride of its first convolution.
    neuron: LIF's keywords, for every neuron of the model: tau, v_threshold, v_reset, detach_reset, surrogate,
    smooth (the attention neuron keeps its threshold of 0.5).
    """
    rng, make_neuron = make_rng(rng), partial(LIF, **neuron)
    size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
    grid = tuple(side // 2 ** sum(pools) for side in size)
    hidden = int(embed_dim * mlp_ratio)
    counts = dict(T=T, embed_dim=embed_dim, num_classes=num_classes, in_channels=in_channels, depth=depth)
    counts |= {"embed_dim · mlp_ratio": hidden}
    odd = [f"{name} = {n}" for name, n in counts.items() if n % 1 or n < (name != "depth")]
    expect(not odd, f"a model needs whole numbers, from 1 on (depth: from 0), got {', '.join(odd)}")
    expect(stem in STEMS, f"stem must be one of {', '.join(STEMS)}, got {stem!r}")
    tokens = STEMS[stem](in_channels, embed_dim, pools, neuron=make_neuron, rng=rng)
    blocks = [
        Block(make_mixer(grid, make_neuron, rng), MLP(embed_dim, hidden, neuron=make_neuron, rng=rng))
        for _ in range(depth)
    ]
    head = Linear(embed_dim, num_classes, rng=rng)
    return SpikingTransformer(tokens, blocks, head, T=T, img_size=size, in_channels=in_channels)


def spikformer(
    *, embed_dim: int, num_heads: int, scale: float = 0.125, qkv_bias: bool = True, **frame
) -> SpikingTransformer:
    """Build a Spikformer (arXiv 2209.15425): the mixer is SSA.

    scale: SSA's s.    qkv_bias: whether q, k and v have biases.    frame: `transformer`'s keywords.
    """

    def mixer(grid, neuron, rng):
        return SSA(embed_dim, num_heads, scale, qkv_bias, neuron=neuron, rng=rng)

    return transformer(mixer, embed_dim=embed_dim, **frame)


def attention_free_spikformer(
    *,
    embed_dim: int,
    mixer: str,
    bases: tuple[str, ...] = ("haar", "db2", "bior1.3"),
    levels: int = 1,
    **frame,
) -> SpikingTransformer:
    """Build an attention-free Spikformer (arXiv 2308.02557): the mixer is a fixed transform, then BN and LIF.

    mixer: "fft1d", "fft2d", a wavelet family of PyWavelets ("haar", "db2", …), "wavelets" (a learned mixture
    of `bases`, which are named alike), or a control: "identity", "random".
    levels: how deep every wavelet goes.    frame: `transformer`'s keywords.
    """

    def transform(name, grid, rng):
        if name in ("fft1d", "fft2d"):
            return FourierMix(embed_dim, "tokens" if name == "fft1d" else "tokens and channels")
        if name == "identity":
            return Identity(embed_dim)
        if name == "random":
            return RandomMix(embed_dim, grid[0] * grid[1], rng=rng)
        return WaveletMix(embed_dim, grid, name, levels)

    def make_mixer(grid, neuron, rng):
        if mixer == "wavelets":
            map = Mixture(embed_dim, [transform(basis, grid, rng) for basis in bases])
        else:
            map = transform(mixer, grid, rng)
        return Spiking(map, neuron())

    return transformer(make_mixer, embed_dim=embed_dim, **frame)


def spikformer_v2(
    *, embed_dim: int, num_heads: int, scale: float = 0.125, qkv_bias: bool = True, **frame
) -> SpikingTransformer:
    """Build a Spikformer V2 (arXiv 2401.02020): Spikformer behind the convolutional stem SCS.

    All keywords as `spikformer`.
    """
    frame = {"stem": "scs", **frame}
    return spikformer(embed_dim=embed_dim, num_heads=num_heads, scale=scale, qkv_bias=qkv_bias, **frame)


def saformer(
    *,
    embed_dim: int,
    num_heads: int,
    aggregate: str = "pool",
    r: int = 2,
    dwc: int | None = 3,
    scale: float = 0.125,
    qkv_bias: bool = True,
    **frame,
) -> SpikingTransformer:
    """Build a SAFormer (arXiv 2412.13553): the mixer is SASA, with a depthwise convolution module.

    aggregate: the reading of SASA's aggregation, "pool", "global" or "channel" (see blocks/sasa.py).
    r: the side of pool's cells.    scale: s in pool and global.    dwc: the module's kernel, 3 or 5; None for
    SASA alone.    qkv_bias: whether q and k have biases.    frame: `transformer`'s keywords.
    """
    readings = {
        "pool": lambda grid, neuron: Pool(grid, r, scale, neuron=neuron),
        "global": lambda grid, neuron: Global(scale, neuron=neuron),
        "channel": lambda grid, neuron: Channel(neuron=neuron),
    }
    expect(aggregate in readings, f"aggregate must be one of {', '.join(readings)}, got {aggregate!r}")

    def mixer(grid, neuron, rng):
        conv = DWC(embed_dim, grid, dwc, neuron=neuron, rng=rng) if dwc else None
        reading = readings[aggregate](grid, neuron)
        return SASA(embed_dim, num_heads, reading, conv, qkv_bias, neuron=neuron, rng=rng)

    return transformer(mixer, embed_dim=embed_dim, **frame)


# ---------------------------------------------------------------- names

FAMILIES = {f.__name__: f for f in (spikformer, attention_free_spikformer, spikformer_v2, saformer)}


def list_models() -> list[str]:
    """Return the names that create_model knows."""
    return list(MODELS)


def create_model(name: str, *, rng=0, dtype: str = "float32", **overrides) -> SpikingTransformer:
    """Build a model by name, with fresh weights from `rng` (a seed or a numpy Generator), in training mode.

    overrides: any keyword of the model's family, of `transformer`, or of LIF.
    Raises ValueError for an unknown name, TypeError for an unknown keyword; both say what there is.
    """
    return build_model(configuration(name, dtype=dtype, **overrides), rng=rng)


def configuration(name: str, *, dtype: str = "float32", **overrides) -> dict:
    """Return what `build_model` needs to build a named model: its family, dtype and keywords."""
    if name not in MODELS:
        near = get_close_matches(name, MODELS, n=3, cutoff=0.4) or MODELS
        raise ValueError(f"no model {name!r}; nearest: {', '.join(near)} (list_models() gives all)")
    family, config = MODELS[name]
    takers = FAMILIES[family], transformer, LIF
    known = dict.fromkeys(key for taker in takers for key in signature(taker).parameters)
    known = [key for key in known if key not in ("frame", "make_mixer", "rng", "neuron")]
    unknown = [key for key in overrides if key not in known]
    if unknown:
        raise TypeError(f"create_model({name!r}) has no {', '.join(unknown)}; it takes {', '.join(known)}")
    overrides = {key: value.item() if hasattr(value, "item") else value for key, value in overrides.items()}
    return {"family": family, "dtype": dtype, **config, **overrides}  # NumPy's numbers as Python's


def build_model(config: dict, *, rng=0) -> SpikingTransformer:
    """Build a model from a configuration as `model.config` holds it: its family, dtype and every keyword."""
    config = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
    keywords = {key: value for key, value in config.items() if key not in ("family", "dtype")}
    if config.get("family") not in FAMILIES:
        raise ValueError(f"unknown family {config.get('family')!r}; known: {', '.join(FAMILIES)}")
    model = FAMILIES[config["family"]](rng=rng, **keywords).to(dtype=config["dtype"])
    model.config = config
    return model
