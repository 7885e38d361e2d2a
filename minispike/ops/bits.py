"""Spiking attention on bits: 64 spikes in a word, Q Kᵀ by AND and popcount, the product with V by additions.

    (Q Kᵀ)_ij = Σ_c q_ic k_jc = popcount(q_i AND k_j)                 q_i, k_j: d bits each
    (A V)_ic  = Σ_j A_ij v_jc = Σ of A_ij over the j with bit c of v_j set

No number is multiplied, and all are integers, so the result is that of the float path, bit for bit (both are
exact up to 2²⁴ in float32). It is here to be read, for host arrays and without a gradient: it takes a 16th
of the memory at d = 32 and far more time than a processor's matrix product (benchmarks/bits.py).
"""

from __future__ import annotations

from ..autograd import expect
from ..backend import HOST, Array

np = HOST.xp
WORD = 64


def pack(spikes: Array) -> Array:
    """Return spikes [..., d], 0 or 1, as uint64 words [..., ⌈d/64⌉]; the last word's spare bits are 0."""
    spikes = np.asarray(spikes)
    binary = spikes.ndim >= 1 and bool(((spikes == 0) | (spikes == 1)).all())
    expect(binary, f"pack expects spikes [..., d] of 0 and 1, got {spikes.dtype}{list(spikes.shape)}")
    n_words = -(-spikes.shape[-1] // WORD)
    bits = np.zeros((*spikes.shape[:-1], n_words * WORD), bool)
    bits[..., : spikes.shape[-1]] = spikes
    return np.packbits(bits, axis=-1, bitorder="little").view("uint64")


def unpack(words: Array, d: int) -> Array:
    """Return the first d bits of words [..., n] as booleans [..., d]: the inverse of `pack`."""
    return np.unpackbits(words.view("uint8"), axis=-1, count=d, bitorder="little").view(bool)


def coincidences(q: Array, k: Array) -> Array:
    """Return Q Kᵀ [..., N, M] as int64 counts, from packed q [..., N, words] and k [..., M, words]."""
    expect(q.shape[-1] == k.shape[-1], f"q and k hold {q.shape[-1]} and {k.shape[-1]} words a token")
    both = q[..., :, None, :] & k[..., None, :, :]  # [..., N, M, words]
    return np.bitwise_count(both).sum(-1, dtype="int64")


def add_where(counts: Array, v: Array, d: int) -> Array:
    """Return counts V [..., N, d] as int64, from counts [..., N, M] and packed v [..., M, words]."""
    fires = unpack(v, d)  # [..., M, d]
    y = np.zeros((*counts.shape[:-1], d), "int64")
    for j in range(counts.shape[-1]):  # token j adds its column of counts to the channels in which it fires
        np.add(y, counts[..., j, None], out=y, where=fires[..., None, j, :])
    return y


def attend(q: Array, k: Array, v: Array) -> Array:
    """Return (Q Kᵀ) V for spikes [..., N, d], in their dtype: what blocks.ssa.attend returns."""
    scores = coincidences(pack(q), pack(k))  # [..., N, N]
    return add_where(scores, pack(v), v.shape[-1]).astype(v.dtype)
