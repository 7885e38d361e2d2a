"""Runs next to each other: what each of them reached, what it cost, and their curves over the epochs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..files.torchfile import FileFormatError
from ..measure import viz
from ..measure.energy import count
from ..models import SpikingTransformer
from .folder import Run

COLUMNS = ("run", "model", "T", "epoch", "test loss", "accuracy", "fire", "energy, nJ", "seconds")


@dataclass
class Compared:
    """What is compared of one run: its recipe's model, its history per epoch, and its last epoch's energy.

    rates: the mean firing rate of all neuron layers, after each epoch.    nanojoules: of one image, as the
    papers count.
    """

    name: str
    model: str
    T: int
    history: list[dict]
    rates: list[float]
    nanojoules: float

    def row(self) -> list[str]:
        """Return the run's row of the table."""
        last = self.history[-1]
        seconds = sum(record["seconds"] for record in self.history)
        numbers = [
            f"{self.T}",
            f"{last['epoch']:.0f}",
            f"{last['test_loss']:.3f}",
            f"{last['test_accuracy']:.1%}",
        ]
        return [
            self.name,
            self.model,
            *numbers,
            f"{self.rates[-1]:.1%}",
            f"{self.nanojoules:,.0f}",
            f"{seconds:.0f}",
        ]


def read_run(folder: str | Path, sample_of) -> Compared:
    """Return what is compared of a run.

    sample_of: sample_of(run) gives test images, on which the last checkpoint's energy is counted.
    Raises ValueError for a run without a complete epoch, or of pre-training, which has no accuracy.
    """
    run = Run.open(folder)
    saved, history = run.newest(), run.read_metrics()
    if saved is None or not history:
        raise ValueError(f"{folder} has no complete epoch yet")
    if not isinstance(saved.model, SpikingTransformer):
        raise ValueError(f"{folder} holds a pre-trained encoder, which has no accuracy to compare")
    rates = [sum(row[key] for key in row if key != "epoch") / (len(row) - 1) for row in run.read_rates()]
    if len(rates) != len(history):
        raise FileFormatError(
            f"{run.rates}: its epochs are not those of {run.metrics}; --resume writes both again"
        )
    found = count(saved.model, sample_of(run).astype(saved.model.head.weight.dtype))
    name = Path(folder).resolve().name
    return Compared(name, run.recipe.model, run.recipe.T, history, rates, 1e9 * found.joules("paper"))


def table(runs: list[Compared]) -> str:
    """Return the runs as aligned text, one line each."""
    rows = [list(COLUMNS), *(run.row() for run in runs)]
    wide = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(w) if i < 2 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, wide, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def draw(runs: list[Compared]):
    """Return a figure of the runs' curves: accuracy, loss, firing rate, seconds per epoch, energy."""
    fig, axes = viz.figure(2, 3, size=(12, 6.4))
    for number, run in enumerate(runs):
        epochs, color = [record["epoch"] for record in run.history], f"C{number}"
        curves = {
            "test accuracy, %": [100 * record["test_accuracy"] for record in run.history],
            "test loss": [record["test_loss"] for record in run.history],
            "neurons that fire, %": [100 * rate for rate in run.rates],
            "seconds per epoch": [record["seconds"] for record in run.history],
        }
        for ax, (name, values) in zip(axes.flat, curves.items(), strict=False):
            ax.plot(epochs, values, color=color, marker="o" if len(epochs) < 40 else "", markersize=4)
            ax.set(xlabel="epoch", ylabel=name)
            ax.xaxis.get_major_locator().set_params(integer=True)
        axes[1, 1].bar(number, run.nanojoules, color=color)
        axes[1, 2].plot([], [], color=color, linewidth=3, label=f"{run.name}: {run.model}")
    axes[1, 1].set(ylabel="energy of an image, nJ", xticks=[])
    axes[1, 2].axis("off")
    axes[1, 2].legend(frameon=False, loc="upper left")
    return fig
