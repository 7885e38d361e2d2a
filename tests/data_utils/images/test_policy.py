"""The five operations of the policy, compared with Pillow byte by byte, and the policy that draws them."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from data_utils.images import policy
from data_utils.images.policy import affine, equalize, five_ops, rotation, shear_x, translation

from .common import FILL, seeded

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
