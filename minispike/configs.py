"""The named models: the family and configuration of each, as the papers' tables have them.

A configuration holds keywords of the family's function in models.py, of `transformer`, and of LIF. `pools`
says which of the stem's four stages halve the grid.
"""

from __future__ import annotations

# ---------------------------------------------------------------- what the data bring

DIGITS = dict(img_size=8, in_channels=1, num_classes=10, pools=(False, False, True, False))  # 4×4 tokens
FASHION = dict(img_size=32, in_channels=1, num_classes=10, pools=(False, False, True, True))  # 8×8
CIFAR10 = dict(img_size=32, in_channels=3, num_classes=10, pools=(False, False, True, True))  # 8×8
CIFAR100 = CIFAR10 | dict(num_classes=100)
TINY_IMAGENET = dict(img_size=64, in_channels=3, num_classes=200, pools=(False, True, True, True))  # 8×8
IMAGENET = dict(img_size=224, in_channels=3, num_classes=1000, pools=(True,) * 4)  # 14×14
CIFAR10_DVS = dict(img_size=128, in_channels=2, num_classes=10, pools=(True,) * 4, T=16)  # 8×8; frames
GESTURE = CIFAR10_DVS | dict(num_classes=11)
FASHION_DVS = FASHION | dict(in_channels=2, T=8)  # 8×8; frames

# what the authors' attention has there, beside the heads
ON_IMAGENET = dict(qkv_bias=False)
ON_EVENTS = dict(qkv_bias=False, scale=0.25, num_heads=16)

# ---------------------------------------------------------------- sizes: depth and width

SMALL = dict(depth=1, embed_dim=64, mlp_ratio=2)  # the lessons' own, for 8×8 digits
MEDIUM = dict(depth=2, embed_dim=64)  # our own too, for 28×28 or 32×32 images
D4_384, D4_256, D2_384 = (dict(depth=d, embed_dim=w) for d, w in ((4, 384), (4, 256), (2, 384)))
D8_384, D8_512, D10_512 = (dict(depth=d, embed_dim=w) for d, w in ((8, 384), (8, 512), (10, 512)))
D8_768, D16_768, D2_256 = (dict(depth=d, embed_dim=w) for d, w in ((8, 768), (16, 768), (2, 256)))


def heads(n: int) -> dict:
    return dict(num_heads=n)


# ---------------------------------------------------------------- names

MODELS: dict[str, tuple[str, dict]] = {
    "spikformer_1_64_digits": ("spikformer", DIGITS | SMALL | heads(4)),
    "spikformer_2_64_fashion": ("spikformer", FASHION | MEDIUM | heads(4)),
    # Spikformer (arXiv 2209.15425), table 4: CIFAR
    "spikformer_4_384_cifar10": ("spikformer", CIFAR10 | D4_384 | heads(12)),
    "spikformer_4_256_cifar10": ("spikformer", CIFAR10 | D4_256 | heads(8)),
    "spikformer_2_384_cifar10": ("spikformer", CIFAR10 | D2_384 | heads(12)),
    # table 3: ImageNet
    "spikformer_8_384_imagenet": ("spikformer", IMAGENET | ON_IMAGENET | D8_384 | heads(8)),
    "spikformer_8_512_imagenet": ("spikformer", IMAGENET | ON_IMAGENET | D8_512 | heads(8)),
    "spikformer_10_512_imagenet": ("spikformer", IMAGENET | ON_IMAGENET | D10_512 | heads(8)),
    "spikformer_8_768_imagenet": ("spikformer", IMAGENET | ON_IMAGENET | D8_768 | heads(12)),
    # table 5: event frames
    "spikformer_2_256_cifar10dvs": ("spikformer", CIFAR10_DVS | ON_EVENTS | D2_256),
    "spikformer_2_256_gesture": ("spikformer", GESTURE | ON_EVENTS | D2_256),
    # our own: as there 64 tokens and heads of width 16, so the same scale
    "spikformer_2_64_fashion_dvs": ("spikformer", FASHION_DVS | ON_EVENTS | MEDIUM | heads(4)),
}

# Attention-free Spikformer (arXiv 2308.02557): the same sizes, other mixers, and two controls
for _mixer in ("fft1d", "fft2d", "haar", "wavelets", "identity", "random"):
    for _name, _config in {
        "1_64_digits": DIGITS | SMALL,
        "2_64_fashion": FASHION | MEDIUM,
        "4_384_cifar10": CIFAR10 | D4_384,
        "2_256_cifar10dvs": CIFAR10_DVS | D2_256,
        "2_64_fashion_dvs": FASHION_DVS | MEDIUM,
    }.items():
        MODELS[f"attention_free_{_mixer}_{_name}"] = (
            "attention_free_spikformer",
            _config | dict(mixer=_mixer),
        )

# Spikformer V2 (arXiv 2401.02020): SCS halves where `pools` says; the small ones early, for SCS is costly
_EARLY = dict(pools=(False, True, False, False)), dict(pools=(True, True, False, False))
MODELS |= {
    "spikformer_v2_1_64_digits": ("spikformer_v2", DIGITS | SMALL | _EARLY[0] | heads(4)),
    "spikformer_v2_2_64_fashion": ("spikformer_v2", FASHION | MEDIUM | _EARLY[1] | heads(4)),
    "spikformer_v2_8_384_imagenet": ("spikformer_v2", IMAGENET | ON_IMAGENET | D8_384 | heads(8)),
    "spikformer_v2_8_512_imagenet": ("spikformer_v2", IMAGENET | ON_IMAGENET | D8_512 | heads(8)),
    "spikformer_v2_16_768_imagenet": (
        "spikformer_v2",
        IMAGENET | ON_IMAGENET | D16_768 | heads(12) | dict(T=1),  # published at T = 1
    ),
}

# SAFormer (arXiv 2412.13553): Spikformer's sizes again
MODELS |= {
    "saformer_1_64_digits": ("saformer", DIGITS | SMALL | heads(4)),
    "saformer_2_64_fashion": ("saformer", FASHION | MEDIUM | heads(4)),
    "saformer_4_384_cifar10": ("saformer", CIFAR10 | D4_384 | heads(12)),
    "saformer_4_384_cifar100": ("saformer", CIFAR100 | D4_384 | heads(12)),
    "saformer_4_384_tinyimagenet": ("saformer", TINY_IMAGENET | D4_384 | heads(12)),
    "saformer_2_256_cifar10dvs": ("saformer", CIFAR10_DVS | ON_EVENTS | D2_256),
    "saformer_2_256_gesture": ("saformer", GESTURE | ON_EVENTS | D2_256),
    "saformer_2_64_fashion_dvs": ("saformer", FASHION_DVS | ON_EVENTS | MEDIUM | heads(4)),
}
