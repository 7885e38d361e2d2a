"""The command line: train, pretrain, evaluate, predict, show, compare, info, profile and import."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import fields, replace
from functools import partial
from math import ceil
from pathlib import Path
from shlex import quote

import numpy as np
from tqdm import tqdm

from data_utils.datasets import NAMES, open_data
from data_utils.loader import Prefetch
from data_utils.own.description import Description
from data_utils.own.pictures import Pictures

from ..backend import make_rng, to_device
from ..files.checkpoint import DiskFull, Saved, save
from ..files.interop import load_official
from ..files.torchfile import FileFormatError
from ..kernels.compiled import tell_what_is_missing
from ..measure import viz
from ..measure.energy import Count, count
from ..measure.profile import as_dicts, profile, table
from ..models import SpikingTransformer, configuration, create_model, list_models
from ..parallel import keep_freed_memory, set_threads
from ..train import evaluate
from . import compare, show
from . import own as own_data
from .folder import Run, saved_at, write_figure
from .recipes import CHOICES, CLASSIFY, KINDS, MASKED, PRETRAINING, RECIPES, Recipe, resolve
from .session import SAMPLE, Stop, build, check_fit, check_step_fits, set_products, train, warnings_about

LOSS_BOUND, POINTS_BOUND = 0.01, 1.0  # how far an evaluation may be from metrics.csv on another processor


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the process's exit code.

    0: done. 1: an error, after a message that says what was wrong. 130 after Ctrl-C, 143 after SIGTERM (128
    and the signal's number, as shells count).
    """
    args = make_parser().parse_args(arguments)
    try:
        args.run(args)
    except (FileFormatError, ImportError, ValueError, OSError, FloatingPointError, MemoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Stop as stop:  # what to do next is printed already
        return 128 + stop.number
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    about = {"prog": "python -m minispike", "description": "Spiking transformers in NumPy."}
    parser = argparse.ArgumentParser(**about, allow_abbrev=False)
    whole_names = partial(argparse.ArgumentParser, allow_abbrev=False)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="command", parser_class=whole_names
    )
    add_training(commands, "train", RECIPES, "train a model, or go on with a run that was stopped or killed")
    pretraining = "train an encoder on images with hidden patches, from which train --init can start"
    add_training(commands, "pretrain", PRETRAINING, pretraining)
    add_evaluation(commands)
    add_prediction(commands)
    add_show(commands)
    add_comparison(commands)
    add_tools(commands)
    return parser


# ---------------------------------------------------------------- training


def add_training(commands, name: str, recipes: dict, what: str) -> None:
    """Add the command train or pretrain, with an option for each field of a recipe."""
    parser = commands.add_parser(name, help=what, description=what)
    parser.set_defaults(run=run_training, recipes=recipes)
    parser.add_argument("--out", metavar="RUN", help="the new run's folder")
    again = "go on with a run; it keeps its recipe, epochs included, because its schedule depends on them"
    parser.add_argument("--resume", metavar="RUN", help=again)
    names = f"the source of all other settings, by default --data: {', '.join(recipes)}"
    parser.add_argument("--recipe", metavar="NAME", choices=list(recipes), help=names)
    group = parser.add_argument_group("fields of the recipe")
    for entry in fields(Recipe):
        if entry.name != "objective":  # the command decides it
            kind, text = KINDS[entry.type], entry.metadata["help"]
            text += f": {', '.join(NAMES)}" if entry.name == "data" else ""
            metavar = {int: "N", float: "X", str: "NAME"}[kind]
            group.add_argument("--" + entry.name.replace("_", "-"), type=kind, metavar=metavar, help=text)


def run_training(args) -> None:
    run, saved, own = begin(args)
    batches, test, classes = data_of(run.recipe, own)
    model = saved.model if saved else build(run.recipe, classes)
    sample, _ = test.spread(SAMPLE)
    check_fit(model, sample, run.recipe)
    run.recipe = fitted(run.recipe, batches)
    check_step_fits(model, sample, run.recipe)
    model.to(run.recipe.device)
    if args.out:  # only now, when all checks are done
        for warning in warnings_about(model, run.recipe, changes(args)):
            print(f"note: {warning}", file=sys.stderr)
        run = Run.create(args.out, replace(run.recipe, T=model.T, **absolute(run.recipe)))
        if own:
            own_data.write_own(run, own)
    elif args.root:
        run.recipe = replace(run.recipe, root=absolute(run.recipe)["root"])
        with run.locked():
            run.write_recipe()
    if own:
        run.data = own.for_predictions()
    tell_what_is_missing()
    recipe, here = run.recipe, quote(str(run.folder))
    print(f"{recipe.model}: {model.num_params():,} parameters, T = {recipe.T}, {recipe.threads} threads")
    print(what_is_ahead(run, len(batches), saved))
    if own:
        print(own_data.summary(own, test))
    try:
        shown = {"sample": sample, "progress": sys.stderr.isatty()}
        train(run, model, Prefetch(batches), Prefetch(test), saved=saved, **shown)
    except Stop as stop:
        again = f"python -m minispike {args.command} --resume {here}"
        print(f"\nstopped at {stop}, and saved; to go on: {again}", file=sys.stderr)
        raise
    except DiskFull as error:
        kept = f"the checkpoint of {run.kept} is kept" if run.kept else "no checkpoint was written yet"
        advice = f"make room, then go on: python -m minispike {args.command} --resume {here}"
        raise DiskFull(f"{error}; {kept}; {advice}") from error
    except FloatingPointError as error:
        kept = "the last good checkpoint is kept" if run.checkpoint.exists() else "no checkpoint was due yet"
        advice = f"{kept}; the same steps would diverge again: begin another run, with a lower --lr"
        raise FloatingPointError(f"{error}; {advice}") from error
    written = sorted(path.name for path in run.folder.glob("[!.]*"))
    print(f"done; see {', '.join(written)} in {here}")
    if recipe.objective == MASKED:
        root = f" --root {quote(recipe.root)}" if recipe.root else ""
        then = f"train --data {quote(recipe.data)}{root} --model {recipe.model} --init {here} --out RUN"
    else:
        then = f"evaluate {here}"
    print(f"next: python -m minispike {then}")


def what_is_ahead(run: Run, steps: int, saved: Saved | None) -> str:
    """Return in a few lines the data, the steps and epochs, and what a resumed run has done already."""
    recipe = run.recipe
    each = f"{steps:,} steps of {recipe.batch_size} samples per epoch"
    single = f", the first {recipe.single_step_epochs} at T = 1" if recipe.single_step_epochs else ""
    lines = [f"{with_split(recipe)}: {each}; epochs: {recipe.epochs}{single}"]
    if saved:
        at = saved.training["progress"]
        lines.append(f"{run.folder} has done {at['epoch']} epochs and {at['step']} steps")
    return "\n".join(lines)


def fitted(recipe: Recipe, batches) -> Recipe:
    """Return the recipe with a batch of at most all training samples, and say so where it is reduced."""
    n = batches.n_samples
    if recipe.batch_size <= n:
        return recipe
    print(f"note: --batch-size {recipe.batch_size} is reduced to the {n} training samples", file=sys.stderr)
    return replace(recipe, batch_size=n)


def absolute(recipe: Recipe) -> dict[str, str]:
    """Return the recipe's folders as absolute paths."""
    places = {name: getattr(recipe, name) for name in ("root", "init")}
    return {name: str(Path(place).expanduser().resolve()) for name, place in places.items() if place}


def changes(args) -> dict:
    """Return the recipe's fields that were given as options."""
    given = {entry.name: getattr(args, entry.name, None) for entry in fields(Recipe)}
    return {name: value for name, value in given.items() if value is not None}


def begin(args) -> tuple[Run, Saved | None, Description | None]:
    """Return the run that the arguments name, a resumed one's newest checkpoint, and one's own data."""
    given = changes(args)
    if bool(args.resume) == bool(args.out):
        raise ValueError("give either --out RUN, for a new run, or --resume RUN")
    if args.out:
        name = args.recipe or args.data
        if not name:
            raise ValueError(f"give --recipe or --data: {', '.join(args.recipes)}")
        if not args.recipe and own_data.is_own(name):
            Run(args.out, resolve("digits")).absent()
            objective = MASKED if args.command == "pretrain" else CLASSIFY
            run, own = own_data.begin_run(args.out, name, given, objective, sys.stderr.isatty())
            return run, None, own
        return Run(args.out, resolve(name, args.recipes, **given)).absent(), None, None
    if args.recipe or given.keys() - {"root"}:
        other = sorted(given.keys() - {"root"}) or ["recipe"]
        raise ValueError(f"a resumed run keeps its recipe: leave out {', '.join(other)}")
    run = Run.open(args.resume)
    begun_by = "pretrain" if run.recipe.objective == MASKED else "train"
    if args.command != begun_by:
        raise ValueError(f"{args.resume} was begun by {begun_by}: use {begun_by} --resume {args.resume}")
    run.recipe = replace(run.recipe, **given)
    return run, run.newest(), own_data.read_own(run)


# ---------------------------------------------------------------- evaluation


def add_evaluation(commands) -> None:
    """Add the command evaluate."""
    parser = commands.add_parser("evaluate", help="test a run's last checkpoint")
    parser.set_defaults(run=run_evaluate)
    parser.add_argument("folder", metavar="RUN", help="the run's folder")
    parser.add_argument("--checkpoint", metavar="FILE", help="a checkpoint other than the run's newest")
    parser.add_argument("--root", metavar="DIR", help="the data set's folder, if it is not the run's")
    devices = CHOICES["device"]
    parser.add_argument("--device", choices=devices, help="where to run, if not where the run was trained")


def run_evaluate(args) -> None:
    run = Run.open(args.folder)
    saved = run.read(args.checkpoint) if args.checkpoint else run.newest()
    if saved is None:
        raise FileNotFoundError(f"{args.folder} has no checkpoint yet")
    model, at = saved.model, saved.training["progress"]
    if not isinstance(model, SpikingTransformer):
        raise ValueError(f"{args.folder} holds a pre-trained encoder, for train --init {args.folder}")
    run.recipe = recipe = replace(run.recipe, root=args.root or run.recipe.root)
    own = own_data.read_own(run)
    _, test, _ = data_of(recipe, own)
    set_threads(recipe.threads)
    set_products(recipe.products)
    if at["epoch"] + bool(at["step"]) <= recipe.single_step_epochs:
        model.T = 1
    bar = tqdm(Prefetch(test), desc="test", leave=False, disable=None)  # None: only on a terminal
    device = args.device or recipe.device
    if not args.device and (reason := why_not(device)):
        print(f"note: evaluated on the processor, not where it was trained ({reason})", file=sys.stderr)
        device = "cpu"
    loss, accuracy = evaluate(model.to(device), bar)
    moment = f"epoch {at['epoch']} of {recipe.epochs}" + (f" and {at['step']} steps" if at["step"] else "")
    moment += f", at T = {model.T}"
    print(f"{with_split(recipe)}, after {moment}: test loss {loss:.4f}, accuracy {accuracy:.2%}")
    if own:
        print(own_data.summary(own, test))
        print(own_data.confusion(model.to("cpu"), test, own))
    row = next((row for row in run.read_metrics() if row.get("epoch") == at["epoch"]), None)
    if row and not at["step"]:
        compare_with_metrics(loss, accuracy, row["test_loss"], row["test_accuracy"])


def why_not(device: str) -> str | None:
    """Return why a device cannot be used here, or None if it can."""
    try:
        to_device(np.zeros(1), device)
    except Exception as error:  # CuPy is missing, or there is no GPU or driver, which CuPy tells in many ways
        return str(error)
    return None


def compare_with_metrics(loss: float, accuracy: float, noted_loss: float, noted_accuracy: float) -> None:
    """Print how far an evaluation is from the row of metrics.csv, which training wrote.

    On another processor rounding flips some spikes. ValueError where that does not explain the difference:
    above 0.01 in the loss or 1 point in the accuracy.
    """
    if (loss, accuracy) == (noted_loss, noted_accuracy):
        print("metrics.csv has the same, to the last bit")
        return
    points = 100 * (accuracy - noted_accuracy)
    apart = f"{loss - noted_loss:+.1e} in the loss, {points:+.2f} points in the accuracy"
    if abs(loss - noted_loss) > LOSS_BOUND or abs(points) > POINTS_BOUND:
        cause = "rounding does not explain that: is the data another one?"
        raise ValueError(f"metrics.csv has {noted_loss:.4f} and {noted_accuracy:.2%}: {apart}; {cause}")
    print(f"metrics.csv has {noted_loss:.4f} and {noted_accuracy:.2%}: {apart}, as rounding explains")


def with_split(recipe: Recipe) -> str:
    """Return the data set's name, with the split where there is more than one, and what is held out."""
    name = f"{recipe.data}, split {recipe.split}" if recipe.data == "cifar10dvs" else recipe.data
    held = recipe.val_split and not own_data.is_own(recipe.data)
    return f"{name}, tested on {recipe.val_split:.0%} of the training samples, held out" if held else name


def data_of(recipe: Recipe, own: Description | None = None) -> tuple:
    """Return a recipe's (training batches, test batches, number of classes)."""
    if own:
        return own_data.loaders(recipe, own)
    config = configuration(recipe.model)
    names = (
        "shift flip policy mixup mixup_probability mixup_until erase split_by split batch_size seed val_split"
    ).split()
    settings = {name: getattr(recipe, name) for name in names}
    settings |= {"T": recipe.T or config.T, "augment_events": bool(recipe.augment_events)}
    return open_data(recipe.data, recipe.root or None, size=recipe.img_size or config.img_size, **settings)


# ---------------------------------------------------------------- prediction


def add_prediction(commands) -> None:
    """Add the command predict."""
    what = (
        "say what is in pictures, arrays or event recordings, by a model that was trained on data of your own"
    )
    parser = commands.add_parser("predict", help=what, description=what)
    parser.set_defaults(run=run_predict)
    parser.add_argument("model", metavar="RUN", help="a run's folder, or a checkpoint of it")
    parser.add_argument(
        "files", metavar="FILE", nargs="+", help="files of the kind that the run was trained on, or folders"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")


def run_predict(args) -> None:
    found = own_data.predict(args.model, args.files)
    if args.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        for each in found:
            print(each["file"], *(f"{name} {p:.1%}" for name, p in each["classes"].items()), sep="  ")


# ---------------------------------------------------------------- a look inside


def add_show(commands) -> None:
    """Add the command show."""
    what = "draw what a model does with one picture: its spikes, what it mixes, where its neurons fire"
    parser = commands.add_parser("show", help=what, description=what)
    parser.set_defaults(run=run_show)
    parser.add_argument("model", metavar="RUN", help="a run's folder, or a .safetensors file")
    of_a_set = "the number of a test sample of the run's data set; for a model without a run, digits:17"
    parser.add_argument("sample", metavar="FILE", help=f"a picture, for a run on pictures; or {of_a_set}")
    parser.add_argument("--block", type=int, metavar="I", default=0, help="the block (default 0, the first)")
    parser.add_argument("--head", type=int, metavar="I", help="one head of its attention (default: all)")
    default = "the file to draw it in (default show.png)"
    parser.add_argument("--figure", metavar="FILE", default="show.png", help=default)


def run_show(args) -> None:
    print(show.show(find_sample(args.model, args.sample), args.block, args.head, args.figure))


def find_sample(source: str, name: str) -> show.Sample:
    """Return the model of a run or file, with the picture or test sample of this name."""
    if Path(name).expanduser().is_file():
        saved, own = own_data.saved_of(source)
        names, x = next(iter(own.inputs(Path(name).expanduser())))
        x = x[..., :1, :, :, :]
        picture = show.picture_of(x)
        if isinstance(own, Pictures):  # as it was before it was standardised
            pixels = np.clip(x[0] * np.array(own.deviation) + np.array(own.mean), 0, 1)
            picture = np.broadcast_to(pixels, (*x.shape[1:3], 3))
        return show.Sample(saved.model, x, picture, names[0], own.classes)
    saved, (data, _, number) = saved_at(source), name.rpartition(":")
    if not number.isdecimal():
        raise ValueError(f"{name} is neither a file nor the number of a test sample, as 17 or digits:17")
    if not data and "recipe" not in saved.training:
        raise ValueError(f"{source} does not say what it was trained on: name the data, as digits:{number}")
    size = {"T": saved.model.T, "img_size": saved.model.img_size[0]}
    recipe = replace(resolve(data), **size) if data else Recipe.from_dict(saved.training["recipe"])
    if own_data.is_own(recipe.data):
        raise ValueError(f"{source} was trained on your own {recipe.data}: name a file")
    _, test, classes = data_of(recipe)
    if int(number) >= test.n_samples:
        raise ValueError(f"no test sample {number}: {recipe.data} has {test.n_samples}, counted from 0")
    x, labels = test.prepared(np.array([int(number)]))
    names, title = [str(i) for i in range(classes)], f"{recipe.data}, test sample {number}"
    return show.Sample(saved.model, x, show.picture_of(x), title, names, int(labels[0]))


# ---------------------------------------------------------------- comparison


def add_comparison(commands) -> None:
    """Add the command compare."""
    what = "put runs next to each other: accuracy, loss, firing rates, energy, seconds"
    parser = commands.add_parser("compare", help=what, description=what)
    parser.set_defaults(run=run_compare)
    parser.add_argument("folders", metavar="RUN", nargs="+", help="the runs' folders")
    parser.add_argument("--figure", metavar="FILE", help="draw their curves")


def run_compare(args) -> None:
    def sample_of(run: Run):
        _, test, _ = data_of(run.recipe, own_data.read_own(run))
        return test.spread(SAMPLE)[0]

    runs = [compare.read_run(folder, sample_of) for folder in args.folders]
    print(compare.table(runs))
    print(
        f"firing rate: mean of all neuron layers; energy: per image, of {SAMPLE} test images, as papers count"
    )
    if args.figure:
        write_figure(compare.draw(runs), args.figure)


# ---------------------------------------------------------------- tools for models


def add_tools(commands) -> None:
    """Add the commands import, info and profile."""
    kinds = ".pth, .pth.tar, .npz, .safetensors"
    parser = commands.add_parser("import", help=f"convert an authors' checkpoint ({kinds}) into one of ours")
    parser.set_defaults(run=run_import)
    parser.add_argument("file", help="the checkpoint; a .pth file is read without PyTorch and never executed")
    parser.add_argument("--model", required=True, metavar="NAME", help=", ".join(list_models()))
    parser.add_argument("--out", required=True, metavar="FILE", help="the safetensors file to write")
    parser.add_argument("--num-classes", type=int, metavar="K", help="if it differs from the model's own")
    part = "the part of the checkpoint to take, as model_ema; by default the weights, not their average (EMA)"
    parser.add_argument("--entry", metavar="NAME", help=part)
    parser = commands.add_parser("info", help="count a model's operations, active shares and energy by layer")
    parser.set_defaults(run=run_info)
    parser.add_argument(
        "model", metavar="MODEL", help="a model's name, a run's folder, or a .safetensors file"
    )
    what = "test images of a data set, or of one's own; by default a run's own, and for other models noise"
    parser.add_argument("--data", metavar="NAME", help=f"{what}. Names: {', '.join(NAMES)}")
    parser.add_argument("--root", metavar="DIR", help="the data set's folder")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--figure", metavar="FILE", help="draw active shares and energies as bars")
    parser = commands.add_parser("profile", help="time a model's training step, layer by layer")
    parser.set_defaults(run=run_profile)
    parser.add_argument(
        "model", metavar="MODEL", help="a model's name, a run's folder, or a .safetensors file"
    )
    parser.add_argument("--batch", type=int, default=8, help="number of images (default 8)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--figure", metavar="FILE", help="draw times and memory as bars")


def run_import(args) -> None:
    overrides = {} if args.num_classes is None else {"num_classes": args.num_classes}
    model = create_model(args.model, **overrides)
    report = load_official(args.file, model, entry=args.entry)
    save(model, args.out)
    print(report)
    print(f"{model.num_params():,} parameters written to {args.out}")


def run_info(args) -> None:
    saved = args.model.endswith(".safetensors") or Path(args.model).is_dir()
    model = find_model(args.model)
    tell_what_is_missing()
    dtype = model.head.weight.dtype
    data, x = real_input(args, model)
    found = count(model, (random_input(model) if x is None else x).astype(dtype))
    source = "one random input" if x is None else f"{found.images} real test images ({data})"
    source += "" if saved else ", untrained weights"
    if args.json:
        print(json.dumps({"model": args.model, "input": source, **found.as_dict()}, indent=1))
    else:
        print(found)
        print(f"\nInput: {source}, T = {found.steps}. Operations and energies (nJ) are those of one image.")
        print(f"{model.num_params():,} parameters; dense, {found.macs() / 1e6:.1f} M MACs a step.")
    if args.figure:
        draw(found, args.figure)
    if not (saved and data):
        print(
            "Active shares and energies of noise or of untrained weights say nothing about a trained model.",
            file=sys.stderr,
        )


def real_input(args, model: SpikingTransformer) -> tuple[str, np.ndarray | None]:
    """Return the name of the data that info counts with, and test images or frames of it; None for noise."""
    run = Run.open(args.model) if Path(args.model).is_dir() else None
    if args.root and (own_data.is_own(args.data) if args.data else not run):
        raise ValueError("--root goes with the name of a data set, or with a run")
    if not args.data and not run:
        return "", None
    if not args.data:
        run.recipe = replace(run.recipe, root=args.root or run.recipe.root)
        name, (_, test, _) = run.recipe.data, data_of(run.recipe, own_data.read_own(run))
    elif own_data.is_own(args.data):
        name, test = args.data, own_data.batches_for(model, args.model, args.data)
    else:
        settings = {"T": model.T, "batch_size": SAMPLE, "size": model.img_size[0]}
        name, (_, test, _) = args.data, open_data(args.data, args.root, **settings)
    n = test.n_samples if name == "digits" else SAMPLE  # images of 8×8 pixels are counted all at once
    return name, test.spread(min(n, test.n_samples))[0]


def run_profile(args) -> None:
    model = find_model(args.model)
    x = random_input(model, args.batch).astype(model.head.weight.dtype)
    keep_freed_memory()  # as fit does
    rows = profile(model, x, make_rng(0).integers(0, model.head.out_channels, args.batch))
    print(json.dumps(as_dicts(rows), indent=1) if args.json else table(rows))
    if args.figure:
        fig, axes = viz.figure(1, 2, size=(11, 1.5 + len(rows) / 14), sharey=True)
        viz.profile_bars(axes, rows)
        write_figure(fig, args.figure)


def find_model(name: str) -> SpikingTransformer:
    """Return the model of a run's folder, of a .safetensors file, or of a name, with fresh weights."""
    kept = Path(name).exists() or name.endswith(".safetensors")
    model = saved_at(name).model if kept else create_model(name)
    if not isinstance(model, SpikingTransformer):
        raise ValueError(f"{name} holds a {type(model).__name__}; a classifier is needed")
    return model


def random_input(model: SpikingTransformer, batch: int = 1):
    """Return normally distributed images; for two channels, which are polarities, frames of event counts."""
    rng, shape = make_rng(0), (batch, *model.img_size, model.in_channels)
    return rng.poisson(0.1, (model.T, *shape)) if shape[-1] == 2 else rng.standard_normal(shape)


def draw(found: Count, path: str) -> None:
    rows = found.rows
    fig, axes = viz.figure(2, 1, size=(max(8, ceil(len(rows) / 4)), 6), height_ratios=(2, 3))
    joules = {
        c: [getattr(r, c).joules(found.picojoules) / found.images for r in rows] for c in ("paper", "events")
    }
    viz.layer_bars(
        axes, [r.label for r in rows], [r.part for r in rows], [r.active_share for r in rows], joules
    )
    write_figure(fig, path)
