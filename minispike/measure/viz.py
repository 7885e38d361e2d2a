"""Figures of what happens inside a model: rasters, membranes, attention maps, all through `trace`.

The drawing functions take matplotlib axes and plain host arrays, so they fit into any figure.
"""

from __future__ import annotations

from pathlib import Path

from ..autograd import no_grad, trace
from ..backend import Array, to_floats, to_host
from ..fused import NormaliseAndFire
from ..neuron import IntegrateAndFire
from ..nn import Module, mode

INK, BLUE, ORANGE, GREEN, GREY = "#222222", "#2a6fbb", "#e07b28", "#3a9a5b", "#9a9a9a"

# ---------------------------------------------------------------- look inside

NEURONS = IntegrateAndFire, NormaliseAndFire  # the ops whose outputs are spikes


def spikes_of(model: Module, x) -> dict[str, Array]:
    """Run the model once in eval mode; return each neuron layer's spikes [T, …] by path, in running order."""
    found: dict[str, Array] = {}

    def look(function, inputs, output, path):
        if isinstance(function, NEURONS):
            found[path] = to_host(output.data)

    with mode(model, training=False), no_grad(), trace(look):
        model(x)
    return found


def firing_rates(model: Module, x, batch_size: int | None = None) -> dict[str, float]:
    """Return the firing rate of every neuron layer, by path.

    The *firing rate* is the number of spikes per neuron and time step, of the neurons' own outputs: a number
    from 0 to 1, the mean over samples, neurons and steps. What a later pool, residual sum or product makes of
    the spikes does not count; for that see the active share (energy.py).

    batch_size: the number of samples that run at a time, and are held in memory; None for all.
    """
    rates: dict[str, float] = {}
    n = x.shape[-4]  # of [B, H, W, C] and of frames [T, B, H, W, C]

    def look(function, inputs, output, path):
        if isinstance(function, NEURONS):
            rates[path] = rates.get(path, 0.0) + piece.shape[-4] / n * output.data.mean().astype("float64")

    for first in range(0, n, batch_size or n):
        piece = x[..., first : first + (batch_size or n), :, :, :]
        with mode(model, training=False), no_grad(), trace(look):
            model(piece)
    return to_floats(rates)


def attention_map(spikes: dict[str, Array], mixer: str, num_heads: int) -> Array:
    """Return Q Kᵀ of one SSA as counts [T, B, heads, N, N], from the spikes that `spikes_of` found.

    mixer: the SSA's path, for example "blocks.0.mixer".
    """
    found = (spikes[f"{mixer}.{name}.neuron"] for name in "qk")  # [T, B, N, D] each
    q, k = (each.reshape(*each.shape[:3], num_heads, -1) for each in found)  # [T, B, N, h, d]
    return q.transpose(0, 1, 3, 2, 4) @ k.transpose(0, 1, 3, 4, 2)


# ---------------------------------------------------------------- draw


def canvas(size: tuple[float, float]):
    """Return an empty figure of a size in inches. ImportError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("figures need matplotlib: pip install 'minispike[lessons]'") from error
    return Figure(figsize=size, dpi=150, layout="constrained")


def figure(rows: int = 1, columns: int = 1, size: tuple[float, float] = (9, 4), **kwargs):
    """Return (figure, axes) in the lessons' style; kwargs as matplotlib's Figure.subplots."""
    fig = canvas(size)
    axes = fig.subplots(rows, columns, **kwargs)
    for ax in fig.axes:
        ax.spines[["top", "right"]].set_visible(False)
    return fig, axes


def save(fig, name: str) -> Path:
    """Write figures/<name>.png under the current directory, print and return its path.

    Where nothing can be written, as in a read-only folder, print why instead.
    """
    path = Path("figures") / f"{name}.png"
    try:
        path.parent.mkdir(exist_ok=True)
        fig.savefig(path)
    except OSError as error:
        print(f"figure not written: {error}")
    else:
        print(f"figure: {path}")
    return path


def raster(ax, spikes: Array, title: str = "") -> None:
    """Draw spikes [T, neurons] as ticks: time to the right, a row per neuron, firing rate in the title."""
    T, n = spikes.shape
    t, neuron = spikes.nonzero()
    ax.vlines(t, neuron - 0.4, neuron + 0.4, color=INK, linewidth=min(8, max(1.6, 48 / T)))
    ax.set(xlim=(-0.5, T - 0.5), ylim=(n - 0.5, -0.5), xlabel="time step", ylabel="neuron")
    ax.xaxis.get_major_locator().set_params(integer=True)
    rate = f"firing rate {spikes.mean():.0%}"
    ax.set_title(f"{title}\n{rate}" if title else rate)


def membrane(ax, h: Array, spikes: Array, v_threshold: float, title: str = "") -> None:
    """Draw one neuron's membrane potential h [T] before the reset, the threshold, and its spikes."""
    ax.plot(h, color=BLUE, marker="o", markersize=3)
    ax.axhline(v_threshold, color=GREY, linestyle="--", linewidth=1, label="threshold")
    fired = spikes.nonzero()[0]
    ax.scatter(fired, h[fired], color=ORANGE, zorder=3, label="spike")
    ax.set(xlabel="time step", ylabel="membrane H", title=title)


def heat(ax, values: Array, title: str = "", *, xlabel: str = "", ylabel: str = "", cmap: str = "viridis"):
    """Draw a matrix as an image with a colour bar."""
    image = ax.imshow(values, cmap=cmap, interpolation="nearest", aspect="auto")
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    ax.figure.colorbar(image, ax=ax, shrink=0.85)
    return image


def attention_over(ax, image: Array, weights: Array, token: int, title: str = "") -> None:
    """Draw one token's attention, weights [N] over a square grid, on top of its image [H, W]."""
    side = round(len(weights) ** 0.5)
    map_over(ax, image, weights.reshape(side, side), title, divmod(token, side))


def map_over(ax, image: Array, values: Array, title: str = "", at=None, top: float | None = None) -> None:
    """Draw the values [h, w] of a token grid on top of its image [H, W] or, in colour, [H, W, 3].

    The larger a value, the more orange its place; the further below 0, the more violet.
    at: the token (row, column) that gets a frame.    top: the value of full colour; None for the largest.
    """
    (height, width), (rows, columns) = image.shape[:2], values.shape
    ax.imshow(image, cmap="gray_r", alpha=0.6)
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    alpha = 0.75 * abs(values) / max(abs(values).max() if top is None else top, 1e-9)
    sign = (values > 0) * 2.0 - 1
    ax.imshow(0.6 * sign, cmap="PuOr_r", vmin=-1, vmax=1, alpha=alpha, extent=extent)
    if at is not None:
        x = [column * width / columns - 0.5 for column in (at[1], at[1] + 1)]
        y = [row * height / rows - 0.5 for row in (at[0], at[0] + 1)]
        ax.plot([x[0], x[1], x[1], x[0], x[0]], [y[0], y[0], y[1], y[1], y[0]], color=BLUE, linewidth=2)
    ax.set(xticks=[], yticks=[], title=title)


PARTS = {"stem": ORANGE, "mixer": BLUE, "mlp": GREEN, "head": GREY}


def layer_bars(axes, labels: list[str], parts: list[str], shares: list[float], joules: dict) -> None:
    """Draw two charts with one bar per layer: above the active share that enters, below the energy in nJ.

    parts: each layer's part of the model, a key of PARTS, which sets the colour.
    joules: {what is counted: energies}; the first is drawn pale and wide, the second full and narrow on it.
    """
    above, below = axes
    places, colors = range(len(labels)), [PARTS[part] for part in parts]
    above.bar(places, [100 * share for share in shares], color=colors)
    above.set(ylabel="active share, %", ylim=(0, 125), yticks=(0, 25, 50, 75, 100), xticks=places)
    above.set_xticklabels([])
    for values, alpha, width in zip(joules.values(), (0.35, 1), (0.85, 0.45), strict=False):
        below.bar(places, [1e9 * value for value in values], width, color=colors, alpha=alpha)
    below.set(ylabel="energy of an image, nJ")
    times = [
        labels[: i + 1].count(label) if labels.count(label) > 1 else "" for i, label in enumerate(labels)
    ]
    labels = [f"{label} {time}".rstrip() for label, time in zip(labels, times, strict=True)]
    below.set_xticks(places, labels, rotation=90, fontsize=8)
    for part, color in PARTS.items():
        above.bar(0, 0, color=color, label=part)
    for name, alpha in zip(joules, (0.35, 1), strict=False):
        below.bar(0, 0, color=INK, alpha=alpha, label=name)
    for ax in axes:
        ax.set_xlim(-0.6, len(labels) - 0.4)
        ax.legend(frameon=False, ncols=4)


def profile_bars(axes, rows) -> None:
    """Draw profile.Rows as two charts with one bar per layer: milliseconds forward and backward; MiB kept.

    The ops of a brick are added up.
    """
    times, memory = axes
    layers: dict[str, list] = {}
    for row in rows:
        place, _, part = row.path.rpartition(".")
        layer = place if part in ("map", "norm", "neuron") else row.path
        layers.setdefault(layer or "the model", []).append(row)
    forward, backward, kept = (
        [sum(getattr(row, name) for row in inside) for inside in layers.values()]
        for name in ("forward", "backward", "kept")
    )
    places = range(len(layers))
    times.barh(places, [1e3 * t for t in forward], color=BLUE, label="forward")
    ends = [1e3 * t for t in forward]
    times.barh(places, [1e3 * t for t in backward], left=ends, color=ORANGE, label="backward")
    times.set_yticks(places, layers)
    times.set(xlabel="milliseconds per training step", ylim=(len(layers) - 0.4, -0.6))
    times.legend(frameon=False)
    memory.barh(places, kept, color=GREEN)
    memory.set(xlabel="MiB kept for backward")


def curves(axes, history: list[dict]) -> None:
    """Draw a training's records: the loss on the first axes, the accuracy on the second, train and test.

    "Train" is the mean over an epoch, during which the model changes, on augmented images and with smoothed
    labels: it is often worse than "test".
    """
    epochs = [record["epoch"] for record in history]
    for ax, name, scale, unit in zip(axes, ("loss", "accuracy"), (1, 100), ("", ", %"), strict=False):
        for key, color, label in ((name, BLUE, "train, while learning"), (f"test_{name}", ORANGE, "test")):
            if key in history[-1]:
                values = [scale * record[key] for record in history]
                marker = "o" if len(epochs) < 40 else ""
                ax.plot(epochs, values, marker=marker, markersize=4, color=color, linewidth=2)
                last = f"{label}: {values[-1]:.1f}" if unit else f"{label}: {values[-1]:.2f}"
                ax.plot([], [], color=color, linewidth=2, label=last)
        ax.set(xlabel="epoch", ylabel=f"{name}{unit}")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.legend(frameon=False, loc="lower right" if unit else "upper right")


def rate_bars(ax, rates: dict[str, float], before: dict[str, float], now: str, then: str) -> None:
    """Draw each neuron layer's firing rate as a bar in its part's colour, with a mark for an earlier rate.

    rates, before: by path, as `firing_rates` returns them.    now, then: the names of the two.
    """
    places = range(len(rates))
    parts = [next((part for part in PARTS if part in path.split(".")), "head") for path in rates]
    percent, earlier = ([100 * each[path] for path in rates] for each in (rates, before))
    ax.barh(places, percent, color=[PARTS[part] for part in parts])
    ax.scatter(earlier, places, marker="|", s=120, color=INK, label=then)
    for place, value in zip(places, percent, strict=True):  # in a column at the right
        ax.text(1, place, f"{value:.1f}", transform=ax.get_yaxis_transform(), ha="right", va="center")
    for part in dict.fromkeys(parts):
        ax.barh(0, 0, color=PARTS[part], label=f"{part}, {now}")
    ax.set_yticks(places, [path.removesuffix(".neuron").removeprefix("blocks.") for path in rates])
    ax.set(xlim=(0, 1.15 * max(*percent, *earlier, 1)), ylim=(len(rates) - 0.4, -0.6))
    ax.set_xlabel("firing rate, %")
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
