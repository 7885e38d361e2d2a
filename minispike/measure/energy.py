"""Operations, active shares and joules: the papers' energy claim, counted contraction by contraction.

    energy = 0.9 pJ · additions + 4.6 pJ · multiply-accumulates (MACs)        45 nm, float32

Multiplying by a spike means adding or not adding.

**Active share**: of the entries that enter a contraction, the share that are not 0; an integer counts once,
whatever its size. Spike-driven Transformer (arXiv 2307.01694) defines it for spikes and calls it a firing
rate; applying it to integers is our interpretation. Here a *firing rate* is something else, spikes per neuron
and step (viz.firing_rates). Between a neuron and the next contraction there can be a pool, a residual sum or
a product, so the two numbers differ: after a 3×3 max-pool one spike makes up to four entries active.

The additions are counted in three ways:

paper   active share · dense MACs: additions where spikes or integers enter, MACs where analog values do. Each
        product is taken in the order of the equation, (Q Kᵀ) V, and what is computed once for a static image
        is charged T times. Spikformer (arXiv 2209.15425).
strict  the same, but contractions that integers enter are charged as MACs: only 0 and 1 multiply for free.
        The stream between the blocks holds integers, so this concerns q, k, v, fc1 and every mixer without
        attention.
events  what an event-driven machine would do for this input. A value k is added k times to each output that
        it reaches, borders excluded: Σ |k| · fan-out. An analog value costs one MAC for each, unless it is 0.

In a product of two signals one signal is counted and the other is added. With q, k, v in {0, 1}:

    Q Kᵀ        Σ_c q_ic k_jc       one addition where both are 1: Σ_ic q_ic · #{j: k_jc = 1}
    A V         Σ_j A_ij v_jc       v_jc = 1 adds the integer A_ij, once: Σ_jc v_jc · #{i: A_ij ≠ 0}
    Q (KᵀV)     Σ_c q_ic M_ce       KᵀV as Q Kᵀ; then q_ic = 1 adds row c of M: Σ_ic q_ic · #{e: M_ce ≠ 0}

The signal most like a spike is counted (binary before integer before analog; among equals the one that makes
fewer additions, or the first), and its active share is the product's. `events` follows the order of the run.

A fixed transform holds constants, and a spike adds a column of them, so it multiplies nothing either. This
direct form reaches up to N (or N·D) outputs. The fast form needs few operations, but after its first stage
all values are analog: dense MACs, whatever the active share. `events` takes the form of less energy (our
interpretation); `paper` charges active share · fast form as additions, which no machine does.

Scalars move out of a contraction, W (a x) = a (W x). So the head's mean over N and T enters as a sum,
followed by one division. Not counted: biases, batch norm, neurons, residual additions, pools, and
memory traffic, which on real hardware usually costs more. Sums over tokens are pools: SASA's "global" and
"channel", which only multiply by such a sum element by element, therefore aggregate at no cost here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from weakref import WeakKeyDictionary

from ..autograd import Tensor, as_tensor, no_grad, trace
from ..backend import Array, get_xp
from ..models import SpikingTransformer
from ..nn import mode
from ..ops.elementwise import Mul
from ..ops.matmul import MatMul

PICOJOULES = {"ac": 0.9, "mac": 4.6}  # 45 nm, float32: an addition; a multiplication (3.7) and an addition
KINDS = ("binary", "integer", "analog")
COLUMNS = ("paper", "strict", "events")
PARTS = ("stem", "mixer", "mlp", "head")

# ---------------------------------------------------------------- what a count holds


@dataclass(frozen=True)
class Operations:
    """Additions (`ac`) and multiply-accumulates (`mac`)."""

    ac: float = 0.0
    mac: float = 0.0

    def __add__(self, other: Operations) -> Operations:
        return Operations(self.ac + other.ac, self.mac + other.mac)

    def joules(self, picojoules: dict[str, float] = PICOJOULES) -> float:
        """Return the energy in joules, for a table of picojoules per operation."""
        return 1e-12 * (picojoules["ac"] * self.ac + picojoules["mac"] * self.mac)


@dataclass
class Row:
    """One contraction of one run, all images and steps together.

    shapes: those of its inputs and its output.    parameters: the number of its constants.
    macs: dense, in the order of the run.    paper_macs: dense, as `paper` counts them.
    kind, active_share: those of the input that is counted.
    """

    path: str
    op: str
    shapes: list[tuple[int, ...]]
    parameters: int
    macs: int
    kind: str
    active_share: float
    events: Operations
    paper_macs: int = 0
    paper: Operations = Operations()
    strict: Operations = Operations()

    @property
    def label(self) -> str:
        """A short name, unique in the model, for a figure."""
        name = self.path.removeprefix("blocks.").removeprefix("stem.").removesuffix(".map")
        return name if self.parameters else f"{name} {self.op}"

    @property
    def part(self) -> str:
        """The part of the model to which this row belongs: one of PARTS."""
        return next((part for part in PARTS if part in self.path.split(".")), self.path)

    def charge(self, macs: int, kind: str, share: float) -> None:
        """Fill `paper` and `strict` for dense MACs, entered by values of this kind and active share."""
        additions, products = Operations(ac=share * macs), Operations(mac=share * macs)
        all = Operations(mac=macs)
        self.paper_macs = macs
        self.paper = all if kind == "analog" else additions
        self.strict = {"binary": additions, "integer": products, "analog": all}[kind]


@dataclass
class Count:
    """The result of `count`: rows in running order, for `images` images and `steps` time steps."""

    rows: list[Row]
    images: int
    steps: int
    picojoules: dict[str, float]

    def total(self, column: str, part: str | None = None) -> Operations:
        """Return one image's operations in a column, of one part of the model or of the whole."""
        found = [getattr(row, column) for row in self.rows if part in (None, row.part)]
        total = sum(found, Operations())
        return Operations(total.ac / self.images, total.mac / self.images)

    def joules(self, column: str, part: str | None = None) -> float:
        """Return the energy of one image."""
        return self.total(column, part).joules(self.picojoules)

    def macs(self, part: str | None = None) -> float:
        """Return the dense MACs per image and step, as the paper counts them."""
        found = (row.paper_macs for row in self.rows if part in (None, row.part))
        return sum(found) / (self.images * self.steps)

    def as_dict(self) -> dict:
        """Return everything as plain numbers, for JSON: rows for all images, totals per image."""
        totals = {c: asdict(self.total(c)) | {"joules": self.joules(c)} for c in COLUMNS}
        head = {"images": self.images, "steps": self.steps, "picojoules": self.picojoules}
        return head | {"macs_a_step": self.macs(), "totals": totals, "rows": [asdict(r) for r in self.rows]}

    def __str__(self) -> str:
        wide = max(len(row.path) for row in self.rows)

        def line(name, op, shape, numbers, macs, kind, share, *joules):
            cells = f"{name:<{wide}} {op:<15} {shape:<17} {numbers:>9} {macs:>8} {kind:<7} {share:>12}"
            return " ".join([cells, *(f"{nj:>9}" for nj in joules)])

        lines = [line("layer", "op", "output", "numbers", "MACs", "enters", "active share", *COLUMNS)]
        for row in self.rows:
            joules = [getattr(row, c).joules(self.picojoules) / self.images for c in COLUMNS]
            about = row.path, row.op, "×".join(map(str, row.shapes[-1])), f"{row.parameters:,}"
            enters = _short(row.paper_macs / self.images), row.kind, f"{row.active_share:.1%}"
            lines.append(line(*about, *enters, *(f"{1e9 * j:.1f}" for j in joules)))
        for part in (*PARTS, None):
            joules = [self.joules(c, part) for c in COLUMNS]
            about = part or "all", "", "", "", _short(self.macs(part) * self.steps), "", ""
            lines.append(line(*about, *(f"{1e9 * j:.1f}" for j in joules)))
        return "\n".join(lines)


def _short(n: float) -> str:
    return f"{n / 1e6:.1f} M" if n >= 1e6 else f"{n / 1e3:.1f} k"


# ---------------------------------------------------------------- counting


def count(model: SpikingTransformer, x, picojoules: dict[str, float] = PICOJOULES) -> Count:
    """Run a model once on x in eval mode and count each of its contractions.

    x: images [B, H, W, C] or frames [T, B, H, W, C], in the model's dtype and on its device.
    picojoules: what an addition ("ac") and a multiply-accumulate ("mac") cost.
    An op that states its `cost` is a contraction; its `fan_out` says how many outputs each value reaches.
    """
    x = as_tensor(x)
    frames = x.ndim == 5
    counter = _Counter(x, len(x) if frames else model.T, picojoules)
    with mode(model, training=False), no_grad(), trace(counter):
        model(x)
    return Count(counter.rows, x.shape[1] if frames else len(x), counter.steps, picojoules)


def additions_per_image(model: SpikingTransformer, x, batch_size: int) -> float:
    """Return the additions of one image, as `events` counts them: the mean over x.

    x: as for `count`.    batch_size: the number of images that run at a time, and are held in memory.
    """
    n = x.shape[-4]  # of [B, H, W, C] and of frames [T, B, H, W, C]
    pieces = [x[..., first : first + batch_size, :, :, :] for first in range(0, n, batch_size)]
    return sum(piece.shape[-4] / n * count(model, piece).total("events").ac for piece in pieces)


def kind_of(x: Array) -> str:
    """Return the kind of x's values: "binary" (0 and 1), "integer" or "analog"."""
    xp = get_xp(x)
    if bool(((x == 0) | (x == 1)).all()):
        return "binary"
    return "integer" if bool((x == xp.rint(x)).all()) else "analog"


def counted(function, arrays: list[Array], signals: list[int]) -> tuple[int, str, Array]:
    """Return that signal of a contraction which is counted: (its place in arrays, its kind, its fan-out)."""
    fans = function.fan_out(*arrays, **function.constants)
    found = [(i, kind_of(arrays[i]), fans[i]) for i in signals]
    if len(found) == 1:
        return found[0]
    return min(found, key=lambda each: (KINDS.index(each[1]), additions(arrays[each[0]], *each[1:])))


def additions(x: Array, kind: str, fan: Array) -> int:
    """Return Σ |x| · fan. An analog value counts once, whatever its size."""
    values = x != 0 if kind == "analog" else abs(x)
    return int((values * fan).sum(dtype="float64"))


def entering(function, arrays: list[Array], signals: list[int]) -> tuple[str, float, int]:
    """Return (kind, active share, Σ |k| · fan-out) of that signal of a contraction which is counted."""
    i, kind, fan = counted(function, arrays, signals)
    return kind, float((arrays[i] != 0).mean()), additions(arrays[i], kind, fan)


class Follower:
    """A callback of `trace` that follows what comes from the input x through a run of a model.

    Subclasses get each contraction that such a signal enters:

        contraction(function, tensors, signals, output, path)

    tensors: its inputs. In W (a x), where a is a number, x stands for a x, because W (a x) = a (W x).
    signals: the places of those that come from the input.
    """

    def __init__(self, x: Tensor):
        self.signals = WeakKeyDictionary({x: x.ndim == 4})  # from x: True if not yet repeated
        self.unscaled = WeakKeyDictionary()  # a·x: x

    def __call__(self, function, inputs, output, path):
        tensors = [x for x in inputs if isinstance(x, Tensor)]
        signals = [i for i, x in enumerate(tensors) if x in self.signals]
        if not signals:
            return
        self.signals[output] = any(self.signals[tensors[i]] for i in signals) and output.shape[:1] == (1,)
        if isinstance(function, Mul) and len(tensors) < len(inputs):
            self.unscaled[output] = tensors[0]
        if hasattr(function, "cost"):
            self.contraction(function, [self.unscaled.get(x, x) for x in tensors], signals, output, path)


class _Counter(Follower):
    """Makes a row per contraction."""

    def __init__(self, x: Tensor, steps: int, picojoules: dict[str, float]):
        super().__init__(x)
        self.rows: list[Row] = []
        self.steps, self.picojoules = steps, picojoules
        self.products = WeakKeyDictionary()  # a @ b: row, a, b

    def contraction(self, function, tensors, signals, output, path):
        row = self.write(function, tensors, signals, output, path)
        if isinstance(function, MatMul) and len(signals) == 2:
            if tensors[1] in self.products:
                self.as_written(function, row, tensors[0], *self.products[tensors[1]])
            self.products[output] = row, *tensors

    def write(self, function, tensors, signals, output, path) -> Row:
        arrays = [x.data for x in tensors]
        shapes = [tuple(x.shape) for x in tensors]
        parameters = sum(x.data.size for i, x in enumerate(tensors) if i not in signals)
        macs = function.cost(*shapes, **function.constants)
        kind, share, n = entering(function, arrays, signals)
        events = Operations(mac=n) if kind == "analog" else Operations(ac=n)
        if not parameters and len(signals) == 1:  # a fixed transform: the direct form, or the fast one
            events = min(events, Operations(mac=macs), key=lambda each: each.joules(self.picojoules))
        shapes.append(tuple(output.shape))
        row = Row(path, function.name, shapes, parameters, macs, kind, share, events)
        row.charge((self.steps if self.signals[output] else 1) * macs, kind, share)
        self.rows.append(row)
        return row

    def as_written(self, function, row: Row, q: Tensor, first: Row, a: Tensor, b: Tensor) -> None:
        """Charge the rows of a b and of q (a b) in the equation's order: q a, and (q a) b."""
        scores = q.data @ a.data
        for each, x, w in ((first, q.data, a.data), (row, scores, b.data)):
            kind, share, _ = entering(function, [x, w], [0, 1])
            each.charge(function.cost(x.shape, w.shape), kind, share)
