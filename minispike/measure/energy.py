"""Operations, firing rates and joules: the papers' energy claim, counted contraction by contraction.

    energy = 0.9 pJ · additions + 4.6 pJ · multiply-accumulates (MACs)        45 nm, float32

Multiplying by a spike is adding or not adding. How many additions that makes is counted in three ways:

paper   rate · dense MACs: additions where spikes or integers enter, MACs where analog values do. The rate is
        the share of values that are not 0 (so Spike-driven Transformer, arXiv 2307.01694, defines it; of
        integers our reading). Every product in the order of the equation, (Q Kᵀ) V; what is computed once
        of a static image is charged T times. Spikformer (arXiv 2209.15425).
strict  the same, but what an integer enters is charged as MACs: only 0 and 1 multiply for free. The stream
        between the blocks holds integers, so this concerns q, k, v, fc1, and every mixer without attention.
events  what an event-driven machine would do for this input. A value k adds k times to each output that it
        reaches, borders excluded: Σ |k| · fan-out. An analog value costs one MAC for each, unless it is 0.

In a product of two signals one of them counts and the other is added. With q, k, v in {0, 1}:

    Q Kᵀ        Σ_c q_ic k_jc       one addition where both are 1: Σ_ic q_ic · #{j: k_jc = 1}
    A V         Σ_j A_ij v_jc       v_jc = 1 adds the integer A_ij, once: Σ_jc v_jc · #{i: A_ij ≠ 0}
    Q (KᵀV)     Σ_c q_ic M_ce       KᵀV as Q Kᵀ; then q_ic = 1 adds row c of M: Σ_ic q_ic · #{e: M_ce ≠ 0}

So the one most like a spike counts (binary before integer before analog; among equals, the one that makes
fewer additions, or the first), and its rate is the product's. `events` follows the order that was run.

A fixed transform has numbers of its own, and a spike adds a column of them: no product either. That direct
form reaches up to N (or N·D) outputs; the fast form needs few operations, but after its first stage all
values are analog: dense MACs, whatever the rate. `events` takes the one of less energy (our reading); `paper`
charges rate · fast form as additions, which no machine does.

A number times a contraction's input is taken out, W (a x) = a (W x): so the head's mean over N and T enters
as the sum that it is, and one division follows. Biases, batch norm (folded), neurons, residual additions and
pools are in no column, and sums over tokens are pools: so SASA's readings "global" and "channel", which only
multiply by such a sum, element by element, aggregate for nothing here. Nor is the movement of data in any,
which on real hardware usually costs more.
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
        """Return the energy in joules, for a table of picojoules an operation."""
        return 1e-12 * (picojoules["ac"] * self.ac + picojoules["mac"] * self.mac)


@dataclass
class Row:
    """One contraction of one run, all images and steps together.

    shapes: its inputs' and its output's.    parameters: how many numbers it holds, batch norm folded in.
    macs: dense, in the order of the run; paper_macs: dense, as `paper` counts them.
    kind, rate: of the input that counts in the run.
    """

    path: str
    op: str
    shapes: list[tuple[int, ...]]
    parameters: int
    macs: int
    kind: str
    rate: float
    events: Operations
    paper_macs: int = 0
    paper: Operations = Operations()
    strict: Operations = Operations()

    @property
    def label(self) -> str:
        """A short name of its own in the model, for a picture."""
        name = self.path.removeprefix("blocks.").removeprefix("stem.").removesuffix(".map")
        return name if self.parameters else f"{name} {self.op}"

    @property
    def part(self) -> str:
        """The part of the model that this row belongs to: one of PARTS."""
        return next((part for part in PARTS if part in self.path.split(".")), self.path)

    def charge(self, macs: int, kind: str, rate: float) -> None:
        """Fill the paper's two columns: so many dense MACs, entered by such values at such a rate."""
        additions, products = Operations(ac=rate * macs), Operations(mac=rate * macs)
        all = Operations(mac=macs)
        self.paper_macs = macs
        self.paper = all if kind == "analog" else additions
        self.strict = {"binary": additions, "integer": products, "analog": all}[kind]


@dataclass
class Count:
    """What `count` found: its rows in running order, for `images` images and `steps` time steps."""

    rows: list[Row]
    images: int
    steps: int
    picojoules: dict[str, float]

    def total(self, column: str, part: str | None = None) -> Operations:
        """Return the operations of one image in a column, in one part of the model or in all of it."""
        found = [getattr(row, column) for row in self.rows if part in (None, row.part)]
        total = sum(found, Operations())
        return Operations(total.ac / self.images, total.mac / self.images)

    def joules(self, column: str, part: str | None = None) -> float:
        """Return the energy of one image."""
        return self.total(column, part).joules(self.picojoules)

    def macs(self, part: str | None = None) -> float:
        """Return the dense MACs of one image and step, as the paper counts them."""
        found = (row.paper_macs for row in self.rows if part in (None, row.part))
        return sum(found) / (self.images * self.steps)

    def as_dict(self) -> dict:
        """Return everything as plain numbers, for JSON: the rows for all images, the totals for one."""
        totals = {c: asdict(self.total(c)) | {"joules": self.joules(c)} for c in COLUMNS}
        head = {"images": self.images, "steps": self.steps, "picojoules": self.picojoules}
        return head | {"macs_a_step": self.macs(), "totals": totals, "rows": [asdict(r) for r in self.rows]}

    def __str__(self) -> str:
        wide = max(len(row.path) for row in self.rows)

        def line(name, op, shape, numbers, macs, kind, rate, *joules):
            cells = f"{name:<{wide}} {op:<15} {shape:<17} {numbers:>9} {macs:>8} {kind:<7} {rate:>6}"
            return " ".join([cells, *(f"{nj:>9}" for nj in joules)])

        lines = [line("layer", "op", "output", "numbers", "MACs", "enters", "rate", *COLUMNS)]
        for row in self.rows:
            joules = [getattr(row, c).joules(self.picojoules) / self.images for c in COLUMNS]
            about = row.path, row.op, "×".join(map(str, row.shapes[-1])), f"{row.parameters:,}"
            enters = _short(row.paper_macs / self.images), row.kind, f"{row.rate:.1%}"
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
    """Run a model once on x in eval mode, batch norm folded, and count each of its contractions.

    x: images [B, H, W, C] or frames [T, B, H, W, C], in the model's dtype and on its device.
    picojoules: what an addition ("ac") and a multiply-accumulate ("mac") cost.
    An op is a contraction if it states its `cost`; its `fan_out` tells where values go.
    """
    x = as_tensor(x)
    frames = x.ndim == 5
    counter = _Counter(x, len(x) if frames else model.T, picojoules)
    with mode(model, training=False), no_grad(), trace(counter):
        model(x)
    return Count(counter.rows, x.shape[1] if frames else len(x), counter.steps, picojoules)


def kind_of(x: Array) -> str:
    """Return what the values of x are: "binary" (0 and 1), "integer" or "analog"."""
    xp = get_xp(x)
    if bool(((x == 0) | (x == 1)).all()):
        return "binary"
    return "integer" if bool((x == xp.rint(x)).all()) else "analog"


def entering(function, arrays: list[Array], signals: list[int]) -> tuple[str, float, int]:
    """Return (kind, rate, Σ |k| · fan-out) of the one among a contraction's signals that counts."""
    found = []
    for i, fan in enumerate(function.fan_out(*arrays, **function.constants)):
        if i in signals:
            kind, fires = kind_of(arrays[i]), arrays[i] != 0
            values = fires if kind == "analog" else abs(arrays[i])
            found.append((kind, float(fires.mean()), int((values * fan).sum(dtype="float64"))))
    return min(found, key=lambda each: (KINDS.index(each[0]), each[2]))


class _Counter:
    """What `trace` calls: follows the tensors that come from the input, and writes a row a contraction."""

    def __init__(self, x: Tensor, steps: int, picojoules: dict[str, float]):
        self.rows: list[Row] = []
        self.steps, self.picojoules = steps, picojoules
        self.signals = WeakKeyDictionary({x: x.ndim == 4})  # tensors from x: are they not yet spread over T?
        self.unscaled, self.products = WeakKeyDictionary(), WeakKeyDictionary()  # a·x: x;  a @ b: row, a, b

    def __call__(self, function, inputs, output, path):
        tensors = [x for x in inputs if isinstance(x, Tensor)]
        signals = [i for i, x in enumerate(tensors) if x in self.signals]
        if not signals:
            return
        static = self.signals[output] = any(self.signals[tensors[i]] for i in signals) and len(output) == 1
        if isinstance(function, Mul) and len(tensors) < len(inputs):
            self.unscaled[output] = tensors[0]
        if hasattr(function, "cost"):
            row = self.write(function, tensors, signals, output, path, self.steps if static else 1)
            if isinstance(function, MatMul) and len(signals) == 2:
                if tensors[1] in self.products:
                    self.as_written(function, row, tensors[0], *self.products[tensors[1]])
                self.products[output] = row, *tensors

    def write(self, function, tensors, signals, output, path, repeats) -> Row:
        arrays = [self.unscaled.get(x, x).data for x in tensors]
        shapes = [tuple(x.shape) for x in tensors]
        parameters = sum(x.data.size for i, x in enumerate(tensors) if i not in signals)
        macs = function.cost(*shapes, **function.constants)
        kind, rate, n = entering(function, arrays, signals)
        events = Operations(mac=n) if kind == "analog" else Operations(ac=n)
        if not parameters and len(signals) == 1:  # a fixed transform: spread directly, or the fast form
            events = min(events, Operations(mac=macs), key=lambda each: each.joules(self.picojoules))
        shapes.append(tuple(output.shape))
        row = Row(path, function.name, shapes, parameters, macs, kind, rate, events)
        row.charge(repeats * macs, kind, rate)
        self.rows.append(row)
        return row

    def as_written(self, function, row: Row, q: Tensor, first: Row, a: Tensor, b: Tensor) -> None:
        """Charge the rows of a b and of q (a b) as the equation has it: q a, and (q a) b."""
        scores = q.data @ a.data
        for each, x, w in ((first, q.data, a.data), (row, scores, b.data)):
            kind, rate, _ = entering(function, [x, w], [0, 1])
            each.charge(function.cost(x.shape, w.shape), kind, rate)
