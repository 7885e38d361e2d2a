"""The memory of a training step, estimated from a few samples; and what is free."""

import tracemalloc

import numpy as np
import pytest

from minispike import create_model, ops
from minispike.runs import memory


@pytest.mark.parametrize("mixer", ["ssa", "sasa", "fft1d"])
def test_the_estimate_is_near_the_peak(rng, mixer):
    """Within a fifth, for a step that takes far more than its fixed part; nothing in the model changes."""
    model = create_model("spikformer_1_64_digits", mixer=mixer, img_size=32)
    x, before = rng.standard_normal((24, 32, 32, 1)).astype("float32"), {}
    before = {path: array.copy() for path, array in model.state_dict().items()}

    def step(n):
        ops.softmax_cross_entropy(model(x[:n]), np.zeros(n, int)).backward()

    estimate = memory.step_bytes(model, step, 24)
    assert all(np.array_equal(array, before[path]) for path, array in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    tracemalloc.start()
    step(24)
    peak = tracemalloc.get_traced_memory()[1] + 2 * sum(p.data.nbytes for p in model.parameters())
    tracemalloc.stop()
    assert 0.8 * peak < estimate < 1.25 * peak


def test_a_batch_of_one_is_measured(rng):
    model, x = create_model("spikformer_1_64_digits"), rng.standard_normal((1, 8, 8, 1)).astype("float32")
    assert memory.step_bytes(model, lambda n: model(x[:n]).sum().backward(), 1) > 2**20


def test_the_smallest_limit_counts(tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    3000 kB\n")
    (tmp_path / "max").write_text("2000000\n")
    (tmp_path / "current").write_text("500000\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUPS", [(tmp_path / "max", tmp_path / "current")])
    assert memory.free_bytes() == 1_500_000
    (tmp_path / "max").write_text("max\n")  # no limit
    assert memory.free_bytes() == 3000 * 1024
    (tmp_path / "meminfo").unlink()
    assert memory.free_bytes() is None


def test_too_little_memory_is_an_error_that_says_what_to_do():
    memory.check_memory(5, None, 8)
    memory.check_memory(5, 5, 8)
    with pytest.raises(MemoryError, match="a step of 8 samples needs about 3.0 GiB, and 1.0 GiB are free"):
        memory.check_memory(3 * 2**30, 2**30, 8)
