"""Augmentations: against loops, against Pillow byte by byte, and by what must hold whatever is drawn."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageOps

from data_utils.images import policy
from data_utils.images.augment import crop, erase, flip, mixup, normalise, shift
from data_utils.images.cifar import DEVIATION, MEAN, prepare_cifar
from data_utils.images.pipeline import Pipeline
from data_utils.images.policy import affine, equalize, five_ops, rotation, shear_x, translation

FILL = (125, 123, 114)


def seeded(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture
def images(rng):
    """[40, 20, 32, 3] bytes: noise, dark noise, images with one level, with a few, and with two."""
    images = rng.integers(0, 256, (40, 20, 32, 3), dtype=np.uint8)
    images[10:20] //= 8
    images[20:25] = 7
    images[25:30] = images[25:30] // 64 * 20 + 3
    images[30:35, 1:] = 255
    return images


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


# ---------------------------------------------------------------- Pillow's twins


def by_pillow(images, change):
    return np.stack([np.asarray(change(i, Image.fromarray(image))) for i, image in enumerate(images)])


def test_equalize_is_pillows(images):
    assert np.array_equal(equalize(images), by_pillow(images, lambda i, image: ImageOps.equalize(image)))
    grey = images[..., :1]
    expected = by_pillow(grey[..., 0], lambda i, image: ImageOps.equalize(image))
    assert np.array_equal(equalize(grey)[..., 0], expected)
    assert not np.array_equal(equalize(images)[10:20], images[10:20])
    assert np.array_equal(equalize(images)[20:25], images[20:25])  # one level: nothing to spread


@pytest.mark.parametrize("size", [(2, 3), (16, 17), (32, 32), (100, 90)], ids=str)
def test_equalize_is_pillows_at_any_size(rng, size):
    images = rng.integers(0, rng.integers(2, 256, (20, 1, 1, 1)), (20, *size, 3), dtype=np.uint8)
    assert np.array_equal(equalize(images), by_pillow(images, lambda i, image: ImageOps.equalize(image)))


def transform(images, coefficients):
    """Pillow's affine transform; coefficients(i) are its six numbers."""
    return by_pillow(
        images,
        lambda i, image: image.transform(
            image.size, Image.Transform.AFFINE, coefficients(i), Image.Resampling.BICUBIC, fillcolor=FILL
        ),
    )


def test_moves_are_pillows(images, rng):
    amount = rng.uniform(-0.5, 0.5, 40)
    amount[:3] = 0, 0.25, 1 / 64  # whole and half pixels: source points on the border itself
    cases = [
        (shear_x(amount), lambda i: (1, amount[i], 0, 0, 1, 0)),
        (translation(amount * 32, 0 * amount), lambda i: (1, 0, amount[i] * 32, 0, 1, 0)),
        (translation(0 * amount, amount * 20), lambda i: (1, 0, 0, 0, 1, amount[i] * 20)),
    ]
    for matrices, coefficients in cases:
        assert np.array_equal(affine(images, matrices, FILL), transform(images, coefficients))
    wrong = affine(images, translation(-amount * 32, 0 * amount), FILL)  # the other direction
    assert not np.array_equal(wrong, transform(images, cases[1][1]))


def test_a_rotation_is_pillows(images, rng):
    degrees = rng.uniform(-90, 90, 40)
    result = affine(images, rotation(np.deg2rad(degrees), 20, 32), FILL)
    expected = by_pillow(
        images, lambda i, image: image.rotate(degrees[i], Image.Resampling.BICUBIC, fillcolor=FILL)
    )
    assert np.array_equal(result, expected)
    assert not np.array_equal(affine(images, rotation(-np.deg2rad(degrees), 20, 32), FILL), expected)


def test_whole_pixels_move_exactly(images):
    moved = affine(images, translation(np.full(40, 3.0), np.full(40, -2.0)), 9)
    assert np.array_equal(moved[:, 2:, :-3], images[:, :-2, 3:])
    assert (moved[:, :2] == 9).all() and (moved[:, :, -3:] == 9).all()
    turned = affine(images[:, :, :20], rotation(np.full(40, np.pi / 2), 20, 20), 0)
    square = np.rot90(images[:, :, :20], axes=(1, 2))
    inside = abs(turned.astype(int) - square)[:, 1:-1, 1:-1]
    assert inside.max() <= 1  # counter-clockwise; ends may be cut off


# ---------------------------------------------------------------- the policy


def test_the_policy_applies_one_operation_to_about_half(monkeypatch):
    images = np.broadcast_to(seeded(3).integers(0, 100, (1, 20, 20, 3), dtype=np.uint8), (2000, 20, 20, 3))
    kept = (five_ops(images, seeded(), FILL) == images).all((1, 2, 3))
    assert 0.45 < kept.mean() < 0.55
    assert np.array_equal(five_ops(images, seeded(), FILL, probability=0), images)
    monkeypatch.setattr(policy, "MAGNITUDE_STD", 0.0)  # then an image can become nine others
    result = five_ops(images, seeded(), FILL, probability=1)
    one = images[:1]
    s, zero = np.array([1.0, -1.0]), np.zeros(2)
    two = np.concatenate([one, one])
    possible = [
        equalize(one),
        affine(two, rotation(np.deg2rad(27 * s), 20, 20), FILL),
        affine(two, shear_x(0.27 * s), FILL),
        affine(two, translation(0.405 * 20 * s, zero), FILL),
        affine(two, translation(zero, 0.405 * 20 * s), FILL),
    ]
    counts = [[int((result == each).all((1, 2, 3)).sum()) for each in kind] for kind in possible]
    assert sum(map(sum, counts)) == 2000
    assert all(330 < sum(kind) < 470 for kind in counts)  # 400 each
    assert all(150 < each < 250 for kind in counts[1:] for each in kind)  # both signs


def test_the_policys_strength_varies_about_nine():
    image = np.zeros((1000, 1, 100, 1), np.uint8)
    result = five_ops(image, seeded(), 200, probability=1)
    entered = (result == 200).sum((1, 2, 3))
    shifts = entered[(entered > 30) & (entered < 60)]  # ShearX and rotations move one row hardly
    assert len(shifts) > 150 and 40 < shifts.mean() < 41 and 1.4 < shifts.std() < 2.2  # 40.5 ± 1.8
    assert shifts.max() <= 45


def test_the_policy_repeats_and_takes_bytes_alone(images):
    before = images.copy()
    assert np.array_equal(five_ops(images, seeded(), FILL), five_ops(images, seeded(), FILL))
    assert not np.array_equal(five_ops(images, seeded(), FILL), five_ops(images, seeded(1), FILL))
    assert np.array_equal(images, before)
    assert five_ops(images[:0], seeded(), FILL).shape == (0, 20, 32, 3)
    with pytest.raises(TypeError, match="uint8 images, got float64"):
        five_ops(images / 255, seeded(), FILL)


# ---------------------------------------------------------------- Spikformer's recipe as a whole


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


def test_cifar_is_standardised_by_the_published_numbers():
    white = prepare_cifar(np.full((1, 1, 1, 3), 255, np.uint8))[0, 0, 0]
    expected = [(1 - 0.4914) / 0.2470, (1 - 0.4822) / 0.2435, (1 - 0.4465) / 0.2616]
    np.testing.assert_allclose(white, expected, rtol=1e-6)
