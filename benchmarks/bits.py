"""Attention on packed bits beside the matrix product: python -m benchmarks.bits

One size, that of 4-384 on CIFAR at B = 8: memory of q, k, v and time of (Q Kᵀ) V, medians of alternating
rounds. Writes results/bits.json.
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.ablations import machine
from benchmarks.mixers import in_turn
from minispike.ops import bits

RESULTS = Path(__file__).parent / "results"
SHAPE = (4, 8, 12, 64, 32)  # [T, B, h, N, d]
ROUNDS = 15


def main() -> None:
    rng = np.random.default_rng(0)
    q, k, v = ((rng.random(SHAPE) < 0.2).astype("float32") for _ in range(3))
    packed = [bits.pack(x) for x in (q, k, v)]
    tasks = {
        "GEMM: (Q Kᵀ) V": lambda: (q @ k.swapaxes(-1, -2)) @ v,
        "GEMM: Q (Kᵀ V)": lambda: q @ (k.swapaxes(-1, -2) @ v),
        "bits: packing": lambda: [bits.pack(x) for x in (q, k, v)],
        "bits: Q Kᵀ, AND and popcount": lambda: bits.coincidences(*packed[:2]),
        "bits: (Q Kᵀ) V, all of it": lambda: bits.attend(q, k, v),
    }
    assert np.array_equal(tasks["GEMM: (Q Kᵀ) V"](), tasks["bits: (Q Kᵀ) V, all of it"]())
    times = {name: round(1e3 * median(t), 2) for name, t in in_turn(tasks, ROUNDS, "bits").items()}
    record = {
        "command": "python -m benchmarks.bits",
        "date": date.today().isoformat(),
        "machine": machine(),
        "shape": SHAPE,
        "bytes": {"float32": 3 * q.nbytes, "bits": sum(x.nbytes for x in packed)},
        "ms": times,
    }
    (RESULTS / "bits.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(f"q, k, v {list(SHAPE)}: {3 * q.nbytes:,} bytes as float32, {record['bytes']['bits']:,} as words")
    for name, ms in times.items():
        print(f"{name:<30} {ms:8.2f} ms")


if __name__ == "__main__":
    main()
