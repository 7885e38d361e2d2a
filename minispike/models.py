"""Whole models by name: one machine, made of a stem, blocks and a head.

image or frames → STEM → tokens → depth × { x + MIXER(x);  x + MLP(x) } → mean over N and T → head

create_model("spikformer_4_384_cifar10")                  4 blocks of width 384, as published
create_model("spikformer_4_384_cifar10", T=1, depth=2)    with any field of its Config changed
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .autograd import Tensor, as_tensor, where
from .backend import HOST, all_finite, get_device, make_rng
from .blocks.control import Identity, MaxPoolMix, RandomMix, StaticMix
from .blocks.dwc import DWC
from .blocks.encoder import Block
from .blocks.fourier import FourierMix
from .blocks.mlp import MLP
from .blocks.sasa import SASA, Channel, Global, Pool
from .blocks.scs import SCS
from .blocks.softmax import SoftmaxAttention
from .blocks.sps import SPS
from .blocks.ssa import SSA
from .blocks.wavelet import Mixture, WaveletMix
from .configs import NAMES, Config, configuration
from .nn import LIF, Linear, Module, ReLU, Spiking

# ---------------------------------------------------------------- the machine


class SpikingTransformer(Module):
    """Classify images x [B, H, W, C], shown T times, or frames x [T, B, H, W, C] -> logits [B, classes].

    x: float array or Tensor in the parameters' dtype. A static image passes the first convolution once, not T
    times; frames bring their own number of steps. ValueError for another rank, size or channel count, or for
    NaN.
    """

    def __init__(self, config: Config, *, rng):
        rng, neuron = make_rng(rng), partial(LIF, **config.neuron) if config.spiking else relu
        if config.stem not in STEMS:
            raise ValueError(f"stem must be one of {', '.join(STEMS)}, got {config.stem!r}")
        make_stem, make_mixer = STEMS[config.stem], MIXERS.get(config.mixer, fixed(config.mixer))
        D = config.embed_dim
        self.stem = make_stem(config.in_channels, D, config.pools, neuron=neuron, rng=rng)
        self.blocks = [
            Block(make_mixer(config, neuron, rng), MLP(D, config.hidden, neuron=neuron, rng=rng))
            for _ in range(config.depth)
        ]
        self.head = Linear(D, config.num_classes, rng=rng)
        self.config, self.T = config, config.T
        self.img_size, self.in_channels = config.size, config.in_channels

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
    """Return images or frames x as a Tensor. ValueError for another shape, TypeError for another dtype.

    ValueError, too, for NaN or Inf on the host. `fit` and `evaluate` look before they copy to a GPU.
    """
    x = as_tensor(x)
    sizes = ", ".join(map(str, (*img_size, in_channels)))
    if x.ndim not in (4, 5) or x.shape[-3:] != (*img_size, in_channels) or 0 in x.shape:
        expected = f"images [B, {sizes}] or frames [T, B, {sizes}]"
        raise ValueError(f"{where()}expected {expected}, got {list(x.shape)}")
    if x.dtype != dtype:
        advice = f"convert with x.astype({str(dtype)!r})"
        raise TypeError(f"{where()}x is {x.dtype}, the parameters {dtype}: {advice}")
    if get_device(x.data) is HOST and not all_finite(x.data):  # a look at a GPU would have to wait for it
        raise ValueError(f"{where()}x {list(x.shape)} holds NaN or Inf")
    return x


# ---------------------------------------------------------------- stems and mixers

STEMS = {"sps": SPS, "scs": SCS}


def relu(**_) -> ReLU:
    """Make what stands in a neuron's place in a model without spikes. It has none of a neuron's constants."""
    return ReLU()


def ssa(config: Config, neuron: Callable[..., LIF], rng) -> SSA:
    D, heads, frozen = config.embed_dim, config.num_heads, config.frozen
    return SSA(D, heads, config.scale, config.qkv_bias, frozen, neuron=neuron, rng=rng)


def depthwise(config: Config, neuron: Callable[..., LIF], rng) -> DWC:
    return DWC(config.embed_dim, config.grid, neuron=neuron, rng=rng)


def softmax(config: Config, neuron: Callable[..., LIF], rng) -> SoftmaxAttention:
    return SoftmaxAttention(config.embed_dim, config.num_heads, neuron=neuron, rng=rng)


def sasa(config: Config, neuron: Callable[..., LIF], rng) -> SASA:
    D, grid = config.embed_dim, config.grid
    readings = {
        "pool": lambda: Pool(grid, config.r, config.scale, neuron=neuron),
        "global": lambda: Global(config.scale, neuron=neuron),
        "channel": lambda: Channel(neuron=neuron),
    }
    if config.aggregate not in readings:
        raise ValueError(f"aggregate must be one of {', '.join(readings)}, got {config.aggregate!r}")
    dwc = DWC(D, grid, config.dwc, neuron=neuron, rng=rng) if config.dwc else None
    aggregate = readings[config.aggregate]()
    return SASA(D, config.num_heads, aggregate, dwc, config.qkv_bias, neuron=neuron, rng=rng)


def transform(name: str, config: Config, rng) -> Module:
    """Return a map that mixes tokens and has no weights: Fourier, a control, or a wavelet family by name."""
    D, (height, width) = config.embed_dim, config.grid
    match name:
        case "fft1d":
            return FourierMix(D, "tokens")
        case "fft2d":
            return FourierMix(D, "tokens and channels")
        case "identity":
            return Identity(D)
        case "random":
            return RandomMix(D, height * width, rng=rng)
        case "static":
            return StaticMix(D, height * width, rng=rng)
        case "maxpool":
            return MaxPoolMix(D, config.grid)
    return WaveletMix(D, config.grid, name, config.levels)


def fixed(name: str) -> Callable[..., Spiking]:
    """Return a maker of LIF(BN(transform x))."""
    return lambda config, neuron, rng: Spiking(transform(name, config, rng), neuron())


def wavelets(config: Config, neuron: Callable[..., LIF], rng) -> Spiking:
    bases = [transform(name, config, rng) for name in config.bases]
    return Spiking(Mixture(config.embed_dim, bases), neuron())


MIXERS: dict[str, Callable[[Config, Callable[..., LIF], object], Module]] = {
    "ssa": ssa,  # Spikformer
    "sasa": sasa,  # SAFormer
    "fft1d": fixed("fft1d"),  # Attention-free Spikformer, as the next two
    "fft2d": fixed("fft2d"),
    "wavelets": wavelets,  # a learned mixture; any other name is a wavelet family: "haar", "db2", …
    "identity": fixed("identity"),  # the controls
    "random": fixed("random"),
    "static": fixed("static"),
    "maxpool": fixed("maxpool"),
    "depthwise": depthwise,
    "softmax": softmax,
}

# ---------------------------------------------------------------- names


def list_models() -> list[str]:
    """Return the names that create_model knows."""
    return list(NAMES)


def create_model(
    name: str, *, rng=0, dtype: str = "float32", pretrained: bool | str = False, **overrides
) -> SpikingTransformer:
    """Build a model by name, with fresh weights from `rng` (a seed or a numpy Generator), in training mode.

    overrides: any field of configs.Config that the model's mixer uses, for example T, depth, mixer or tau.
    pretrained: take trained weights from the folder weights/ of the repository instead; "sparse": those that
    were trained with a price on spikes. Then only T, smooth and detach_reset may be overridden.
    Raises ValueError for an unknown name, TypeError for an unknown field; both say what there is.
    FileNotFoundError without trained weights for this model.
    """
    model = build_model(configuration(name, dtype=dtype, **overrides), rng=rng)
    if pretrained:
        from .files.checkpoint import trained_weights  # a wing: the only one that the learning path calls

        model.load_state_dict(trained_weights(name, pretrained, overrides))
    return model


def build_model(config: Config, *, rng=0) -> SpikingTransformer:
    """Build a model from its Config, with fresh weights from `rng`."""
    return SpikingTransformer(config, rng=rng).to(dtype=config.dtype)
