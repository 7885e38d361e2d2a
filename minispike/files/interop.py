"""Read the authors' checkpoints and write ours: the same weights under other names and in other layouts.

    theirs                                                ours
    patch_embed.proj_conv{,1,2,3}, proj_bn{,1,2,3}        stem.stages.{0,1,2,3}.map, .norm
    patch_embed.rpe_conv, rpe_bn                          stem.rpe.map, .norm
    block.{i}.attn.{q,k,v,proj}_{linear|conv}, …_bn       blocks.{i}.mixer.{q,k,v,proj}.map, .norm
    block.{i}.mlp.fc{1,2}_{linear|conv}, …_bn             blocks.{i}.mlp.fc{1,2}.map, .norm
    head                                                  head

Their convolutions are [out, in, kh, kw], ours [kh, kw, in, out]; their linear maps [out, in], ours [in, out].
The published Spikformer (arXiv 2209.15425) writes a linear map as Linear for CIFAR, as a Conv1d of width 1
for event data, and for ImageNet as Conv1d in the attention and 1×1 Conv2d in the MLP. The axes of length 1
are dropped here. Its code builds two LayerNorms per block that it never calls, and in the network for events
one more and positions: these are ignored.

A checkpoint holds more than weights, under keys on which nobody agrees, and DataParallel, torch.compile or
Lightning put a prefix before each name. `find_state_dict` finds the weights and reports what it passes over.

SpikingJelly has a `spikformer_cifar10`, too. It is another network: it pools before the neuron, fuses q, k
and v without bias, and returns logits for each step. Its checkpoints do not fit.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import Array, is_array, to_host
from ..models import SpikingTransformer
from .checkpoint import header_length, read_safetensors
from .torchfile import FileFormatError, Inert, claimed, existing, read_torch, refuse_twins

LAYOUTS = {  # the name of a linear map, and the number of axes of length 1 at the end of its kernel
    "cifar": {"attn": ("linear", 0), "mlp": ("linear", 0)},
    "dvs": {"attn": ("conv", 1), "mlp": ("conv", 1)},
    "imagenet": {"attn": ("conv", 1), "mlp": ("conv", 2)},
}
# built and never called in their code: two LayerNorms per block; for events one more, and positions
UNUSED = re.compile(r"(block\.\d+\.norm[12]|norm)\.(weight|bias)|pos_embed|.*\.num_batches_tracked")


@dataclass
class Report:
    """What load_official did with a checkpoint.

    matched: where each entry went, theirs: ours.    ignored: entries that their network has and never uses.
    entry: the part of the checkpoint that was taken, as "state_dict.model"; "" for all of it.
    others: moving averages of the weights (EMA) next to it, which `entry` can name instead.
    passed_over: what else the checkpoint holds. An object of a class is named by its class and never made.
    """

    matched: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    entry: str = ""
    others: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{len(self.matched)} entries matched, {len(self.ignored)} ignored"]
        if self.entry or self.others:
            lines.append(f"taken: {self.entry or 'the weights'}")
            lines[-1] += f", not {', '.join(self.others)}: --entry takes another" if self.others else ""
        if self.passed_over:
            more = f" and {len(self.passed_over) - 12} more" if len(self.passed_over) > 12 else ""
            lines.append(f"passed over: {', '.join(self.passed_over[:12])}{more}")
        return "\n".join(lines + [f"  {theirs:<40} → {ours}" for theirs, ours in self.matched.items()])


def load_official(
    source: str | Path | dict, model: SpikingTransformer, *, entry: str | None = None
) -> Report:
    """Copy a state_dict in the authors' layout into a Spikformer, and report where each entry went.

    source: the dict itself, or a file: .pth / .pth.tar (read without PyTorch), .npz, .safetensors.
    entry: which part of a checkpoint to take, as "model_ema"; by default the weights, see `find_state_dict`.
    Raises FileFormatError for an unreadable file; ValueError, before anything is written, that names every
    entry that is missing, left over, misshapen, no dense array of real numbers, or there under two names.
    """
    report = Report()
    tree = read_weights(source) if isinstance(source, (str, Path)) else source
    try:
        theirs = find_state_dict(tree, entry, report)
    except FileFormatError as error:
        raise FileFormatError(f"{source}: {error}" if tree is not source else str(error)) from error
    expected = {official_name(path, "cifar"): path for path in model.state_dict()}
    found, faults = _match(theirs, expected, report)
    if faults:
        raise ValueError(f"the checkpoint does not fit {type(model).__name__}: " + "; ".join(faults))
    model.load_state_dict(found)
    return report


def _match(theirs: dict, expected: dict[str, str], report: Report) -> tuple[dict[str, Array], list[str]]:
    """Return the arrays by our names, and what is wrong. expected: their names for CIFAR, and ours."""
    came: dict[str, str] = {}  # ours: theirs
    faults, strangers = [], []
    for name, value in theirs.items():
        plain = split_name(name)[1]
        path = expected.get(_with_linear(plain))
        if UNUSED.fullmatch(plain):
            report.ignored.append(name)
        elif path is None:
            strangers.append(name)
        elif path in came:
            faults.append(f"{came[path]} and {name} are two entries for {path} (--entry takes one part)")
        else:
            came[path] = name
            if not is_array(value) or value.dtype.kind not in "fiub":
                faults.append(f"{name} is {describe(value)}, not a dense array of real numbers")
    prefixed = came and all(split_name(name)[0] for name in came.values())
    for name in strangers:
        value = theirs[name]
        numbers = is_array(value) and value.dtype.kind in "fiubc"
        note = numbers and value.size == 1 and "." not in name  # as an epoch, or an accuracy
        outside = prefixed and not split_name(name)[0]  # of a network whose entries all have a prefix
        if numbers and not note and not outside:
            faults.append(f"unexpected {name}")
        else:
            report.passed_over.append(_shown(name, value))
    faults = [f"missing {name}" for name, path in expected.items() if path not in came] + faults
    report.matched = {name: path for path, name in came.items()}
    return ({} if faults else {path: to_ours(theirs[name]) for path, name in came.items()}), faults


def to_official(model: SpikingTransformer, layout: str | None = None) -> dict[str, Array]:
    """Return a Spikformer's weights as host arrays under the authors' names and in their layout.

    layout: "cifar", "imagenet" or "dvs", how they write a linear map. The default follows from the model:
    CIFAR's has biases in q, k and v, the event models have two input channels.
    """
    if layout is None:
        with_bias = model.blocks[0].mixer.q.map.bias is not None
        layout = "cifar" if with_bias else "dvs" if model.in_channels == 2 else "imagenet"
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    theirs = {}
    for path, array in model.state_dict().items():
        name, array = official_name(path, layout), to_host(array)
        if array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)  # [kh, kw, in, out] -> [out, in, kh, kw]
        elif array.ndim == 2:
            part = "attn" if ".attn." in name else "mlp"
            ones = 0 if name.startswith("head") else LAYOUTS[layout][part][1]
            array = array.T.reshape(*array.T.shape, *(1,) * ones)  # [in, out] -> [out, in, 1, …]
        theirs[name] = np.ascontiguousarray(array)
    return theirs


def official_name(path: str, layout: str) -> str:
    """Return the authors' name of one of our parameters or buffers."""
    attn, mlp = (LAYOUTS[layout][part][0] for part in ("attn", "mlp"))
    for pattern, name in [
        (r"stem\.stages\.(\d)\.map\.", r"patch_embed.proj_conv\1."),
        (r"stem\.stages\.(\d)\.norm\.", r"patch_embed.proj_bn\1."),
        (r"stem\.rpe\.map\.", r"patch_embed.rpe_conv."),
        (r"stem\.rpe\.norm\.", r"patch_embed.rpe_bn."),
        (r"blocks\.(\d+)\.mixer\.(q|k|v|proj)\.map\.", rf"block.\1.attn.\2_{attn}."),
        (r"blocks\.(\d+)\.mixer\.(q|k|v|proj)\.norm\.", r"block.\1.attn.\2_bn."),
        (r"blocks\.(\d+)\.mlp\.(fc[12])\.map\.", rf"block.\1.mlp.\2_{mlp}."),
        (r"blocks\.(\d+)\.mlp\.(fc[12])\.norm\.", r"block.\1.mlp.\2_bn."),
    ]:
        path = re.sub("^" + pattern, name, path)
    return re.sub(r"proj_(conv|bn)0\.", r"proj_\1.", path)  # their first stage has no number


def to_ours(array: Array) -> Array:
    """Return one of the authors' arrays in our layout; vectors stay as they are."""
    if array.ndim == 4 and array.shape[2:] != (1, 1):
        return array.transpose(2, 3, 1, 0)  # [out, in, kh, kw] -> [kh, kw, in, out]
    if array.ndim >= 2:
        return array.reshape(array.shape[:2]).T if array.size == array.shape[0] * array.shape[1] else array
    return array


# ---------------------------------------------------------------- the weights in a file


def read_weights(path: str | Path) -> Any:
    """Return what a .pth, .pth.tar, .npz or .safetensors file holds; its kind is read from its content.

    Raises FileFormatError for a file that cannot be read, and for a model that is one of ours already.
    """
    path = existing(path)
    with path.open("rb") as file:
        start = file.read(16)
    if header_length(start):
        arrays, metadata = read_safetensors(path)
        if metadata.get("format", "").startswith("minispike"):
            raise FileFormatError(
                f"{path}: a model of minispike already, not to be imported: minispike.load reads it"
            )
        return arrays
    if start.startswith(b"PK\x03\x04") and zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
                if {name[-4:] for name in names} & {".npy", ".pkl"} == {".npy"}:
                    return _read_npz(archive, path.stat().st_size)
        except FileFormatError as error:
            raise FileFormatError(f"{path}: {error}") from error
        except Exception as error:
            raise FileFormatError(f"{path}: damaged ({type(error).__name__}: {error})") from error
    return read_torch(path)


def _read_npz(archive: zipfile.ZipFile, size: int) -> dict[str, Array | Inert]:
    """Return the arrays that numpy.savez wrote, as views of the archive's bytes; pickled ones stay inert."""
    entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
    refuse_twins(archive.namelist())
    refuse_twins([name.removesuffix(".npy") for name in archive.namelist()])
    if claimed(entries) > size:
        raise FileFormatError("unpacked it is larger: use savez, which does not compress")
    arrays = {}
    for entry in entries:
        stream = BytesIO(archive.read(entry))
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise FileFormatError(f"{entry.filename} is of the unknown version {version}")
        header = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
        shape, columns_first, dtype = header(stream)
        name, order = entry.filename.removesuffix(".npy"), "F" if columns_first else "C"
        left = entry.file_size - stream.tell()
        if dtype.subdtype:  # an array in each place, which numpy.savez writes as more axes
            raise FileFormatError(f"{entry.filename} has the dtype {dtype}")
        if dtype.hasobject:
            arrays[name] = Inert("a pickled array of objects")
        elif min(shape, default=0) < 0 or prod(shape) * dtype.itemsize != left:
            raise FileFormatError(f"{entry.filename} has the shape {list(shape)} of {dtype} and {left} bytes")
        else:  # a view: np.load would allocate first, and then find too few bytes
            arrays[name] = np.ndarray(shape, dtype, stream.getvalue(), stream.tell(), order=order)
    return arrays


# ---------------------------------------------------------------- the state dict in a checkpoint

# what DataParallel, torch.compile and others put around a network, or around a layer of it
LAYER = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
WRAPPERS = LAYER | {  # keys under which people save a state_dict, and attributes that hold a network
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "params", "weights",
}  # fmt: skip
AVERAGE = re.compile(r"(\w{1,30}_)?ema(_\w{1,30})?")  # keys of the weights' moving average
DEPTH = 8  # of wrappers in wrappers


def find_state_dict(tree: Any, entry: str | None = None, report: Report | None = None) -> dict[str, Any]:
    """Return the state dict in a checkpoint by name: its arrays, and whatever lies among them.

    A checkpoint is a state dict or holds it under the usual keys, WRAPPERS, perhaps one in another. Of the
    weights and their moving average (EMA) the weights are taken. `entry` takes another part: it names its
    keys, as "model_ema" or "state_dict.ema", or the beginning of its arrays' names.

    report: is told what was taken and what was not.
    Raises FileFormatError where there is no state dict, ValueError for an `entry` that is not there.
    """
    report = report or Report()
    part = tree if entry is None else _part(tree, entry)
    if not part and entry:
        raise ValueError(f"no entry {entry!r} in this checkpoint; {_what_it_holds(tree)}")
    rows = list(_walk(part, (), set())) if isinstance(part, dict) else []
    named = [where for where, name, value in rows if is_array(value) and "." in name]
    held = dict.fromkeys(named or [where for where, _, value in rows if is_array(value)])
    if not held:
        raise FileFormatError(f"no state_dict in this checkpoint; {_what_it_holds(part)}")
    taken = {where: None for where in held if not _is_average(where)} or held
    report.entry = ", ".join(_dotted(entry, *where) for where in taken)
    report.others = [_dotted(entry, *where) for where in held if where not in taken]
    state: dict[str, Any] = {}
    for where, name, value in rows:
        full = _dotted(*where, name)
        name = name if len(taken) == 1 else full
        if where not in held:
            report.passed_over.append(_shown(full, value))
        elif where in taken and name in state:
            raise ValueError(f"the checkpoint has two entries of one name, {full}")
        elif where in taken:
            state[name] = value
    return state


def _part(tree: Any, entry: str) -> dict:
    """Return the part of a checkpoint that `entry` names, empty where there is none."""
    if not isinstance(tree, dict):
        return {}
    for key, value in tree.items():
        if isinstance(key, str) and isinstance(value, dict) and f"{entry}.".startswith(f"{key}."):
            return value if key == entry else _part(value, entry.removeprefix(f"{key}."))
    named = [key for key in tree if isinstance(key, str) and key.startswith(f"{entry}.")]
    return {key.removeprefix(f"{entry}."): tree[key] for key in named}


def _walk(tree: dict, path: tuple, seen: set) -> Iterator[tuple[tuple, str, Any]]:
    """Yield (keys that lead there, name, value) of a checkpoint and of the dicts under its wrappers.

    seen: the dicts that were entered, because a dict of a pickle can hold itself, or another one twice.
    """
    for key, value in tree.items():
        if not isinstance(key, str):
            yield (*path, ""), f"[{describe(key)}]", value
            continue
        here = (*path, key)
        if isinstance(value, dict) and (key in WRAPPERS or _is_average([key])) and len(path) < DEPTH:
            mark = id(value), _is_average(here)
            if mark not in seen:
                seen.add(mark)
                yield from _walk(value, here, seen)
            continue
        wrappers, _ = split_name(key)
        if _is_average(wrappers):  # in one layer with the weights, told apart only by the names' beginning
            yield (*path, *wrappers), key.removeprefix(f"{_dotted(*wrappers)}."), value
        else:
            yield path, key, value


def _is_average(keys: Iterable[str]) -> bool:
    return any(AVERAGE.fullmatch(key) for key in keys)


def split_name(name: str) -> tuple[list[str], str]:
    """Return the wrappers in front of an entry's name, and the name without them and those around a layer."""
    parts = name.split(".")
    n = 0
    while n < len(parts) - 1 and (parts[n] in WRAPPERS or AVERAGE.fullmatch(parts[n])):
        n += 1
    return parts[:n], ".".join(part for part in parts[n:] if part not in LAYER)


def _dotted(*names: str | None) -> str:
    return ".".join(name for name in names if name)


def _with_linear(name: str) -> str:
    """Return an entry's name with the linear maps called as for CIFAR, whatever their layout."""
    return re.sub(r"(\.(?:q|k|v|proj|fc1|fc2))_conv\.", r"\1_linear.", name) if "block" in name else name


# ---------------------------------------------------------------- what a value is

WHOLE = (
    "A whole model was pickled; with its code, PyTorch writes its weights to a new file: "
    "torch.save(torch.load(file, weights_only=False).state_dict(), new_file)"
)
MEANS = {
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor (in PyTorch, to_dense() makes it dense)",
    "torch._utils._rebuild_qtensor": "a quantised tensor (in PyTorch, dequantize() gives numbers)",
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor on PyTorch's meta device, which has no numbers",
}


def describe(value: Any) -> str:
    """Return what a value of a checkpoint is, without the value: "a sparse tensor", "argparse.Namespace"."""
    if is_array(value):
        return f"an array of {value.dtype}"
    if not isinstance(value, Inert):
        return f"a {type(value).__name__}"
    inner = value.args[0] if value.args else None
    if value.name == "a key":
        return describe(inner)
    if isinstance(inner, Inert) and value.name.startswith(("copyreg.", "copy_reg.")):
        return inner.name  # the class of an object that is made without a call of the class
    return MEANS.get(value.name, f"{value.name} {inner.name}" if value.name == "a tensor of" else value.name)


def _shown(name: str, value: Any) -> str:
    return f"{name} ({describe(value)})" if isinstance(value, Inert) else name


def _what_it_holds(tree: Any) -> str:
    entries = tree if isinstance(tree, dict) else {"": tree}
    named = {key: value for key, value in entries.items() if isinstance(key, str)}
    text = ", ".join(_shown(*item) for item in list(named.items())[:8]) or "nothing with a name"
    if tree is not entries:
        text = tree.name if isinstance(tree, Inert) else type(tree).__name__
    parts = [
        key for key, value in named.items() if isinstance(value, dict) and any(map(is_array, value.values()))
    ]
    states = [value.state for value in named.values() if isinstance(value, Inert)]
    whole = any(isinstance(state, dict) and "_modules" in state for state in states)
    text += f"; --entry takes one of {', '.join(parts)}" if parts else ""
    return f"it holds: {text}" + (f". {WHOLE}" if whole else "")
