"""Recipes: every number of a training, from the papers or the authors' code, or our own and marked so.

    resolve("cifar10", epochs=10)        the recipe for CIFAR-10 with one number changed

A Recipe is plain data. Its fields are the options of the command line, and what a run stores in config.json.
A new field needs a default that means "as before", because older runs lack the field.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace

from ..files.checkpoint import unique_names
from ..kernels.events import products

CLASSIFY, MASKED = "classify", "masked"


def option(default, help: str):
    """Return a dataclass field with its default, and what it means."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Recipe:
    """All numbers of one training. ValueError for numbers that make no sense."""

    model: str = option("", "a model's name; import --help lists them")
    data: str = option(
        "", "a data set's name, or one's own: a folder of class folders, or an .npz of x and y"
    )
    root: str = option("", "the data set's folder; by default where the set is usually found")
    img_size: int = option(0, "side of the images; 0: the model's, or one that fits one's own data")
    in_channels: int = option(0, "channels of the images; 0: the model's, or those of one's own data")
    depth: int = option(0, "number of blocks; 0: the model's")
    embed_dim: int = option(0, "width of the blocks; 0: the model's")
    num_heads: int = option(0, "number of heads; 0: the model's")
    val_split: float = option(
        0.0, "share of the training samples to test on instead; 0: the set's own test, of one's own data 0.2"
    )
    skip_unreadable: int = option(0, "1: leave out files that cannot be read; 0: they are an error")
    sensor: str = option("", "rows x columns of the sensor of one's own recordings, such as 260x346")
    time_unit: str = option("", "of float times in one's own recordings: s, ms or us")
    objective: str = option(CLASSIFY, "what is learned: classify, or masked (pre-training on hidden patches)")
    T: int = option(0, "time steps; 0: the number that the model's name stands for")
    epochs: int = option(20, "how many times all samples are seen")
    single_step: float = option(
        0.0, "fraction of the epochs, at the start, run with T = 1; still images only"
    )
    batch_size: int = option(32, "samples per step")
    lr: float = option(3e-3, "peak learning rate of AdamW")
    min_lr: float = option(1e-5, "learning rate at the end of the cosine")
    warmup: int = option(0, "epochs of linear warm-up")
    warmup_lr: float = option(0.0, "learning rate at the start of the warm-up")
    beta2: float = option(0.999, "decay of AdamW's second average; the first has 0.9")
    weight_decay: float = option(0.06, "AdamW's decay of weights; biases and batch norm have none")
    label_smoothing: float = option(0.1, "share of the target that is spread over all classes")
    spike_price: float = option(0.0, "weight of a price on spikes' additions in the loss, as 1; 0: none")
    shift: float = option(0.0, "move each image by up to this fraction of a pixel")
    flip: float = option(0.0, "probability to mirror an image")
    policy: float = option(0.0, "probability of one of five operations on a colour image")
    mixup: float = option(0.0, "alpha of mixup; 0: none")
    mixup_probability: float = option(1.0, "probability that a batch is mixed")
    mixup_until: int = option(0, "mix in the first N epochs only; 0: in all")
    erase: float = option(0.0, "probability to erase a rectangle")
    augment_events: int = option(1, "1: augment event frames as the authors do; 0: not at all")
    split_by: str = option("number", "how events are cut into frames: by number or by time")
    split: str = option("90-10", "of CIFAR10-DVS, which has no official one: 90-10 or first-100-test")
    calibration: int = option(0, "recompute batch-norm statistics on N batches after each epoch; 0: off")
    gain: float = option(1.0, "initial gain of batch norm")
    gain_down: float = option(1.0, "factor on it in the strided convolutions of the stem SCS")
    gain_pair: float = option(1.0, "factor on it in the pairs of convolutions of the stem SCS")
    init: str = option("", "start from a pre-trained encoder: a run's folder or a checkpoint")
    layer_decay: float = option(0.75, "with --init: factor on lr for each layer closer to the image")
    mask_ratio: float = option(0.5, "for masked: the share of patches that are hidden")
    seed: int = option(0, "seed of the weights, the shuffling, the augmentation and the masks")
    threads: int = option(0, "threads; 0: all cores. Stored with the run, because rounding depends on it")
    products: str = option("dense", "when products with spikes go by events: a row of kernels/crossings.json")
    device: str = option("cpu", "cpu or cuda")
    save_seconds: float = option(300.0, "seconds between checkpoints within an epoch; 0: after each step")

    def __post_init__(self):
        for entry in fields(self):
            value, kind = getattr(self, entry.name), KINDS[entry.type]
            ok = type(value) is kind or (kind is float and type(value) is int)
            if not ok:
                raise ValueError(f"{entry.name} must be a {entry.type}, got {value!r}")
        if not (self.model and self.data):
            raise ValueError("a recipe needs a model and data; a name from --recipe brings both")
        if self.init and self.objective == MASKED:
            raise ValueError("init is for training, not for pre-training")
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                choices = ", ".join(map(str, allowed))
                raise ValueError(f"{name} must be one of {choices}, got {value!r}")
        for names, (low, high) in RANGES.items():
            for name in names.split():
                value = getattr(self, name)
                if not low <= value <= high:
                    raise ValueError(f"{name} must lie in {low} … {high}, got {value}")

    @property
    def single_step_epochs(self) -> int:
        """How many epochs run at T = 1. The last never does."""
        return int(self.single_step * self.epochs)

    def differences(self, other: Recipe) -> list[str]:
        """Return the names of the fields in which two recipes differ."""
        ours, theirs = asdict(self), asdict(other)
        return [name for name in ours if ours[name] != theirs[name]]

    def to_json(self) -> str:
        """Return all fields, a line each."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Return what `to_json` wrote, as `from_dict` does. ValueError for other texts."""
        return cls.from_dict(json.loads(text, object_pairs_hook=unique_names))

    @classmethod
    def from_dict(cls, found: dict) -> Recipe:
        """Return the recipe with these fields. A field that an older file lacks takes its default.

        ValueError for an unknown field.
        """
        if not isinstance(found, dict):
            raise ValueError(f"a recipe is a JSON object, got a {type(found).__name__}")
        names = {entry.name for entry in fields(cls)}
        unknown = sorted(found.keys() - names)
        if unknown:
            raise ValueError(f"a recipe has no {', '.join(unknown)}; it has {', '.join(sorted(names))}")
        return cls(**found)


KINDS = {"int": int, "float": float, "str": str}
CHOICES = {
    "objective": (CLASSIFY, MASKED),
    "split_by": ("number", "time"),
    "split": ("90-10", "first-100-test"),
    "device": ("cpu", "cuda"),
    "augment_events": (0, 1),
    "skip_unreadable": (0, 1),
    "time_unit": ("", "s", "ms", "us"),
}
BIG, HUGE, BELOW_1 = float("inf"), 1e30, 1 - 1e-9  # AdamW divides by 1 − β₂
RANGES = {
    "epochs batch_size": (1, BIG),
    "T calibration warmup mixup_until threads seed save_seconds": (0, BIG),
    "img_size in_channels depth embed_dim num_heads": (0, BIG),
    "val_split": (0, 0.99),
    "lr min_lr warmup_lr weight_decay mixup spike_price": (0, HUGE),
    "beta2 single_step": (0, BELOW_1),
    "shift flip policy mixup_probability erase label_smoothing layer_decay mask_ratio": (0, 1),
    "gain gain_down gain_pair": (1e-3, 1e3),
}

# ---------------------------------------------------------------- by data set

# Spikformer's CIFAR recipe (its code: cifar10.yml, train.py), without ten last epochs at min_lr.
CIFAR = dict(
    epochs=300, batch_size=128, lr=5e-4, min_lr=1e-5, warmup=20, warmup_lr=1e-5, weight_decay=0.06,
    label_smoothing=0.1, flip=0.5, policy=0.5, mixup=0.5, mixup_until=200, erase=0.25,
)  # fmt: skip

# Its code for ImageNet (imagenet.yml), without RandAugment and CutMix, which we do not have: random resized
# crops take their place. Its batch is 24 per GPU.
IMAGENET = dict(
    epochs=300, batch_size=24, lr=5e-4, min_lr=1e-5, warmup=20, warmup_lr=1e-6, weight_decay=0.05,
    label_smoothing=0.1, flip=0.5, mixup=0.8, erase=0.25,
)  # fmt: skip

# Its code for CIFAR10-DVS (train.py): frames by number, and the same change on all frames of a sample.
EVENTS = dict(
    T=16, epochs=96, batch_size=16, lr=1e-3, min_lr=1e-5, warmup=10, warmup_lr=1e-5, weight_decay=0.06,
    label_smoothing=0.1, mixup=0.5, mixup_probability=0.5, mixup_until=75,
)  # fmt: skip

# Ours, for trainings of minutes on a few cores, with the authors' weight decay and smoothing. With gain 1 and
# tau 2 about 2 % of the neurons fire at first (a current of two standard deviations is needed), and a short
# training is half over before more do; with gain 2 they fire at once. The papers' recipes keep 1: a long
# training should make up for it (not measured here). In SCS a strong residual and a weak pair keep its twelve
# layers of spikes from scrambling their input. With a layer decay of 0.75 the stem hardly changes in a short
# fine-tuning.
SHORT = dict(
    batch_size=32, lr=3e-3, min_lr=1e-5, weight_decay=0.06, label_smoothing=0.1, gain=2.0, gain_down=1.5,
    gain_pair=0.5, layer_decay=1.0,
)  # fmt: skip

# With running statistics of the last ten batches, test accuracy jumped by two points within 30 steps (at
# T = 1 on Fashion-MNIST). Slower ones lagged: SAFormer had 19 % after an epoch. See train.calibrate.
CALM = dict(calibration=50)

# An epoch at T = 1 takes a quarter of the time of one at T = 4, so four at T = 1 and one at T = 4 take as
# long as two at T = 4. Small batches make the most of an epoch. Clothes are not mirrored: all shoes point the
# same way.
QUICK = CALM | dict(epochs=5, single_step=0.87, batch_size=16)

RECIPES: dict[str, dict] = {
    "digits": SHORT | dict(model="spikformer_1_64_digits", epochs=20, shift=0.3),
    "pairs": SHORT | dict(model="spikformer_1_64_pairs", epochs=40),
    "fashion-mnist": SHORT | QUICK | dict(model="spikformer_2_64_fashion"),
    "mnist": SHORT | QUICK | dict(model="spikformer_2_64_fashion", shift=0.5),
    "cifar10": CIFAR | dict(model="spikformer_4_384_cifar10"),
    "cifar100": CIFAR | dict(model="spikformer_4_384_cifar10"),  # with 100 classes, as published
    "tiny-imagenet": IMAGENET | dict(model="saformer_4_384_tinyimagenet", batch_size=128),  # ours
    "imagenet": IMAGENET | dict(model="spikformer_8_512_imagenet"),
    "cifar10dvs": EVENTS | dict(model="spikformer_2_256_cifar10dvs"),
    "gesture": EVENTS | dict(model="spikformer_2_256_gesture"),  # ours: as CIFAR10-DVS
    "fashion-dvs": SHORT | CALM | dict(model="spikformer_2_64_fashion_dvs", T=8, epochs=10, batch_size=16),
}  # fmt: skip

# Pre-training on masked images: MAE's optimizer (arXiv 2111.06377) and its learning rate at a batch of 256;
# the rates for the small sets are ours. Images are only shifted, not mixed or erased.
PLAIN = dict(
    objective=MASKED, single_step=0.0, calibration=0, beta2=0.95, weight_decay=0.05, min_lr=0.0,
    label_smoothing=0.0, policy=0.0, mixup=0.0, mixup_until=0, erase=0.0, spike_price=0.0,
)  # fmt: skip
MAE = PLAIN | dict(batch_size=256, lr=1.5e-4, warmup=40, warmup_lr=0.0)
MASKED_FASHION = dict(model="spikformer_v2_2_64_fashion", T=1, epochs=10, batch_size=32, lr=3e-3, warmup=1)
PRETRAINING: dict[str, dict] = {
    "digits": PLAIN | dict(model="spikformer_v2_1_64_digits", T=1, epochs=40, lr=5e-3, warmup=1),
    "fashion-mnist": PLAIN | MASKED_FASHION,
    "mnist": PLAIN | MASKED_FASHION,
    "imagenet": MAE | dict(model="spikformer_v2_8_512_imagenet", T=1),
}


# One's own data, by what it is: small models and few epochs. Where an epoch has few batches, running
# statistics lag behind the weights, so calibration recomputes them.
OWN: dict[str, dict] = {
    "images": SHORT | CALM | dict(model="spikformer_2_64_fashion", batch_size=16, shift=1.0),
    "events": SHORT | CALM | dict(model="spikformer_2_64_fashion_dvs", T=8, batch_size=16),
    "hidden patches": SHORT | PLAIN | MASKED_FASHION | dict(batch_size=16, shift=1.0),
}


def own_recipe(path: str, kind: str, n: int, **overrides) -> Recipe:
    """Return the recipe for one's own data: a small model, and epochs by the number of samples.

    kind: one of OWN.    n: the number of training samples. Training sees 10,000 samples, in 4 to 10 epochs.
    """
    epochs = min(10, max(4, round(10_000 / n)))
    return Recipe(**OWN[kind] | {"epochs": epochs, "data": path, "products": products()} | overrides)


def resolve(name: str, recipes: dict[str, dict] = RECIPES, **overrides) -> Recipe:
    """Return the recipe for a data set, with some fields changed. ValueError for an unknown name.

    recipes: RECIPES or PRETRAINING, which adds to them.    overrides: fields of Recipe. `data` may name a
    set other than the one that the recipe was written for.
    """
    if name not in recipes:
        raise ValueError(f"no recipe {name!r}; there are {', '.join(recipes)}")
    here = {"data": name, "products": products()}
    return replace(Recipe(**here | RECIPES[name] | recipes[name]), **overrides)
