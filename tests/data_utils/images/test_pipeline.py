"""Spikformer's recipe for CIFAR as a whole: all changes, in the published order."""

from dataclasses import replace

import numpy as np
import pytest

from data_utils.images.augment import erase, flip, mixup, normalise
from data_utils.images.cifar import DEVIATION, MEAN, prepare_cifar
from data_utils.images.pipeline import Pipeline
from data_utils.images.policy import five_ops

from .common import FILL, seeded


def test_the_cifar_recipe(rng):
    images, labels = rng.integers(0, 256, (64, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, 64)
    recipe = Pipeline(10, standardise=prepare_cifar, fill=FILL, flip=0.5, policy=0.5, mixup=0.5, erase=0.25)
    x, targets = recipe(images, labels, seeded())
    assert x.shape == images.shape and x.dtype == targets.dtype == "float32" and targets.shape == (64, 10)
    np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)
    assert (targets > 0).sum(1).max() == 2
    again = recipe(images, labels, seeded())
    assert np.array_equal(again[0], x) and np.array_equal(again[1], targets)
    rng = seeded()  # the published code's order, by hand
    by_hand = normalise(five_ops(flip(images, rng), rng, FILL), MEAN, DEVIATION)
    by_hand, mixed = mixup(by_hand, labels, rng, 10)
    assert np.array_equal(erase(by_hand, rng), x) and np.array_equal(mixed, targets)
    x, targets = replace(recipe, mixup=0)(images, labels, seeded())
    assert targets is labels
    plain = prepare_cifar(images)
    same = [(a == b).all() or (a == b[:, ::-1]).all() for a, b in zip(x, plain, strict=True)]
    assert 0.2 < np.mean(same) < 0.55  # (1 − ½)(1 − ¼) are at most mirrored
    assert 0.1 < (x == 0).all(3).any((1, 2)).mean() < 0.4  # erased


@pytest.mark.parametrize(
    "wrong, told",
    [
        ({"flip": 1.5}, "flip must be between 0 and 1, got 1.5"),
        ({"erase": -0.1}, "erase must be between 0 and 1, got -0.1"),
        ({"policy": 2.0}, "policy must be between 0 and 1, got 2.0"),
        ({"shift": float("nan")}, "shift must be between 0 and 1, got nan"),
        ({"mixup_probability": 3.0}, "mixup_probability must be between 0 and 1, got 3.0"),
        ({"mixup": -1.0}, "mixup must be a finite number, 0 or larger, got -1.0"),
        ({"mixup": float("inf")}, "mixup must be a finite number, 0 or larger, got inf"),
    ],
)
def test_a_pipeline_refuses_at_once_what_cannot_be(wrong, told):
    with pytest.raises(ValueError, match=f"^{told}$"):
        Pipeline(10, standardise=prepare_cifar, **wrong)


@pytest.mark.parametrize(
    "change",
    [{"flip": 1.0}, {"policy": 1.0}, {"fill": 200}, {"shift": 0.1}, {"erase": 1.0}, {"mixup": 5.0},
     {"mixup_probability": 0.0}],
    ids=str,
)  # fmt: skip
def test_every_number_of_a_pipeline_reaches_its_change(images, change):
    chances = dict(flip=0.5, policy=0.5, shift=0.5, mixup=0.5, erase=0.25)
    plain = Pipeline(10, standardise=prepare_cifar, **chances)
    labels = np.arange(40) % 10
    one, other = (each(images, labels, seeded())[0] for each in (plain, replace(plain, **change)))
    assert not np.array_equal(one, other)


def test_a_pipeline_does_nothing_that_it_is_not_told(rng):
    images, labels = rng.standard_normal((6, 8, 8, 1)).astype("float32"), np.arange(6)
    x, targets = Pipeline(10)(images, labels, rng)
    assert np.array_equal(x, images) and targets is labels
    with pytest.raises(ValueError, match="the policy's operations work on bytes"):
        Pipeline(10, policy=0.5)
