"""Where a training step's time and memory go, layer by layer, seen through `trace`.

An op's forward time starts at the end of the op before it, so what a module does between two ops is included.
What an op keeps is what it holds until its backward. An array that two ops keep is counted once, for the
first.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, is_dataclass

from ..autograd import Function, trace
from ..backend import is_array
from ..models import SpikingTransformer
from ..nn import mode
from ..ops import softmax_cross_entropy


@dataclass
class Row:
    """One op of one layer: seconds forward and backward per step, and MiB kept in between."""

    path: str
    op: str
    forward: float = 0.0
    backward: float = 0.0
    kept: float = 0.0


def profile(model: SpikingTransformer, x, labels, steps: int = 3) -> list[Row]:
    """Run training steps (forward, loss, backward) and return a row for each layer's op, in running order.

    x: images [B, H, W, C] or frames [T, B, H, W, C].    labels: [B].    steps: the number of steps to
    average, after one that is not counted. The model's gradients stay in place; nothing else in the model
    changes. Times are of the CPU: a GPU goes on working after an op has returned, which the clock does not
    see.
    """
    rows: dict[tuple[str, str], Row] = {}
    weights = {path for path, _ in model.named_parameters()}
    buffers = {path: array for path, array in model.state_dict().items() if path not in weights}
    before = {path: array.copy() for path, array in buffers.items()}
    with mode(model, training=True):
        for step in range(steps + 1):
            if step == 1:
                rows.clear()
            watch = _Watch(rows)
            with trace(watch):
                loss = softmax_cross_entropy(model(x), labels)
            for parameter in model.parameters():
                parameter.grad = None
            loss.backward()
    for path, array in buffers.items():
        array[...] = before[path]
    for row in rows.values():
        for name, _ in FIELDS:
            setattr(row, name, getattr(row, name) / steps)
    return list(rows.values())


class _Watch:
    """The callback of `trace`: reads the clock after each op, and wraps the op's backward to do the same."""

    def __init__(self, rows: dict[tuple[str, str], Row]):
        self.rows, self.seen, self.last = rows, set(), time.perf_counter()

    def __call__(self, function, inputs, output, path):
        now, op = time.perf_counter(), function.name
        row = self.rows.setdefault((path, op), Row(path, op))
        row.forward += now - self.last
        for array in _arrays(function):
            place = _address(array)
            row.kept += 0 if place in self.seen else array.nbytes / 2**20
            self.seen.add(place)
        backward = function.backward

        def timed(gy):
            start = time.perf_counter()
            gx = backward(gy)
            row.backward += time.perf_counter() - start
            return gx

        function.backward = timed
        self.last = time.perf_counter()


def _arrays(kept) -> Iterator:
    """Yield the arrays in what a Function keeps: attributes, tuples of them, and Functions inside it."""
    if is_array(kept):
        if kept.ndim:
            yield kept
    elif isinstance(kept, (tuple, list)):
        for each in kept:
            yield from _arrays(each)
    elif isinstance(kept, Function) or is_dataclass(kept):
        yield from _arrays([value for name, value in vars(kept).items() if name != "sources"])


def _address(array) -> int:
    """Return where an array's data begin: two views of one array are one thing that is kept."""
    return getattr(array, "__cuda_array_interface__", getattr(array, "__array_interface__", None))["data"][0]


# ---------------------------------------------------------------- showing


def table(rows: list[Row]) -> str:
    """Return the rows as aligned text, with the totals by op and of all."""
    wide = max(len(row.path) for row in rows) + 1

    def line(path, op, forward, backward, kept):
        return f"{path:<{wide}} {op:<20} {forward:>9} {backward:>9} {kept:>9}"

    def numbers(of):
        return (f"{sum(getattr(row, name) for row in of) * scale:.1f}" for name, scale in FIELDS)

    lines = [line("layer", "op", "fwd ms", "bwd ms", "kept MiB")]
    lines += [line(row.path, row.op, *numbers([row])) for row in rows]
    for op in dict.fromkeys(row.op for row in rows):
        lines.append(line("all", op, *numbers([row for row in rows if row.op == op])))
    return "\n".join([*lines, line("all", "", *numbers(rows))])


FIELDS = (("forward", 1e3), ("backward", 1e3), ("kept", 1))


def as_dicts(rows: list[Row]) -> list[dict]:
    """Return the rows as plain numbers, for JSON."""
    return [asdict(row) for row in rows]
