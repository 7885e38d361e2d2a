"""A run: a folder that holds one training, and can be resumed after any crash or kill.

    config.json                        the recipe
    checkpoint.safetensors             model, optimizer, progress, generators: all that the next step needs
    checkpoint.previous.safetensors    the checkpoint before it
    metrics.csv, rates.csv             one row per epoch, both written from the checkpoint's own history
    curves.png, rates.png              the same, drawn
    data.json                          for one's own data: the samples, and how they are split
    .lock                              held by the process that trains here

A batch depends on (seed, epoch, step) alone. So from a checkpoint between two steps a run goes on bit for bit
as if it had never stopped: with the same number of threads, which the recipe stores, and on the same machine
with the same NumPy.
"""

from __future__ import annotations

import csv
import sys
from contextlib import contextmanager
from dataclasses import asdict, replace
from io import BytesIO, StringIO
from pathlib import Path

from ..backend import all_finite
from ..files.checkpoint import Saved, header_length, load_all, save, write_durably
from ..files.torchfile import SIGNATURE, FileFormatError, what_it_is
from ..measure import viz
from ..nn import Module
from ..optim import AdamW
from ..parallel import get_threads
from ..train import Progress
from .recipes import Recipe

try:
    import fcntl
except ImportError:  # on Windows nothing keeps a second process out
    fcntl = None


class Run:
    """A run's folder and its recipe."""

    def __init__(self, folder: str | Path, recipe: Recipe):
        self.folder, self.recipe = Path(folder), recipe
        self.checkpoint = self.folder / "checkpoint.safetensors"
        self.previous = self.folder / "checkpoint.previous.safetensors"
        self.metrics, self.rates = self.folder / "metrics.csv", self.folder / "rates.csv"
        self.damaged = False  # whether the newest checkpoint is damaged; then it is not kept as previous
        self.seen = self.stamp()  # the checkpoint that this process knows of
        self.kept = ""  # the moment of the newest checkpoint that is whole, as far as this process knows
        self.data: dict = {}  # what its checkpoints say of the data: class names, how images are prepared

    def absent(self) -> Run:
        """Return self. FileExistsError if the folder holds a run, NotADirectoryError if it is a file.

        A run without a checkpoint has not begun: another one may take its folder.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise NotADirectoryError(f"{self.folder} is a file: a run needs a folder")
        if self.checkpoint.exists() or self.previous.exists():
            whole = (self.folder / "config.json").exists()
            state = f": go on with it by --resume {self.folder}, or" if whole else " without its config.json:"
            raise FileExistsError(f"{self.folder} holds a run{state} choose another --out")
        return self

    @classmethod
    def create(cls, folder: str | Path, recipe: Recipe) -> Run:
        """Make the folder and write the recipe into it. FileExistsError if it holds a run."""
        run = cls(folder, replace(recipe, threads=recipe.threads or get_threads())).absent()
        run.folder.mkdir(parents=True, exist_ok=True)
        with run.locked():
            run.absent().write_recipe()  # another process may have been faster
        return run

    def write_recipe(self) -> None:
        """Write config.json."""
        write_durably(self.folder / "config.json", self.recipe.to_json().encode())

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """Return a folder's run. FileFormatError for a foreign config.

        FileNotFoundError, which says what is there instead, without a run.
        """
        path = Path(folder) / "config.json"
        if not path.is_file():
            raise FileNotFoundError(_what_is_no_run(Path(folder)))
        try:
            return cls(folder, Recipe.from_json(path.read_text("utf-8")))
        except ValueError as error:
            raise FileFormatError(f"{path}: {error}") from error

    @contextmanager
    def locked(self):
        """Hold the run for this process, at most as long as the process lives.

        Raises BlockingIOError if another process holds it, or has trained since this one read its checkpoint.
        """
        with (self.folder / ".lock").open("a") as file:
            try:
                if fcntl:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BlockingIOError(f"another process is training in {self.folder}") from error
            if self.stamp() != self.seen:
                raise BlockingIOError(f"another process has just trained in {self.folder}: --resume it again")
            yield

    # ------------------------------------------------------------ checkpoints

    def stamp(self) -> tuple[int, int] | None:
        """Return what identifies the newest checkpoint's file, or None without one."""
        if not self.checkpoint.exists():
            return None
        status = self.checkpoint.stat()
        return status.st_ino, status.st_mtime_ns

    def save(self, model: Module, optimizer: AdamW, progress: Progress, generators: dict) -> None:
        """Write a checkpoint and keep the one before it. FloatingPointError for a model with NaN or Inf."""
        arrays = model.state_dict()
        if not all_finite(*arrays.values()):
            first = next(path for path, array in arrays.items() if not all_finite(array))
            where = moment(progress)
            raise FloatingPointError(f"training stopped at {where}: NaN or Inf first in {first}")
        states = {name: rng.bit_generator.state for name, rng in generators.items()}
        training = {"recipe": asdict(self.recipe), "progress": asdict(progress), "generators": states}
        training["data"] = self.data
        previous = None if self.damaged else self.previous
        save(model, self.checkpoint, optimizer=optimizer, training=training, previous=previous)
        self.damaged, self.seen, self.kept = False, self.stamp(), moment(progress)

    def newest(self) -> Saved | None:
        """Return the newest checkpoint that can be read, with a warning if it is not the last one.

        None before the first checkpoint. FileFormatError if none of the existing ones can be used.
        """
        errors, self.seen = [], self.stamp()
        for path in (self.checkpoint, self.previous):
            if not path.exists():
                continue
            try:
                saved = self.read(path)
            except FileFormatError as error:
                errors.append(str(error))
                continue
            self.damaged, self.kept = bool(errors), moment(Progress(**saved.training["progress"]))
            for error in errors:
                print(f"warning: {error}; going back to {path.name}", file=sys.stderr)
            return saved
        if errors:
            raise FileFormatError(f"no checkpoint in {self.folder} can be used: " + "; ".join(errors))
        return None

    def read(self, path: str | Path) -> Saved:
        """Return a checkpoint of this run. FileFormatError for a damaged file, or one of another training."""
        saved = load_all(path)
        if "recipe" not in saved.training or not saved.optimizer:
            raise FileFormatError(f"{path}: holds a model, but no training to go on with")
        try:
            theirs = Recipe.from_dict(saved.training["recipe"])
        except (ValueError, TypeError) as error:
            raise FileFormatError(f"{path}: {error}") from error
        odd = [name for name in self.recipe.differences(theirs) if name != "root"]
        if odd:
            raise FileFormatError(f"{path}: belongs to another run; the recipes differ in {', '.join(odd)}")
        return saved

    # ------------------------------------------------------------ tables and figures

    def write_tables(self, history: list[dict]) -> None:
        """Write metrics.csv and rates.csv."""
        plain = [{key: value for key, value in record.items() if key != "rates"} for record in history]
        rates = [{"epoch": record["epoch"], **record["rates"]} for record in history if "rates" in record]
        for path, rows in ((self.metrics, plain), (self.rates, rates)):
            if rows:
                text = StringIO(newline="")
                writer = csv.DictWriter(text, list(rows[-1]))  # an older version's rows may have fewer
                writer.writeheader()
                writer.writerows(rows)
                write_durably(path, text.getvalue().encode())

    def read_metrics(self) -> list[dict[str, float]]:
        """Return the rows of metrics.csv, none before the first epoch. FileFormatError for a damaged file."""
        return read_table(self.metrics)

    def read_rates(self) -> list[dict[str, float]]:
        """Return the rows of rates.csv, none before the first epoch. FileFormatError for a damaged file."""
        return read_table(self.rates)

    def draw(self, history: list[dict]) -> None:
        """Draw curves.png and rates.png from the history so far."""
        scored = "accuracy" in history[-1]
        fig, axes = viz.figure(1, 1 + scored, size=(4.8 * (1 + scored), 3.6), squeeze=False)
        viz.curves(axes[0], history)
        pictures = {"curves.png": fig}
        if "rates" in history[-1]:
            first, last = next(record for record in history if "rates" in record), history[-1]
            fig, ax = viz.figure(size=(7.5, 1.6 + 0.24 * len(last["rates"])))
            viz.rate_bars(
                ax, last["rates"], first["rates"], f"epoch {last['epoch']}", f"epoch {first['epoch']}"
            )
            pictures["rates.png"] = fig
        for name, fig in pictures.items():
            write_figure(fig, self.folder / name)


def _what_is_no_run(folder: Path) -> str:
    """Return in words what is at the place of a run's folder."""
    if folder.is_file():
        with folder.open("rb") as file:
            start = file.read(SIGNATURE)
        uses = f"info {folder} counts what it does, evaluate RUN --checkpoint {folder} tests it"
        what = f"a model's file: {uses}" if header_length(start) else what_it_is(start)
        return f"{folder} is no run, which is a folder that train makes, but {what}"
    if not folder.is_dir():
        return f"no run in {folder}: there is no such folder"
    names = sorted(path.name for path in folder.iterdir())
    there = ", ".join(names[:6]) + (", …" if len(names) > 6 else "") if names else "nothing"
    return f"no run in {folder}: there is no {folder / 'config.json'}; the folder holds {there}"


def moment(progress: Progress) -> str:
    """Return what a training had done at a moment, as text."""
    if progress.step:
        return f"epoch {progress.epoch + 1}, step {progress.step}"
    return f"the end of epoch {progress.epoch}"


def write_figure(fig, path: str | Path) -> None:
    """Write a figure, in the format that the file's suffix names: all of it, or nothing."""
    image = BytesIO()
    fig.savefig(image, format=Path(path).suffix[1:] or "png")
    write_durably(path, image.getvalue())


def saved_at(source: str | Path) -> Saved:
    """Return the newest checkpoint of a run's folder, or what a .safetensors file holds.

    FileNotFoundError for a run without a checkpoint, FileFormatError for a file of another kind.
    """
    path = Path(source).expanduser()
    saved = Run.open(path).newest() if path.is_dir() else load_all(path)
    if saved is None:
        raise FileNotFoundError(f"the run {source} has no checkpoint yet")
    return saved


NOT_YET = ("additions", "")  # in the rows that an older version wrote


def read_table(path: Path) -> list[dict[str, float]]:
    """Return the rows of a CSV file of numbers, none without a file. FileFormatError for a damaged file."""
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            return [{key: float(row[key]) for key in row if (key, row[key]) != NOT_YET} for row in rows]
    except (ValueError, TypeError) as error:  # TypeError: a row too long or too short
        raise FileFormatError(f"{path}: not as it was written; --resume writes it again") from error
