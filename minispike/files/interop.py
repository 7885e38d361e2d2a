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

SpikingJelly has a `spikformer_cifar10`, too. It is another network: it pools before the neuron, fuses q, k
and v without bias, and returns logits for each step. Its checkpoints do not fit.
"""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..backend import Array, is_array, to_host
from ..models import SpikingTransformer
from .checkpoint import read_safetensors
from .torchfile import FileFormatError, read_torch

LAYOUTS = {  # the name of a linear map, and the number of axes of length 1 at the end of its kernel
    "cifar": {"attn": ("linear", 0), "mlp": ("linear", 0)},
    "dvs": {"attn": ("conv", 1), "mlp": ("conv", 1)},
    "imagenet": {"attn": ("conv", 1), "mlp": ("conv", 2)},
}
# built and never called in their code: two LayerNorms per block; for events one more, and positions
UNUSED = re.compile(r"(block\.\d+\.norm[12]|norm)\.(weight|bias)|pos_embed|.*\.num_batches_tracked")


@dataclass
class Report:
    """What load_official did: where each entry went, and which entries the network does not use."""

    matched: dict[str, str] = field(default_factory=dict)  # theirs: ours
    ignored: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"  {theirs:<40} → {ours}" for theirs, ours in self.matched.items()]
        return "\n".join([f"{len(lines)} entries matched, {len(self.ignored)} ignored", *lines])


def load_official(source: str | Path | dict, model: SpikingTransformer) -> Report:
    """Copy a state_dict in the authors' layout into a Spikformer, and report where each entry went.

    source: the dict itself, or a file: .pth / .pth.tar (read without PyTorch), .npz, .safetensors.
    Raises FileFormatError for an unreadable file; ValueError, before anything is written, that names every
    entry that is missing, left over or misshapen.
    """
    theirs = find_state_dict(read_weights(source) if isinstance(source, (str, Path)) else source)
    report, found, left = Report(), {}, []
    expected = {official_name(path, "cifar"): path for path in model.state_dict()}
    for name, value in theirs.items():
        plain = name.removeprefix("module.")
        canonical = (
            re.sub(r"(\.(?:q|k|v|proj|fc1|fc2))_conv\.", r"\1_linear.", plain) if "block" in plain else plain
        )
        if UNUSED.fullmatch(plain):
            report.ignored.append(name)
        elif canonical in expected and is_array(value):
            report.matched[name] = path = expected[canonical]
            found[path] = to_ours(value)
        else:
            left.append(f"unexpected {name}")
    missing = [f"missing {theirs}" for theirs, ours in expected.items() if ours not in found]
    if missing or left:
        raise ValueError(f"the checkpoint does not fit {type(model).__name__}: " + "; ".join(missing + left))
    model.load_state_dict(found)
    return report


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


def read_weights(path: str | Path):
    """Return what a .pth, .pth.tar, .npz or .safetensors file holds; its kind is read from its content."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    with path.open("rb") as file:
        start = file.read(16)
    if start[8:9] == b"{":  # a safetensors header: its length in 8 bytes, then JSON
        return read_safetensors(path)[0]
    if start.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as archive:
                names, size = archive.namelist(), sum(entry.file_size for entry in archive.infolist())
            if names and all(name.endswith(".npy") for name in names):
                if size > path.stat().st_size:
                    raise FileFormatError(
                        f"{path}: unpacked it is larger: use savez, which does not compress"
                    )
                with np.load(path, allow_pickle=False) as arrays:
                    return dict(arrays)
        except FileFormatError:
            raise
        except Exception as error:
            raise FileFormatError(f"{path}: damaged ({type(error).__name__}: {error})") from error
    return read_torch(path)


def find_state_dict(tree) -> dict[str, Array]:
    """Return the dict of arrays in a checkpoint: itself, or the entry "state_dict" or "model"."""
    for key in ("state_dict", "model"):
        if isinstance(tree, dict) and isinstance(tree.get(key), dict):
            tree = tree[key]
    if not isinstance(tree, dict) or not any(is_array(value) for value in tree.values()):
        holds = ", ".join(map(str, list(tree)[:8])) if isinstance(tree, dict) else type(tree).__name__
        raise FileFormatError(f"no state_dict in this checkpoint; it holds: {holds}")
    return tree
