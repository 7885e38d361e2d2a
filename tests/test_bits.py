"""Attention on bits against the float path, bit for bit."""

import numpy as np
import pytest

from minispike import Tensor
from minispike.blocks import ssa
from minispike.ops.bits import add_where, attend, coincidences, pack, unpack

SIZES = [(4, 6), (16, 16), (9, 64), (5, 65), (3, 130), (1, 1)]  # N, d: below, at and above a word


def spikes(rng, *shape, rate=0.3, dtype="float32"):
    return (rng.random(shape) < rate).astype(dtype)


@pytest.mark.parametrize("N, d", SIZES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_give_what_floats_give(rng, N, d, dtype):
    q, k, v = (spikes(rng, 2, 3, 2, N, d, dtype=dtype) for _ in range(3))
    ours, floats = attend(q, k, v), ssa.attend(*map(Tensor, (q, k, v))).data
    assert ours.dtype == floats.dtype and ours.tobytes() == np.ascontiguousarray(floats).tobytes()
    assert np.array_equal(coincidences(pack(q), pack(k)), q @ k.swapaxes(-1, -2))
    assert d == 1 or ours.max() > 0


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_silence_and_noise(rng, rate):
    q, k, v = (spikes(rng, 7, 70, rate=rate) for _ in range(3))
    assert np.array_equal(attend(q, k, v), np.full((7, 70), 7 * 70 * rate))  # spare bits count for nothing


@pytest.mark.parametrize("N, d", SIZES)
def test_packing_loses_nothing_and_saves_what_it_says(rng, N, d):
    x = spikes(rng, 3, N, d)
    words = pack(x)
    assert words.dtype == "uint64" and words.shape == (3, N, -(-d // 64))
    assert np.array_equal(unpack(words, d), x.astype(bool))
    spare = unpack(words, words.shape[-1] * 64)[..., d:]
    assert not spare.any()


def test_masked_addition_by_loops(rng):
    counts, v = rng.integers(0, 9, (5, 4)), spikes(rng, 4, 70)
    y = np.zeros((5, 70), int)
    for i, j, c in np.ndindex(5, 4, 70):
        if v[j, c]:
            y[i, c] += counts[i, j]
    assert np.array_equal(add_where(counts, pack(v), 70), y)


def test_one_flipped_bit_shows(rng):
    q, k = spikes(rng, 4, 64, rate=1), spikes(rng, 4, 64, rate=1)
    words = pack(q)
    words[2, 0] ^= np.uint64(1 << 17)
    assert (coincidences(words, pack(k)) == 64 - (np.arange(4) == 2)[:, None]).all()


def test_what_is_no_spike_is_refused():
    with pytest.raises(ValueError, match=r"pack expects spikes \[..., d\] of 0 and 1, got float64\[2\]"):
        pack(np.array([0.0, 2.0]))
    with pytest.raises(ValueError, match="q and k hold 1 and 2 words a token"):
        coincidences(pack(np.zeros((2, 64))), pack(np.zeros((2, 65))))


@pytest.mark.parametrize("value", [0.5, -1.0])
def test_below_1_only_0_is_a_spike(value):
    with pytest.raises(ValueError, match="of 0 and 1, got"):
        pack(np.array([0.0, value]))
