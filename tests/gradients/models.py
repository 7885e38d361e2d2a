"""Rows of whole networks, from the image to the loss: each stem with each mixer, on images and on frames."""

from functools import partial

from minispike import create_model
from minispike.masked import masked_autoencoder

from ..blocks.test_blocks import lively
from .rows import model

SMALL = dict(embed_dim=16, T=2, dtype="float64", smooth=True, detach_reset=False)
INPUTS = {"image": (2, 8, 8, 1), "frames": (2, 2, 8, 8, 1)}  # [B, H, W, C], [T, B, H, W, C]


def network(**settings):
    return partial(create_model, "spikformer_1_64_digits", **SMALL | settings)


EARLY = dict(pools=(True, False, False, False))  # SCS is expensive on a large grid
STEMS = {"SPS": dict(stem="sps"), "SCS": dict(stem="scs", **EARLY)}
MIXERS = {
    "SSA": dict(mixer="ssa"),
    "SASA": dict(mixer="sasa"),
    "Fourier, tokens": dict(mixer="fft1d"),
    "Fourier, tokens and channels": dict(mixer="fft2d"),
    "Haar": dict(mixer="haar"),
    "Mixture": dict(mixer="wavelets"),
    "Identity": dict(mixer="identity"),
    "RandomMix": dict(mixer="random"),
    "StaticMix": dict(mixer="static"),
    "MaxPoolMix": dict(mixer="maxpool"),
    "DWC": dict(mixer="depthwise"),
    "SoftmaxAttention": dict(mixer="softmax"),
}
OTHERS = {  # settings of the same networks
    "SASA, Global": dict(mixer="sasa", aggregate="global", dwc=5),
    "SASA, Channel, no DWC": dict(mixer="sasa", aggregate="channel", dwc=None),
    "bior2.2, 2 levels": dict(mixer="bior2.2", levels=2),
    "two blocks": dict(depth=2),
    "SSA, q and k frozen": dict(mixer="ssa", frozen=True),
    "without spikes": dict(mixer="ssa", spiking=False, T=1),
    "tau 3, soft reset": dict(tau=3.0, v_reset=None),
}


def masked(rng):
    """Pre-train on images half of whose patches are hidden.

    The loss compares with the image as a constant, so the image's own gradient is not checked.
    """
    decoder = dict(decoder_dim=8, decoder_depth=1, decoder_heads=2)
    make = partial(masked_autoencoder, "spikformer_v2_1_64_digits", **SMALL, **EARLY, **decoder)
    autoencoder = lively(make(rng=rng), rng)
    images, order = rng.standard_normal(INPUTS["image"]), rng.random((2, 16)).argsort(1)
    visible = (order < 8).reshape(2, 4, 4)  # [B, h, w]
    return (lambda: autoencoder(images, visible)), *autoencoder.parameters()


ROWS = {
    f"network, {stem}, {mixer}, {kind}": model(network(**STEMS[stem], **MIXERS[mixer]), shape)
    for stem in STEMS
    for mixer in MIXERS
    for kind, shape in INPUTS.items()
}
ROWS |= {f"network, {name}": model(network(**settings), INPUTS["image"]) for name, settings in OTHERS.items()}
ROWS["masked autoencoder"] = masked
