"""What a model does with one sample: its spikes, what its mixer mixes, and where a block's neurons fire.

`look(model, x, block)` runs the sample and keeps what is drawn. `mixing(inside)` says with a few maps over
the token grid which tokens reach which. `draw(inside, …)` makes one figure of everything.

What a map shows depends on the mixer, and sums over all time steps:

    SSA          row i of Q Kᵀ: in how many channels query i and key j fire together
    SASA         the same. Pool: with a cell of r×r keys. Global, Q ⊙ Σ_j K: row i says from which keys its
                 sum comes. Channel compares no tokens: a map is the share of steps in which a head passes
                 each token
    a transform  has no Q and K. Row k of its matrix: the weight of each token in output k; for the outputs
                 that are largest for this sample. A transform that also mixes channels (2-D Fourier) has no
                 such matrix, so its coefficients are shown
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..autograd import Tensor, no_grad, trace
from ..backend import HOST, Array, to_host
from ..blocks.control import MaxPoolMix
from ..blocks.sasa import SASA, Channel, Pool
from ..blocks.ssa import SSA, split_heads
from ..models import SpikingTransformer
from ..nn import Spiking, mode
from . import viz

xp = HOST.xp
MAPS = 3  # how many tokens or outputs have a map
STEPS = 4  # how many time steps of the stem are drawn
CLASSES = 10  # how many classes have a bar

# ---------------------------------------------------------------- look


@dataclass
class Inside:
    """What one sample does in a model. All arrays are on the host.

    tokens: what leaves the stem, [T, 1, N, D].    entering: what enters the block's mixer, [T, 1, N, D].
    spikes: of the block's neuron layers, by path inside the block.    probabilities: [classes].
    """

    model: SpikingTransformer
    block: int
    tokens: Array
    entering: Array
    spikes: dict[str, Array]
    probabilities: Array

    @property
    def grid(self) -> tuple[int, int]:
        """The token grid (height, width)."""
        return self.model.config.grid

    @property
    def mixer(self):
        """The block's mixer."""
        return self.model.blocks[self.block].mixer

    def rates(self) -> dict[str, float]:
        """Return the firing rate of each neuron layer of the block (see viz.firing_rates)."""
        return {path: float(spikes.mean()) for path, spikes in self.spikes.items()}

    def places(self, path: str) -> Array:
        """Return the firing rate at each position of the grid, [h, w], of one neuron layer of the block."""
        spikes = self.spikes[path]
        if path.endswith("attention"):  # [T, B, heads, N, d]
            return spikes.mean((0, 1, 2, 4)).reshape(self.grid)
        return spikes.reshape(len(spikes), *self.grid, -1).mean((0, 3))  # [T, B, N, D] or [T, B, h, w, D]


def look(model: SpikingTransformer, x, block: int = 0) -> Inside:
    """Run one sample in eval mode and return what it does.

    x: an image [1, H, W, C] or frames [T, 1, H, W, C], in the model's dtype and on its device.
    ValueError for another number of samples, or for a block that the model does not have.
    """
    if x.ndim not in (4, 5) or x.shape[-4] != 1:
        raise ValueError(f"expected one sample, [1, H, W, C] or [T, 1, H, W, C], got {list(x.shape)}")
    if not 0 <= block < len(model.blocks):
        raise ValueError(f"no block {block}: the model has {len(model.blocks)}, counted from 0")
    kept, spikes, start = {}, {}, f"blocks.{block}."

    def note(function, inputs, output, path):
        if path.startswith("stem"):
            kept["tokens"] = kept["entering"] = output.data
        elif path == f"blocks.{block - 1}":
            kept["entering"] = output.data
        if isinstance(function, viz.NEURONS) and path.startswith(start):
            spikes[path.removeprefix(start).removesuffix(".neuron")] = to_host(output.data)

    with mode(model, training=False), no_grad(), trace(note):
        logits = to_host(model(x).data)[0].astype("float64")
    p = xp.exp(logits - logits.max())
    return Inside(model, block, *(to_host(kept[k]) for k in ("tokens", "entering")), spikes, p / p.sum())


# ---------------------------------------------------------------- what the mixer mixes


@dataclass
class Mixing:
    """What a block's mixer mixes for one sample.

    about: a sentence.    maps: (title, values [h, w], the framed token (row, column) or None).
    matrix: all values, with the names of its columns, its rows and its values; or None.
    """

    about: str
    maps: list[tuple[str, Array, tuple[int, int] | None]] = field(default_factory=list)
    matrix: Array | None = None
    names: tuple[str, str, str] = ("token", "output", "weight")


def mixing(inside: Inside, head: int | None = None) -> Mixing:
    """Return what the block's mixer mixes; see the top of this file.

    head: one head of the attention; None for all heads together.
    ValueError for a head that the mixer does not have, and for a mixer of one's own.
    """
    mixer, heads = inside.mixer, getattr(inside.mixer, "num_heads", 0)
    if head is not None and not 0 <= head < heads:
        has = f"has {heads} heads, counted from 0" if heads else "has no heads"
        raise ValueError(f"no head {head}: the mixer of block {inside.block} {has}")
    if isinstance(mixer, (SSA, SASA)):
        return attention(inside, head)
    if isinstance(mixer, Spiking) and not isinstance(mixer.map, MaxPoolMix):  # LIF(BN(transform x))
        return fixed(inside)
    raise ValueError(f"what a {type(mixer).__name__} mixes cannot be shown: it is none of the papers' mixers")


def attention(inside: Inside, head: int | None) -> Mixing:
    """Return the maps of SSA or SASA."""
    mixer, grid = inside.mixer, inside.grid
    found = (Tensor(inside.spikes[f"mixer.{name}"]) for name in "qk")
    q, k = (split_heads(each, mixer.num_heads) for each in found)  # [T, 1, heads, N, d]
    chosen = slice(None) if head is None else slice(head, head + 1)
    which = "all heads" if head is None else f"head {head}"
    aggregate = getattr(mixer, "aggregate", None)
    if isinstance(aggregate, Channel):
        passed = inside.spikes["mixer.aggregate.attention"].mean((0, 1, 4))[chosen]  # [heads, N]
        first = head or 0
        maps = [
            (f"head {first + i}: {each.mean():.0%}", each.reshape(grid), None)
            for i, each in enumerate(passed[:4])
        ]
        return Mixing("SASA, Channel: the share of steps in which a head passes a token's K", maps)
    product, keys = "Q Kᵀ", "each key"
    if isinstance(aggregate, Pool):
        k, r = aggregate.sums(k), aggregate.r
        product, keys = "Q K_Aᵀ", f"the keys of {r}×{r} tokens"
    counts = (q.data @ k.data.swapaxes(3, 4))[:, 0, chosen].sum((0, 1))  # [N, n]
    maps = []
    for token in spread(counts.sum(1), grid):
        at = divmod(token, grid[1])
        values = counts[token]
        if isinstance(aggregate, Pool):
            values = values.reshape(grid[0] // r, grid[1] // r).repeat(r, 0).repeat(r, 1)
        maps.append((f"query {at}: {counts[token].sum():.0f}", values.reshape(grid), at))
    name = f"SASA, {type(aggregate).__name__}" if aggregate else "SSA"
    about = f"{name}: {product} counts where a query (framed) and {keys} fire together; {which}, all steps"
    columns = f"{r}×{r} keys" if isinstance(aggregate, Pool) else "key"
    return Mixing(about, maps, counts, (columns, "query", "spikes that meet"))


def fixed(inside: Inside) -> Mixing:
    """Return the maps of a transform, or its coefficients if it mixes channels, too."""
    name, N = inside.model.config.mixer, inside.tokens.shape[2]
    dtype = inside.entering.dtype
    impulses = xp.zeros((N, N, 2), dtype)
    impulses[xp.arange(N), xp.arange(N), 0] = 1  # sample j: token j, in the first of two channels
    with no_grad():
        reached = to_host(inside.mixer.map(impulses).data)  # [j, outputs k, channels]
        coefficients = to_host(inside.mixer.map(inside.entering).data)[:, 0]  # [T, N, D]
    start = f"{name} has no Q and K: it mixes every image alike"
    if abs(reached[..., 1]).max() > 1e-6:
        about = f"{start}, over tokens and channels. Its coefficients, mean of all steps"
        return Mixing(about, [], coefficients.mean(0), ("channel", "output", "coefficient"))
    matrix, chosen = reached[..., 0].T, []
    for k in xp.argsort(-abs(coefficients).mean((0, 2)), kind="stable").tolist():
        if len(chosen) < MAPS and all(abs(matrix[k] - matrix[other]).max() > 1e-6 for other in chosen):
            chosen.append(k)
    maps = [(f"output {k}", matrix[k].reshape(inside.grid), divmod(k, inside.grid[1])) for k in chosen]
    return Mixing(
        f"{start}. Each token's weight in the largest outputs (framed: an output's place)", maps, matrix
    )


def spread(strength: Array, grid: tuple[int, int]) -> Iterator[int]:
    """Yield a few tokens of great strength [N] that lie far apart, the strongest first."""
    places = xp.array([divmod(token, grid[1]) for token in range(len(strength))])
    distance = xp.ones(len(strength))
    for number in range(min(MAPS, len(strength))):
        token = int(xp.argmax((strength + 1e-6) * distance))
        yield token
        apart = xp.hypot(*(places - places[token]).T)
        distance = xp.minimum(distance, apart) if number else apart


# ---------------------------------------------------------------- draw


def draw(inside: Inside, picture: Array, mixed: Mixing, title: str, classes: list[str], label: int | None):
    """Return one figure of a sample: picture, stem and classes; what the mixer mixes; where neurons fire.

    picture: [H, W], or [H, W, 3] from 0 to 1.    label: the true class, or None if it is not known.
    """
    fig = viz.canvas((12.5, 8.4))
    above, middle, below = fig.subfigures(3, 1, height_ratios=(1.1, 1.15, 0.95))
    for part, text in (
        (above, title),
        (middle, f"Block {inside.block} mixes. {mixed.about}"),
        (below, f"Block {inside.block} fires. Firing rate: spikes per neuron and step, at each position"),
    ):
        part.suptitle(text, x=0.01, ha="left", fontsize=10.5, color=viz.INK, fontweight="bold")
    draw_sample(above, inside, picture, classes, label)
    draw_mixing(middle, inside, picture, mixed)
    draw_rates(below, inside)
    return fig


def draw_sample(part, inside: Inside, picture: Array, classes: list[str], label: int | None) -> None:
    tokens = inside.tokens[:, 0].mean(2).reshape(len(inside.tokens), *inside.grid)  # [T, h, w]
    steps = xp.unique(xp.linspace(0, len(tokens) - 1, STEPS).round().astype(int))
    first, *maps, last = part.subplots(1, len(steps) + 2, width_ratios=(1.1, *[1] * len(steps), 1.3))
    first.imshow(picture, cmap="gray_r")
    first.set(xticks=[], yticks=[], title="the picture")
    for ax, t in zip(maps, steps, strict=True):
        image = ax.imshow(tokens[t], cmap="Blues", vmin=0, vmax=max(tokens.max(), 1e-9))
        ax.set(xticks=[], yticks=[], title=f"stem, step {t}")
    part.colorbar(image, ax=maps, shrink=0.75, label="spikes per channel", pad=0.01)
    p = inside.probabilities
    order = xp.argsort(-p, kind="stable")[:CLASSES]
    colors = [viz.ORANGE if i == label else viz.GREY for i in order]
    last.barh(range(len(order)), 100 * p[order], color=colors)
    last.set_yticks(range(len(order)), [classes[i] for i in order])
    for place, i in enumerate(order):
        last.text(100 * p[i] + 2, place, f"{p[i]:.1%}", va="center", fontsize=8)
    known = "" if label is None else "; orange: the label"
    last.set(xlim=(0, 125), ylim=(len(order) - 0.4, -0.6), xticks=[0, 50, 100])
    last.set(xlabel=f"%{known}", title="class probabilities")
    last.spines[["top", "right"]].set_visible(False)


def draw_mixing(part, inside: Inside, picture: Array, mixed: Mixing) -> None:
    wide = mixed.matrix is not None
    axes = part.subplots(1, len(mixed.maps) + wide, squeeze=False)[0]
    top = max((abs(values).max() for _, values, _ in mixed.maps), default=0)  # one scale for all maps
    for ax, (title, values, at) in zip(axes, mixed.maps, strict=False):
        viz.map_over(ax, picture, values, title, at, top)
    if wide:
        ax, (across, down, what) = axes[-1], mixed.names
        limit, signed = max(xp.quantile(abs(mixed.matrix), 0.995), 1e-9), (mixed.matrix < 0).any()
        limits = dict(cmap="PuOr_r", vmin=-limit) if signed else dict(cmap="Oranges", vmin=0)
        image = ax.imshow(mixed.matrix, aspect="auto", interpolation="nearest", vmax=limit, **limits)
        ax.set(xlabel=across, ylabel=down, title="all of them" if mixed.maps else "")
        for axis in (ax.xaxis, ax.yaxis):
            axis.get_major_locator().set_params(integer=True)
        part.colorbar(image, ax=ax, shrink=0.85, label=what)


def short(path: str) -> str:
    """Return a neuron layer's name in a figure, from its path inside the block."""
    return path.removeprefix("mixer.").removeprefix("aggregate.").removesuffix(".conv")


def draw_rates(part, inside: Inside) -> None:
    rates = inside.rates()
    maps = {path: 100 * inside.places(path) for path in rates}
    axes = part.subplots(1, len(maps), squeeze=False)[0]
    top = max(max(each.max() for each in maps.values()), 1e-9)
    for ax, (path, values) in zip(axes, maps.items(), strict=True):
        image = ax.imshow(values, cmap="Greens", vmin=0, vmax=top)
        name = short(path)
        ax.set(xticks=[], yticks=[], title=f"{name}\n{rates[path]:.1%}")
    part.colorbar(image, ax=list(axes), shrink=0.75, label="firing rate, %", pad=0.01)
