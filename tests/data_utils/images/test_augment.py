"""Augmentation of images: compared with loops, and checked by what holds for all random numbers."""

import numpy as np
import pytest

from data_utils.images.augment import crop, erase, flip, mixup, normalise, shift
from data_utils.images.cifar import DEVIATION, MEAN, prepare_cifar

from .common import seeded


def numbered(n=300, height=6, width=5):
    """Images in which every pixel is another number."""
    return np.arange(n * height * width * 2).reshape(n, height, width, 2)


# ---------------------------------------------------------------- pixels moved


def test_a_flip_mirrors_about_half_of_the_images():
    images = numbered()
    result = flip(images, seeded())
    mirrored = (result == images[:, :, ::-1]).all((1, 2, 3))
    assert (mirrored | (result == images).all((1, 2, 3))).all() and 120 < mirrored.sum() < 180
    assert np.array_equal(flip(images, seeded(), 1), images[:, :, ::-1])
    assert np.array_equal(flip(images, seeded(), 0), images)
    assert np.array_equal(images, numbered()) and np.array_equal(result, flip(images, seeded()))


def test_a_crop_is_padding_by_the_border_and_a_cut():
    images = numbered()
    result = crop(images, seeded(), 2)
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), "edge")
    seen = set()
    for image, each in zip(padded, result, strict=True):  # naive: it is one of the 25 cuts
        cuts = [
            (i, j) for i in range(5) for j in range(5) if np.array_equal(image[i : i + 6, j : j + 5], each)
        ]
        assert len(cuts) == 1
        seen |= set(cuts)
    assert len(seen) == 25
    assert np.array_equal(crop(images, seeded(), 0), images) and result.dtype == images.dtype
    far = crop(images, seeded(), 40)  # all border
    assert far.shape == images.shape and set(far[0].flat) <= set(images[0].flat)


def test_a_shift_moves_by_a_fraction_of_a_pixel():
    image = np.zeros((200, 5, 5, 1))
    image[:, 2, 2] = 1
    moved = shift(image, np.random.default_rng(0))
    np.testing.assert_allclose(moved.sum((1, 2, 3)), 1)  # what leaves one pixel enters the next
    assert moved[:, 2, 2].min() >= 0.25 and moved[:, 2, 2].max() > 0.9  # (1 − ½)² at the least
    rows = (moved.sum(2)[..., 0] * np.arange(5)).sum(1) - 2  # by how much the centre has moved
    assert -0.5 <= rows.min() < -0.45 and 0.45 < rows.max() <= 0.5
    grey = shift(np.full((3, 4, 4, 1), 7.0), np.random.default_rng(0))
    np.testing.assert_allclose(grey, 7)  # borders repeat
    assert np.array_equal(shift(image, np.random.default_rng(0), pixels=0), image)
    with pytest.raises(ValueError, match="up to one pixel, got 2"):
        shift(image, np.random.default_rng(0), 2)


# ---------------------------------------------------------------- standardised images


def test_normalising_is_the_formula(images):
    expected = (images / 255.0 - np.array(MEAN)) / np.array(DEVIATION)
    result = normalise(images, MEAN, DEVIATION)
    assert result.dtype == "float32"
    np.testing.assert_allclose(result, expected, atol=1e-6)
    assert np.array_equal(result, prepare_cifar(images))
    np.testing.assert_allclose(normalise(images, 0.5, 0.25), (images / 255.0 - 0.5) * 4, atol=1e-6)
    with pytest.raises(TypeError, match="uint8 images, got float32"):
        normalise(result, 0, 1)


def test_erasing_leaves_one_rectangle_of_zeros():
    images = np.ones((4000, 32, 24, 2), "float32")
    result = erase(images, seeded())
    assert result.dtype == "float32" and (images == 1).all()
    holes = result[..., 0] == 0
    assert np.array_equal(holes, result[..., 1] == 0) and set(result.flat) == {0, 1}
    erased = holes.any((1, 2))
    assert 0.22 < erased.mean() < 0.28
    rows, columns = holes[erased].any(2), holes[erased].any(1)
    assert np.array_equal(holes[erased], rows[:, :, None] & columns[:, None, :])
    for line in (rows, columns):  # without a gap: it begins once and ends once
        assert (abs(np.diff(line.astype(int), axis=1, prepend=0, append=0)).sum(1) == 2).all()
    h, w = rows.sum(1), columns.sum(1)
    share, ratio = h * w / (32 * 24), h / w
    assert 0.012 < share.min() < 0.03 and 0.3 < share.max() < 0.36
    assert ratio.min() < 0.4 and ratio.max() > 2.5
    assert h.max() < 32 and w.max() < 24  # never the whole side
    assert rows[:, [0, -1]].any(0).all() and columns[:, [0, -1]].any(0).all()  # borders can be reached
    assert np.array_equal(erase(images, seeded()), result)
    assert not (erase(images, seeded(), 1) == 1).all((1, 2, 3)).any()
    assert np.array_equal(erase(images, seeded(), 0), images)


def test_erasing_passes_over_images_that_are_too_small():
    images = np.ones((50, 1, 9, 1))
    assert np.array_equal(erase(images, seeded(), 1), images)


@pytest.mark.parametrize("change", [erase, shift, lambda x, rng: mixup(x, np.zeros(2, int), rng, 2)])
def test_bytes_are_refused_where_zero_would_be_black_and_shares_0(change):
    with pytest.raises(TypeError, match="standardised float images, got uint8"):
        change(np.ones((2, 8, 8, 1), np.uint8), seeded())


@pytest.mark.parametrize("shape", [(5, 4, 3, 2), (5, 2, 4, 3, 2)], ids=["images", "frames"])
def test_mixup_mixes_images_and_targets_alike(rng, shape):
    images, labels = rng.standard_normal(shape).astype("float32"), np.array([0, 2, 1, 2, 0])
    mixed, targets = mixup(images, labels, seeded(), 3)
    share = seeded().beta(0.5, 0.5)
    assert 0.01 < share < 0.99 and mixed.dtype == targets.dtype == "float32" and targets.shape == (5, 3)
    for i in range(5):  # naive
        np.testing.assert_allclose(
            mixed[i], share * images[i] + (1 - share) * images[4 - i], rtol=1e-5, atol=1e-6
        )
        expected = np.zeros(3)
        expected[labels[i]] += share
        expected[labels[4 - i]] += 1 - share
        np.testing.assert_allclose(targets[i], expected, atol=1e-6)
    assert not np.array_equal(mixup(images, labels, seeded(), 3, alpha=5)[0], mixed)


def test_mixup_can_be_left_to_chance(rng):
    images, labels = rng.standard_normal((4, 2, 2, 1)), np.array([0, 1, 2, 3])
    plain, targets = mixup(images, labels, seeded(), 4, probability=0)
    assert np.array_equal(plain, images) and np.array_equal(targets, np.eye(4))
    generator = seeded()
    changed = [
        not np.array_equal(mixup(images, labels, generator, 4, probability=0.5)[0], images)
        for _ in range(200)
    ]
    assert 70 < sum(changed) < 130
    for wrong in (np.array([0, 1, 2, 4]), np.array([-1, 0, 1, 2])):
        with pytest.raises(ValueError, match="mixup got labels .* for 4 classes"):
            mixup(images, wrong, seeded(), 4)
