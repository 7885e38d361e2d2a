"""What goes along the arrows of the papers' figures: spikes, small whole numbers, or real numbers.

Each family's model runs awake, in training mode, and `trace` sees every tensor. The tables say what the
papers' equations make of it at each place.
"""

import numpy as np
import pytest

from minispike import create_model, trace

from .blocks.test_blocks import lively

SPIKES, REAL = "spikes", "real"  # 0 and 1; numbers that are not all whole


def up_to(n):
    """Whole numbers from 0 to n, of which some are above 1."""
    return n


# (the end of a path, the op) of tensors, and what they hold
NEURONS = {("", op): SPIKES for op in ("NormaliseAndFire", "IntegrateAndFire")}
MAPS = {("map", op): REAL for op in ("Convolve2d", "ConvolveDepthwise2d", "MatMulAdd")}
BLOCKS = {("blocks.0", "Add"): (up_to(3), up_to(4))}  # the tokens' 2, and a spike of each sub-layer
HEAD = {("", "Sum"): up_to(10**6), ("", "Mul"): REAL, ("head", "MatMulAdd"): REAL}
EVERYWHERE = NEURONS | MAPS | BLOCKS | HEAD
SPS = {("stem", "MaxPool2d"): SPIKES, ("stem", "Add"): up_to(2)}
SSA = {("mixer", "MatMul"): up_to(16 * 16), ("mixer", "Mul"): REAL}
FAMILIES = {
    "spikformer_1_64_digits": SPS | SSA,
    "attention_free_fft1d_1_64_digits": SPS | {("mixer.map", "Fourier"): REAL},
    "attention_free_haar_1_64_digits": SPS | {("mixer.map", "Wavelet"): REAL},
    "spikformer_v2_1_64_digits": SSA | {(f"stem.stages.{i}", "Add"): up_to(2) for i in range(4)},
    "saformer_1_64_digits": SPS
    | {("mixer.aggregate", "Sum"): up_to(4), ("mixer.aggregate", "MatMul"): up_to(10**4)}
    | {("mixer.aggregate", "Mul"): REAL, ("mixer", "Add"): up_to(2)},
}
ONLY_MOVED = {"Reshape", "Transpose", "BroadcastTo"}  # these hold what their inputs hold


def holds(x):
    """Return what an array holds, in the words of the table."""
    if not (x == np.rint(x)).all() or x.min() < 0:
        return REAL
    return SPIKES if x.max() <= 1 else int(x.max())


def expected(table, path, op, seen):
    """Return what the table says of a tensor; where a place has several, the one whose turn it is."""
    found = [(len(end), value) for (end, name), value in table.items() if name == op and path.endswith(end)]
    if not found:
        return None
    value = max(found, key=lambda each: each[0])[1]
    return value[seen] if isinstance(value, tuple) else value


def walk(model, x, table):
    """Return the tensors that do not hold what the table says, and the entries of the table that were met."""
    wrong, met, turns = [], set(), {}

    def look(function, inputs, output, path):
        if function.name in ONLY_MOVED:
            return
        seen = turns[path, function.name] = turns.get((path, function.name), -1) + 1
        wanted, found = expected(table, path, function.name, seen), holds(output.data)
        small = isinstance(wanted, int) and isinstance(found, int) and 1 < found <= wanted
        if not (found == wanted or small):
            wrong.append(f"{function.name} in {path}: {found}, not {wanted}")
        met.update(key for key in table if function.name == key[1] and path.endswith(key[0]))

    with trace(look):
        model.train()(x)
    return wrong, met


@pytest.mark.parametrize("name", FAMILIES)
def test_each_arrow_carries_what_the_paper_says(name, rng):
    table = EVERYWHERE | FAMILIES[name]
    model = lively(create_model(name), rng)
    wrong, met = walk(model, rng.standard_normal((16, 8, 8, 1)).astype("float32"), table)
    assert not wrong
    unused = {key for key in FAMILIES[name] if key not in met}
    assert not unused  # the table itself does not rot


def test_a_wrong_arrow_is_found(rng):
    """Negative controls: neurons that are smooth, and a block that adds its mixer twice."""
    x = rng.standard_normal((16, 8, 8, 1)).astype("float32")
    table = EVERYWHERE | SPS | SSA
    wrong, _ = walk(lively(create_model("spikformer_1_64_digits", smooth=True), rng), x, table)
    assert any("NormaliseAndFire in stem.stages.0.neuron: real, not spikes" in each for each in wrong)
    model = lively(create_model("spikformer_1_64_digits"), rng)
    mixer = model.blocks[0].mixer
    forward = mixer.forward
    mixer.forward = lambda x: 3 * forward(x)
    wrong, _ = walk(model, x, table)
    assert any("Add in blocks.0: 5, not 3" in each for each in wrong)
