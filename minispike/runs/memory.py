"""How much memory a training step needs, and how much there is: to be told before the first step.

The peak of a training step grows linearly with the batch: peak(B) = fixed + B · per sample. Two traced steps,
of two samples and of four, give both numbers. AdamW's two averages of every parameter are added.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

from ..nn import Module

MEMINFO = Path("/proc/meminfo")
CGROUPS = (  # a container's limit and use: of version 2, of version 1
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


def step_bytes(model: Module, step: Callable[[int], None], batch_size: int) -> int:
    """Return the memory in bytes that training steps of batch_size samples need.

    step: step(n) runs forward and backward on n samples. Batch norm's running statistics are put back, and
    gradients are dropped.
    """
    small, large = min(2, batch_size), min(4, batch_size)
    state = {path: array.copy() for path, array in model.state_dict().items()}
    peaks = []
    step(large)  # compiles, or reads from disk, what has to be: that memory is not the step's
    for n in (small, large):
        tracemalloc.start()
        step(n)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        for parameter in model.parameters():
            parameter.grad = None
    model.load_state_dict(state)
    per_sample = (peaks[1] - peaks[0]) / max(1, large - small)
    averages = 2 * sum(parameter.data.nbytes for parameter in model.parameters())
    return round(peaks[1] + (batch_size - large) * per_sample + averages)


def free_bytes() -> int | None:
    """Return the memory in bytes that this process may still take, a container's limit included.

    None where the system does not say (it is read from /proc, as on Linux).
    """
    found = []
    if MEMINFO.exists():
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines() if ":" in line)
        found.append(1024 * int(lines["MemAvailable"].split()[0]))
    for limit, used in CGROUPS:
        if limit.exists() and used.exists() and limit.read_text().strip().isdigit():
            found.append(int(limit.read_text()) - int(used.read_text()))
    return min(found) if found else None


def check_memory(needed: int, free: int | None, batch_size: int) -> None:
    """Raise MemoryError, before the first step, if a step needs more memory than there is."""
    if free is not None and needed > free:
        needs = f"a step of {batch_size} samples needs about {needed / 2**30:.1f} GiB"
        raise MemoryError(f"{needs}, and {free / 2**30:.1f} GiB are free: take a smaller --batch-size or --T")
