"""What the tests of files share: a small model, and ways to damage a file."""

from functools import cache

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from minispike import create_model

from ..blocks.test_blocks import lively

SMALL = dict(embed_dim=16, num_heads=4, mlp_ratio=2, depth=2)
fuzz = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def small(**overrides):
    """Return a small model with random parameters and random running statistics."""
    model = create_model("spikformer_1_64_digits", **SMALL | overrides)
    rng = np.random.default_rng(1)
    for path, array in lively(model, rng).state_dict().items():
        if "running" in path:
            array[...] = rng.uniform(0.5, 1.5, array.shape)
    return model


def same(a, b) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return list(a) == list(b) and all(np.array_equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


@cache
def small_once():
    """Return one small model, made once: for tests that only try to load into it."""
    return small()


def damage(whole: bytes, data) -> bytes:
    """Cut a file short, or flip a few bits, mostly in its first bytes, which hold its structure."""
    if data.draw(st.booleans()):
        return whole[: data.draw(st.integers(0, len(whole) - 1))]
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.one_of(st.integers(0, min(3000, len(whole) - 1)), st.integers(0, len(whole) - 1)))
        broken[at] ^= 1 << data.draw(st.integers(0, 7))
    return bytes(broken)
