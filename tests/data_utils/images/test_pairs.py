"""Pairs of digits: neither half tells the label, no token sees both, and each epoch has its own pairs."""

import numpy as np
import pytest

from data_utils.datasets import open_data
from data_utils.images.digits import load_digits
from data_utils.images.pairs import GAP, TEST, TRAINING, FreshPairs, Pairs, open_pairs
from data_utils.loader import Prefetch
from minispike import create_model, no_grad
from minispike.train import calibrate, set_gains


def toy(gap=2, classes=3, each=4):
    """Images of one pixel, each with a value of its own: 100 · class + number."""
    labels = np.repeat(np.arange(classes), each)
    images = (100.0 * labels + np.tile(np.arange(each), classes)).reshape(-1, 1, 1, 1)
    return Pairs(images, labels, gap, blank=-1.0)


def test_a_canvas_is_a_digit_a_gap_and_a_digit(rng):
    canvas, labels = toy().draw(500, rng)
    assert canvas.shape == (500, 1, 4, 1) and (canvas[:, 0, 1:3, 0] == -1).all()
    left, right = canvas[:, 0, 0, 0], canvas[:, 0, 3, 0]
    assert np.array_equal(labels == 1, left // 100 == right // 100)
    assert (left != right).all()  # never the same image twice


def test_neither_half_tells_the_label(rng):
    """Each image, on either side, comes as often in pairs that are equal as in pairs that are not."""
    n = 120_000
    unequal = Pairs(np.arange(9.0).reshape(-1, 1, 1, 1), np.array([0, 0, 1, 1, 1, 1, 2, 2, 2]), 1, -1.0)
    canvas, labels = unequal.draw(n, rng)
    assert abs(labels.mean() - 0.5) < 0.01
    for side in (0, 2):
        for image in range(9):
            shown = labels[canvas[:, 0, side, 0] == image]
            assert abs(shown.mean() - 0.5) < 5 * 0.5 / len(shown) ** 0.5, (side, image)


def test_all_others_of_a_class_are_as_likely(rng):
    canvas, labels = toy(classes=2, each=3).draw(60_000, rng)
    same = canvas[labels == 1][:, 0, [0, -1], 0]
    pairs, counts = np.unique(same, axis=0, return_counts=True)
    assert len(pairs) == 2 * 3 * 2 and counts.max() / counts.min() < 1.2


def test_every_epoch_has_its_own_pairs_and_any_batch_can_be_made_alone():
    batches = FreshPairs(toy(), 10, 4, seed=3)
    assert len(batches) == len(batches(0)) == 3 and [len(y) for _, y in batches(0)] == [4, 4, 2]
    assert np.array_equal(batches(2)[1][0], list(batches(2))[1][0])
    assert not np.array_equal(batches(0)[0][0], batches(1)[0][0])
    assert not np.array_equal(batches(0)[0][0], FreshPairs(toy(), 10, 4, seed=4)(0)[0][0])
    assert [len(y) for _, y in batches(0, 1)] == [4, 2] and len(batches(0, 1)) == 3
    assert np.array_equal(list(batches(0, 2))[0][0], batches(0)[2][0])
    assert np.array_equal(next(iter(batches))[0], batches(0)[0][0])
    assert len(list(Prefetch(batches)(0, 1))) == 2
    with pytest.raises(IndexError, match="step 3 of an epoch of 3"):
        batches(0)[3]


def test_test_pairs_are_fixed_and_of_unseen_digits():
    train, test = open_pairs(32)
    assert train.n_samples == TRAINING and test.n_samples == TEST and test.labels.mean() == 0.5
    assert np.array_equal(test.spread(5)[0], open_pairs(16, seed=9)[1].spread(5)[0])
    (_, _), (unseen, _) = load_digits()
    known = {image.tobytes() for image in unseen}
    halves = np.concatenate(
        [canvas[:, :, part] for canvas, _ in test for part in (slice(0, 8), slice(-8, None))]
    )
    assert {half.tobytes() for half in halves} <= known
    images, labels = train(0)[0]
    assert images.shape == (32, 8, 16 + GAP, 1) and set(np.unique(labels)) <= {0, 1}
    assert not {image[:, :8].tobytes() for image in images} & known


def tokens_that_change(model, images, side, rng):
    """Which tokens [N] of the stem change when one half of the canvas does."""
    other = images.copy()
    other[:, :, side] += rng.standard_normal(other[:, :, side].shape)
    with no_grad():
        stems = (model.eval().stem(x.reshape(1, *x.shape), T=2).data for x in (images, other))
        one, two = stems
    return (one != two).any((0, 1, 3))


@pytest.mark.parametrize("gap, both", [(GAP, False), (0, True)])
def test_no_token_sees_both_halves_unless_there_is_no_gap(rng, gap, both):
    model = create_model("attention_free_identity_1_64_pairs", img_size=(8, 16 + gap), dtype="float64")
    images = rng.standard_normal((8, 8, 16 + gap, 1))
    set_gains(model, 3.0)  # so that neurons fire
    calibrate(model, [(images, None)])
    seen = [tokens_that_change(model, images, side, rng) for side in (slice(0, 8), slice(8 + gap, None))]
    assert seen[0].any() and seen[1].any()
    assert (seen[0] & seen[1]).any() == both


def test_what_pairs_do_not_have_is_refused(tmp_path):
    with pytest.raises(ValueError, match="pairs are drawn from the digits, .* and have no root, flip"):
        open_data("pairs", str(tmp_path), batch_size=4, flip=0.5)
    with pytest.raises(ValueError, match="have no val_split"):
        open_data("pairs", batch_size=4, val_split=0.1)
    with pytest.raises(ValueError, match="two images or more of each"):
        Pairs(np.zeros((3, 1, 1, 1)), np.array([0, 0, 1]))
    with pytest.raises(ValueError, match="0 pairs"):
        FreshPairs(toy(), 0, 4)
