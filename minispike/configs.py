"""The named models: what the papers' tables say, each number written once.

A name is family_depth_width_data, for example spikformer_4_384_cifar10. `configuration(name)` joins what the
family, the data and the width determine to one Config: all that a model is built from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from difflib import get_close_matches
from numbers import Real

from .neuron import Neuron
from .surrogate import Sigmoid, Surrogate

# ---------------------------------------------------------------- what a model is built from


@dataclass(frozen=True)
class Config:
    """A whole model: its data, its stem, its blocks, its mixer and its neurons.

    img_size: the image's side, or (height, width).    in_channels: 2 for event frames.
    stem: "sps", or Spikformer V2's "scs".    pools: which of the stem's four stages halve the grid: SPS by a
    max-pool after the stage, SCS by the stride of the stage's first convolution.
    T: time steps for which a static image is shown.    mlp_ratio: the MLP's hidden width over embed_dim.
    mixer: a name in models.MIXERS, or a wavelet family of PyWavelets ("haar", "db2", …).
    ssa, sasa:    num_heads; qkv_bias, whether the maps to q, k and v have biases; scale, their s.
    ssa:          frozen, whether the maps to q and k keep the weights they were drawn with (a control).
    softmax:      num_heads.
    sasa:         aggregate, "pool", "global" or "channel" (see blocks/sasa.py); r, the side of pool's cells;
                  dwc, the kernel of the depthwise convolution module, 3 or 5, or None for SASA alone.
    wavelets:     bases, the transforms of a learned mixture; levels, how many times each wavelet is applied.
    tau … smooth: the constants of all neurons (see neuron.Neuron); the attention neuron keeps its threshold
    of 0.5.
    spiking: False is the non-spiking twin, with max(x, 0) in place of every neuron; it needs T = 1.
    """

    img_size: int | tuple[int, int]
    in_channels: int
    num_classes: int
    pools: tuple[bool, ...]
    embed_dim: int
    depth: int
    stem: str = "sps"
    mixer: str = "ssa"
    mlp_ratio: float = 4
    T: int = 4
    dtype: str = "float32"
    num_heads: int = 1
    scale: float = 0.125
    qkv_bias: bool = True
    aggregate: str = "pool"
    r: int = 2
    dwc: int | None = 3
    bases: tuple[str, ...] = ("haar", "db2", "bior1.3")
    levels: int = 1
    tau: float = 2.0
    v_threshold: float = 1.0
    v_reset: float | None = 0.0
    detach_reset: bool = True
    surrogate: Surrogate = Sigmoid(4.0)
    smooth: bool = False
    spiking: bool = True
    frozen: bool = False

    def __post_init__(self):
        if not self.spiking and self.T != 1:
            raise ValueError(f"a model without spikes has no time steps: it needs T = 1, got {self.T}")
        names = ("T", "embed_dim", "num_classes", "in_channels", "num_heads", "r", "levels", "depth")
        odd = [name for name in names if not is_whole(getattr(self, name), least=int(name != "depth"))]
        if odd:
            got = ", ".join(f"{name} = {getattr(self, name)!r}" for name in odd)
            raise ValueError(f"a model needs whole numbers, from 1 on (depth: from 0), got {got}")
        if not isinstance(self.mlp_ratio, Real) or not is_whole(self.hidden, least=1):
            got = f"mlp_ratio = {self.mlp_ratio!r}"
            raise ValueError(f"embed_dim · mlp_ratio must be a whole number, from 1 on, got {got}")
        if len(self.size) != 2 or not all(is_whole(side, least=1) for side in self.size):
            raise ValueError(f"img_size must be a side or (height, width), from 1 on, got {self.img_size!r}")
        cells = 2 ** sum(map(bool, self.pools))
        if any(side % cells for side in self.size):
            why = f"halvings in the stem: {sum(map(bool, self.pools))}"
            raise ValueError(f"img_size must be divisible by {cells} ({why}), got {self.img_size!r}")

    @classmethod
    def from_dict(cls, found: dict) -> Config:
        """Return the Config that a file holds. Older files name a family: ValueError if it is unknown."""
        found = {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()}
        family = found.pop("family", None)
        if family is not None and family not in FAMILIES:
            raise ValueError(f"unknown family {family!r}; known: {', '.join(FAMILIES)}")
        return cls(**FAMILIES.get(family, {}) | found)

    @property
    def hidden(self) -> int:
        """The hidden width of the MLPs."""
        return int(self.embed_dim * self.mlp_ratio)

    @property
    def size(self) -> tuple[int, int]:
        """The image's height and width."""
        return tuple(self.img_size) if isinstance(self.img_size, (tuple, list)) else (self.img_size,) * 2

    @property
    def grid(self) -> tuple[int, int]:
        """The token grid's height and width."""
        height, width = self.size
        halvings = sum(self.pools)
        return height // 2**halvings, width // 2**halvings

    @property
    def neuron(self) -> dict:
        """The keywords of the model's neurons."""
        return {entry.name: getattr(self, entry.name) for entry in fields(Neuron)}


def is_whole(n, least: int) -> bool:
    """Return whether n is a whole number, `least` or more; True and False are none."""
    return isinstance(n, Real) and not isinstance(n, bool) and n >= least and n % 1 == 0


# ---------------------------------------------------------------- families

CONTROLS = ("static", "maxpool", "depthwise", "softmax")  # ours, for `pairs`
FAMILIES = {  # family: what it fixes. Files that older versions wrote name it, too
    "spikformer": dict(stem="sps", mixer="ssa"),  # arXiv 2209.15425
    "attention_free_spikformer": dict(stem="sps"),  # arXiv 2308.02557: the same sizes, other mixers
    "spikformer_v2": dict(stem="scs", mixer="ssa"),  # arXiv 2401.02020
    "saformer": dict(stem="sps", mixer="sasa"),  # arXiv 2412.13553
}
PREFIXES = {family: FAMILIES[family] for family in ("spikformer", "spikformer_v2", "saformer")} | {
    f"attention_free_{mixer}": FAMILIES["attention_free_spikformer"] | dict(mixer=mixer)
    for mixer in ("fft1d", "fft2d", "haar", "wavelets", "identity", "random", *CONTROLS)
}

# ---------------------------------------------------------------- data

CIFAR = dict(img_size=32, in_channels=3, pools=(False, False, True, True))  # 8×8 tokens
EVENTS = dict(qkv_bias=False, scale=0.25)  # the authors' attention on event frames
FRAMES_128 = EVENTS | dict(img_size=128, in_channels=2, pools=(True,) * 4, T=16)  # 8×8 tokens
SMALL = dict(in_channels=1, num_classes=10)  # ours

DATA = {
    "digits": SMALL | dict(img_size=8, pools=(False, False, True, False), mlp_ratio=2),  # 4×4 tokens; ours
    # two digits with 16 blank columns between them: are they the same? 4×16 tokens; ours
    "pairs": dict(
        img_size=(8, 32), in_channels=1, num_classes=2, pools=(False, False, True, False), mlp_ratio=2
    ),
    "fashion": SMALL | dict(img_size=32, pools=(False, False, True, True)),  # 8×8 tokens; ours
    "cifar10": CIFAR | dict(num_classes=10),
    "cifar100": CIFAR | dict(num_classes=100),
    "tinyimagenet": dict(img_size=64, in_channels=3, num_classes=200, pools=(False, True, True, True)),
    "imagenet": dict(img_size=224, in_channels=3, num_classes=1000, pools=(True,) * 4, qkv_bias=False),
    "cifar10dvs": FRAMES_128 | dict(num_classes=10),
    "gesture": FRAMES_128 | dict(num_classes=11),
    # ours: 64 tokens and heads of width 16, as in the event networks, so the same scale
    "fashion_dvs": EVENTS | CIFAR | dict(in_channels=2, num_classes=10, T=8),
}
HEADS = {  # data: {width: number of heads}
    "digits": {64: 4},
    "pairs": {64: 4},
    "fashion": {64: 4},
    "cifar10": {256: 8, 384: 12},
    "cifar100": {384: 12},
    "tinyimagenet": {384: 12},
    "imagenet": {384: 8, 512: 8, 768: 12},
    "cifar10dvs": {256: 16},
    "gesture": {256: 16},
    "fashion_dvs": {64: 4},
}
EXCEPTIONS = {
    # ours: the small SCS halves early, because it is expensive
    "spikformer_v2_1_64_digits": dict(pools=(False, True, False, False)),
    "spikformer_v2_2_64_fashion": dict(pools=(True, True, False, False)),
    "spikformer_v2_16_768_imagenet": dict(T=1),  # published at T = 1
}

# ---------------------------------------------------------------- names

ATTENTION_FREE = (
    "1_64_digits",
    "1_64_pairs",
    "2_64_fashion",
    "4_384_cifar10",
    "2_256_cifar10dvs",
    "2_64_fashion_dvs",
)
SIZES = {  # prefix of the name: depth_width_data
    "spikformer": (
        "1_64_digits", "1_64_pairs", "2_64_fashion",
        "4_384_cifar10", "4_256_cifar10", "2_384_cifar10",  # Spikformer, table 4
        "8_384_imagenet", "8_512_imagenet", "10_512_imagenet", "8_768_imagenet",  # table 3
        "2_256_cifar10dvs", "2_256_gesture", "2_64_fashion_dvs",  # table 5; the last is ours
    ),
    **{
        prefix: ("1_64_pairs",) if prefix.endswith(CONTROLS) else ATTENTION_FREE
        for prefix in PREFIXES
        if prefix.startswith("attention_free")
    },
    "spikformer_v2": (
        "1_64_digits", "2_64_fashion", "8_384_imagenet", "8_512_imagenet", "16_768_imagenet",
    ),
    "saformer": (
        "1_64_digits", "1_64_pairs", "2_64_fashion", "4_384_cifar10", "4_384_cifar100", "4_384_tinyimagenet",
        "2_256_cifar10dvs", "2_256_gesture", "2_64_fashion_dvs",
    ),
}  # fmt: skip
NAMES = [f"{prefix}_{size}" for prefix, sizes in SIZES.items() for size in sizes]


def configuration(name: str, **overrides) -> Config:
    """Return the Config of a named model, with some of its fields changed.

    Raises ValueError for an unknown name, TypeError for a field that the model does not have or use.
    """
    if name not in NAMES:
        near = get_close_matches(name, NAMES, n=3, cutoff=0.4)
        nearest = f"nearest: {', '.join(near)}; " if near else ""
        raise ValueError(f"no model {name!r}; {nearest}minispike.list_models() names all {len(NAMES)}")
    prefix, depth, width, data = re.fullmatch(r"(\w+?)_(\d+)_(\d+)_(\w+)", name).groups()
    settings = {"embed_dim": int(width), "depth": int(depth), "num_heads": HEADS[data][int(width)]}
    settings |= DATA[data] | PREFIXES[prefix] | EXCEPTIONS.get(name, {})
    overrides = {key: value.item() if hasattr(value, "item") else value for key, value in overrides.items()}
    used = fields_used(overrides.get("mixer", settings["mixer"]))
    unknown = [key for key in overrides if key not in used]
    if unknown:
        raise TypeError(f"create_model({name!r}) has no {', '.join(unknown)}; it takes {', '.join(used)}")
    return Config(**settings | overrides)


MIXER_FIELDS = {  # mixer: the fields that it uses, of those that are not for every model
    "ssa": ("num_heads", "scale", "qkv_bias", "frozen"),
    "sasa": ("num_heads", "scale", "qkv_bias", "aggregate", "r", "dwc"),
    "wavelets": ("bases", "levels"),
    "fft1d": (),
    "fft2d": (),
    "identity": (),
    "random": (),
    "static": (),
    "maxpool": (),
    "depthwise": (),
    "softmax": ("num_heads",),
}
WAVELET_FIELDS = ("levels",)  # of every other mixer: a wavelet family


def fields_used(mixer: str) -> list[str]:
    """Return the names of the fields that a model with this mixer uses."""
    special = {name for names in (*MIXER_FIELDS.values(), WAVELET_FIELDS) for name in names}
    own = MIXER_FIELDS.get(mixer, WAVELET_FIELDS)
    return [entry.name for entry in fields(Config) if entry.name in own or entry.name not in special]
