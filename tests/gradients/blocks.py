"""Rows of the brick and of every block, in each of its interpretations: inputs are x and all parameters."""

from functools import partial

import numpy as np

from minispike import LIF, BatchNorm, Conv2d, DepthwiseConv2d, Linear, Spiking
from minispike.blocks.control import Identity, MaxPoolMix, RandomMix, StaticMix
from minispike.blocks.decoder import LayerNorm, PlainBlock
from minispike.blocks.dwc import DWC
from minispike.blocks.encoder import Block
from minispike.blocks.fourier import FourierMix
from minispike.blocks.mlp import MLP
from minispike.blocks.sasa import SASA, Channel, Global, Pool
from minispike.blocks.scs import SCS
from minispike.blocks.softmax import SoftmaxAttention
from minispike.blocks.sps import SPS
from minispike.blocks.ssa import SSA
from minispike.blocks.wavelet import Mixture, WaveletMix
from minispike.nn import ReLU
from minispike.visible import Visible

from .rows import block

IMAGE, FRAMES = (1, 2, 4, 4, 2), (3, 2, 4, 4, 2)  # [T, B, H, W, C]
TOKENS = (3, 2, 4, 8)  # [T, B, N, D]
GRID = (4, 2, 8, 8)  # as TOKENS, of a 2×4 grid

# ---------------------------------------------------------------- the brick


def brick(make_map, **constants):
    """Spiking(map), the map made by make_map(rng), the neuron with these constants."""
    return lambda neuron, rng: Spiking(make_map(rng), neuron(**constants))


def linear(rng):
    return Linear(8, 6, rng=rng)


class Delegated(LIF):
    """A neuron of another class: the brick then runs batch norm and neuron one after the other."""


BRICKS = {
    "Spiking Linear": block(brick(linear), TOKENS),
    "Spiking Linear, no bias": block(brick(lambda rng: Linear(8, 6, bias=False, rng=rng)), TOKENS),
    "Spiking Linear, static": block(brick(linear), (1, 2, 4, 8), T=3),
    "Spiking Linear, soft reset": block(brick(linear, v_reset=None), TOKENS),
    "Spiking Linear, tau 3, threshold 0.5": block(brick(linear, tau=3.0, v_threshold=0.5), TOKENS),
    "Spiking Linear, evaluating": block(lambda **new: brick(linear)(**new).eval(), TOKENS),
    "Spiking Linear, norm and neuron apart": block(
        lambda neuron, rng: Spiking(linear(rng), Delegated(smooth=True, detach_reset=False)), TOKENS
    ),
    "Spiking Conv2d": block(brick(lambda rng: Conv2d(2, 3, rng=rng)), FRAMES),
    "Spiking Conv2d 2×2, stride 2": block(brick(lambda rng: Conv2d(2, 3, 2, 2, 0, rng=rng)), FRAMES),
    "Spiking Conv2d, static": block(brick(lambda rng: Conv2d(2, 3, rng=rng)), IMAGE, T=3),
    "Spiking DepthwiseConv2d": block(brick(lambda rng: DepthwiseConv2d(2, rng=rng)), FRAMES),
    "BatchNorm": block(lambda **_: BatchNorm(8), TOKENS),
    "LIF": block(lambda neuron, **_: neuron(), TOKENS),
}

# ---------------------------------------------------------------- stems

MASK = Visible(np.array([[[True, False], [False, True]], [[True, True], [False, False]]]))  # 2 of 2×2 tokens
EARLY, LATE, NONE = (True, False, False, False), (False, False, True, False), (False,) * 4

STEMS = {
    "SPS, image": block(partial(SPS, 2, 8, LATE), IMAGE, T=3),
    "SPS, frames": block(partial(SPS, 2, 8, LATE), FRAMES),
    "SPS, two pools, frames": block(partial(SPS, 2, 8, (True, False, False, True)), FRAMES),
    "SPS, no pool, image": block(partial(SPS, 2, 8, NONE), IMAGE, T=3),
    "SPS, no pool, frames": block(partial(SPS, 2, 8, NONE), FRAMES),
    "SCS, image": block(partial(SCS, 2, 8, EARLY), IMAGE, T=3),
    "SCS, frames": block(partial(SCS, 2, 8, EARLY), FRAMES),
    "SCS, halved twice, frames": block(partial(SCS, 2, 8, (True, False, False, True)), FRAMES),
    "SCS, not halved, image": block(partial(SCS, 2, 8, NONE), IMAGE, T=3),
    "SCS, not halved, frames": block(partial(SCS, 2, 8, NONE), FRAMES),
    "SCS, masked image": block(partial(SCS, 2, 8, EARLY), IMAGE, T=3, visible=MASK),
    "SCS, masked frames": block(partial(SCS, 2, 8, LATE), FRAMES, visible=MASK),
}

# ---------------------------------------------------------------- mixers and MLP


def ssa(heads: int, **settings):
    return partial(SSA, 16, heads, scale=0.5, **settings)


def sasa(aggregate, k: int | None = None, **settings):
    """SASA whose reading is aggregate(neuron=…), with a depthwise convolution k×k or without one."""

    def make(neuron, rng):
        dwc = DWC(8, (2, 4), k, neuron=neuron, rng=rng) if k else None
        return SASA(8, 2, aggregate(neuron=neuron), dwc, neuron=neuron, rng=rng, **settings)

    return make


def fixed(make_transform):
    """Spiking of a transform without weights."""
    return brick(lambda rng: make_transform())


def wavelet(family: str, levels: int = 1):
    return fixed(partial(WaveletMix, 8, (4, 4), family, levels))


def mixture():
    return Mixture(8, [WaveletMix(8, (2, 4), "haar"), WaveletMix(8, (2, 4), "bior1.3"), FourierMix(8)])


MIXERS = {
    "SSA, N < d": block(ssa(2), (3, 2, 4, 16)),
    "SSA, N > d": block(ssa(4), (3, 2, 9, 16)),
    "SSA, N < d, no bias": block(ssa(2, qkv_bias=False), (3, 2, 4, 16)),
    "SSA, N > d, no bias": block(ssa(4, qkv_bias=False), (3, 2, 9, 16)),
    "SASA, Pool r = 1": block(sasa(partial(Pool, (2, 4), 1, 0.5)), GRID),
    "SASA, Pool r = 2": block(sasa(partial(Pool, (2, 4), 2, 0.5)), GRID),
    "SASA, Pool r = 2, no bias": block(sasa(partial(Pool, (2, 4), 2, 0.5), qkv_bias=False), GRID),
    "SASA, Global": block(sasa(partial(Global, 0.5)), GRID),
    "SASA, Channel": block(sasa(Channel), GRID),
    "SASA, Pool r = 2, DWC": block(sasa(partial(Pool, (2, 4), 2, 0.5), 3), GRID),
    "SASA, Global, DWC": block(sasa(partial(Global, 0.5), 3), GRID),
    "SASA, Channel, DWC 5×5": block(sasa(Channel, 5), GRID),
    "DWC 3×3": block(partial(DWC, 8, (2, 4), 3), GRID),
    "DWC 5×5": block(partial(DWC, 8, (2, 4), 5), GRID),
    "FourierMix, tokens": block(fixed(partial(FourierMix, 8)), GRID),
    "FourierMix, tokens and channels": block(fixed(partial(FourierMix, 8, "tokens and channels")), GRID),
    "WaveletMix, haar": block(wavelet("haar"), (3, 2, 16, 8)),
    "WaveletMix, haar, 2 levels": block(wavelet("haar", 2), (3, 2, 16, 8)),
    "WaveletMix, db2": block(wavelet("db2"), (3, 2, 16, 8)),
    "WaveletMix, bior1.3, 2 levels": block(wavelet("bior1.3", 2), (3, 2, 16, 8)),
    "Mixture": block(fixed(mixture), GRID),
    "Identity": block(fixed(partial(Identity, 8)), GRID),
    "RandomMix": block(brick(lambda rng: RandomMix(8, 8, rng=rng)), GRID),
    "StaticMix": block(brick(lambda rng: StaticMix(8, 8, rng=rng)), GRID),
    "MaxPoolMix": block(fixed(partial(MaxPoolMix, 8, (2, 4))), GRID),
    "SSA, q and k frozen": block(ssa(2, frozen=True), (3, 2, 4, 16)),
    "SoftmaxAttention": block(partial(SoftmaxAttention, 16, 2), (3, 2, 4, 16)),
    "ReLU": block(lambda **_: ReLU(), TOKENS),
    "Spiking Linear, ReLU": block(lambda neuron, rng: Spiking(linear(rng), ReLU()), (1, 2, 4, 8)),
    "MLP": block(partial(MLP, 8, 16), TOKENS),
}

# ---------------------------------------------------------------- whole blocks


def encoder(neuron, rng):
    return Block(SSA(8, 2, scale=0.5, neuron=neuron, rng=rng), MLP(8, 16, neuron=neuron, rng=rng))


BLOCKS = {
    "Block": block(encoder, TOKENS),
    "LayerNorm": block(lambda **_: LayerNorm(8), (2, 5, 8)),
    "PlainBlock": block(lambda neuron, rng: PlainBlock(8, 2, rng=rng), (2, 5, 8)),
}

ROWS = BRICKS | STEMS | MIXERS | BLOCKS
