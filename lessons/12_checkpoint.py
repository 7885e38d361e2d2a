# %% [markdown]
# # 12 · Checkpoints: bytes, names, and a program that should not be run
#
# A trained model is worth little until it can be put into a file and found again. What is in such a file?
# This lesson reads two kinds byte by byte. A safetensors file holds data only. PyTorch's .pth holds a pickle,
# which is a *program* that says what the data mean. Why is that dangerous, and how can one read it safely?
#
# You will be able to find a weight in either file by hand, say what a pickle does when it is read, and
# convert between two layouts of a kernel. It needs lessons 00 to 04.
# Twelve minutes to read, and five seconds to run; notation and glossary: [NOTATION.md](NOTATION.md).

# %%
import json
import os
import pickle
import pickletools
import zipfile
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from matplotlib.colors import to_rgb

from data_utils.images.digits import load_digits
from minispike import create_model
from minispike.files.checkpoint import load, read_safetensors, save
from minispike.files.interop import load_official, to_official
from minispike.files.torchfile import read_torch
from minispike.measure import viz

folder = TemporaryDirectory()
here, images = Path(folder.name), load_digits()[0][0][:32]
model = create_model("spikformer_1_64_digits", T=3, v_threshold=0.05, rng=12)  # untrained, but easily excited
logits = model.eval()(images).data

# %% [markdown]
# ## safetensors by hand
# The first eight bytes hold a number n, lowest byte first. Then come n bytes of JSON, the header. For each
# tensor it has the dtype, the shape, and where the bytes of the tensor begin and end, counted from the end of
# the header. The rest of the file is numbers. The header's `__metadata__` may hold any text. `save` writes
# the model's configuration there, so that a model can be built from the file alone.

# %%
save(model, here / "model.safetensors")
raw = (here / "model.safetensors").read_bytes()
n = int.from_bytes(raw[:8], "little")
header = json.loads(raw[8 : 8 + n])
path = "stem.stages.1.map.weight"
ours, (begin, end) = model.state_dict()[path], header[path]["data_offsets"]
found = np.frombuffer(raw[8 + n + begin : 8 + n + end], "<f4").reshape(header[path]["shape"])
print(f"model.safetensors: {len(raw):,} bytes = 8 + {n:,} of header + {len(raw) - 8 - n:,} of numbers")
print(f"{path}: {header[path]}")
assert header[path]["dtype"] == "F32" and np.array_equal(found, ours)
config, back = json.loads(header["__metadata__"]["config"]), load(here / "model.safetensors").eval()
print("config:", *(f"{k}={config[k]}" for k in ("stem", "mixer", "embed_dim", "depth", "T", "v_threshold")))
assert (back.T, config["T"]) == (3, 3) and np.array_equal(back(images).data, logits) and logits.std() > 0.1

# %% [markdown]
# ## A .pth by hand
# A .pth file is a zip archive. Its entries `data/0`, `data/1`, … hold numbers. Its entry `data.pkl` is a
# program for a machine with a *stack*, a list to which values are added (pushed) and from which they are
# taken at its end. Each instruction is one byte, sometimes followed by a value. Most instructions push
# something: a text, a number, or (TUPLE) a tuple of all values since the last MARK. Three of the instructions
# here reach outside of the program:
#
# - GLOBAL (c) fetches a function by its name;
# - REDUCE (R) calls it, with a tuple as its arguments;
# - BINPERSID (Q) asks the reader for something outside the pickle, here a *storage*: a flat row of numbers.
#
# The functions below write such a program, one piece each.


# %%
def text(s):
    return b"X" + len(s).to_bytes(4, "little") + s.encode("ascii")  # BINUNICODE


def numbers(*values):
    return b"(" + b"".join(b"J" + value.to_bytes(4, "little") for value in values) + b"t"  # BININT … TUPLE


def call(function, *args):
    return b"c" + function + b"\n(" + b"".join(args) + b"tR"  # GLOBAL MARK … TUPLE REDUCE


def tensor(key, size, stride):
    kind, length = b"ctorch\nFloatStorage\n", b"J" + int(np.prod(size)).to_bytes(4, "little")
    storage = b"(" + text("storage") + kind + text(key) + text("cpu") + length + b"tQ"  # … TUPLE BINPERSID
    rest = b"J\0\0\0\0", numbers(*size), numbers(*stride), b"\x89", call(b"collections\nOrderedDict")
    return call(b"torch._utils\n_rebuild_tensor_v2", storage, *rest)  # offset 0; \x89: needs no gradient


def write_pth(path, entries, storages):
    items = b"".join(text(key) + value for key, value in entries.items())
    with zipfile.ZipFile(path, "w") as archive:  # uncompressed
        archive.writestr("archive/data.pkl", b"\x80\x02}(" + items + b"u.")  # EMPTY_DICT … SETITEMS, STOP
        for i, array in enumerate(storages):
            archive.writestr(f"archive/data/{i}", array.tobytes())
        return archive.infolist()


theirs = to_official(model)  # under the authors' names, in their layouts
entries = {}
for i, (name, a) in enumerate(theirs.items()):
    entries[name] = tensor(str(i), a.shape, [step // 4 for step in a.strides])  # in numbers, not in bytes
infos = write_pth(here / "model.pth", entries, theirs.values())
pth = (here / "model.pth").read_bytes()

# %% [markdown]
# In a zip archive, 30 bytes and two texts come before the data of each entry. The last four of the 30 bytes
# are the lengths of these texts. So the program and each storage can be found by hand. Printed are the
# instructions for the first tensor, one part a line: the dict, its key, the function that rebuilds a tensor,
# the storage, and the tensor's offset, size and stride. A *stride* says how many numbers lie between
# neighbours along an axis.

# %%
start = {}
for info in infos:
    lengths = np.frombuffer(pth, "<u2", 2, info.header_offset + 26)
    start[info.filename] = info.header_offset + 30 + int(lengths.sum())
code = list(pickletools.genops(pth[start["archive/data.pkl"] :][: infos[0].file_size]))
words = [opcode.name + (f" {arg!r}" if arg is not None else "") for opcode, arg, _ in code[1:34]]
for i, j in ((0, 4), (4, 8), (8, 13), (13, 20), (20, 27), (27, 33)):
    print("  ", *words[i:j])
counts = Counter(opcode.name for opcode, *_ in code)
print(f"… {len(code):,} instructions for {len(theirs)} tensors, in {infos[0].file_size:,} bytes")
assert counts["BINPERSID"] == len(theirs) and counts["REDUCE"] == 2 * len(theirs)

# %% [markdown]
# ## Two layouts, the same numbers
# The authors' convolution has the axes [out, in, kh, kw], where kh×kw is the kernel's size; ours has
# [kh, kw, in, out]. Their linear map is [out, in], ours [in, out]. A transposition turns one into
# the other.

# %%
conv, linear = "patch_embed.proj_conv1.weight", "block.0.mlp.fc1_linear.weight"
key = f"archive/data/{list(theirs).index(conv)}"
flat = np.frombuffer(pth, "<f4", ours.size, start[key])
print(f"{key} lies at byte {start[key]:,}: theirs {list(theirs[conv].shape)}, ours {list(ours.shape)}")
assert np.array_equal(flat.reshape(16, 8, 3, 3).transpose(2, 3, 1, 0), ours)
assert np.array_equal(theirs[linear].T, model.blocks[0].mlp.fc1.map.weight.data)
other = create_model("spikformer_1_64_digits", T=3, v_threshold=0.05, rng=0).eval()
gap = abs(other(images).data - logits).max()
report = load_official(here / "model.pth", other)
print(f"load_official: {len(report.matched)} entries matched; logits were off by {gap:.2f} and now are equal")
assert gap > 0.1 and np.array_equal(other(images).data, logits)

# %% [markdown]
# ## Why pickles are dangerous
# GLOBAL fetches *any* function, and REDUCE calls it with *any* arguments. An ordinary reader does so while it
# reads. A class says by `__reduce__` which call will rebuild it. The one below asks for a call that makes an
# empty folder; it could be any command. The class itself is not in the file: the name of a function and a
# text are enough.
#
# `read_torch` is another machine for the same programs, and it cannot import anything. Its GLOBAL pushes a
# record of the name. Its REDUCE knows the few functions that a tensor needs; for any other call it pushes a
# record, too. So a .pth with a trap in it still gives its tensors. Here they are a matrix and its transpose,
# which are one storage with two kinds of strides.


# %%
class Trap:
    def __reduce__(self):
        return os.makedirs, (target.as_posix(),)


target = here / "trapped"
trap = pickle.dumps(Trap(), protocol=2)
pickle.loads(trap)
print("pickle.loads: the folder is there:", target.exists())
assert target.exists() and b"Trap" not in trap
target.rmdir()
pair = {"w": tensor("0", (128, 64), (64, 1)), "wT": tensor("0", (64, 128), (1, 64))}
write_pth(here / "trap.pth", pair | {"note": trap[2:-1]}, [theirs[linear]])  # between its PROTO and STOP
w, transposed, note = read_torch(here / "trap.pth").values()
print("read_torch:   the folder is there:", target.exists())
print("  note:", str(note).replace(here.as_posix(), "…"))
print(f"  w {list(w.shape)} and wT {list(transposed.shape)} are the same {w.nbytes:,} bytes")
assert note.name == "os.makedirs" and not target.exists()
assert np.shares_memory(w, transposed) and np.array_equal(transposed, theirs[linear].T)

# %% [markdown]
# ## Break it: cut the file, flip a bit, lose an entry
# If the second half of a file is missing, any reader notices. A wrong bit is another matter. A zip archive
# has a checksum for each entry. safetensors has none, so a plain reader takes the damage for true. `load`
# finds it, because `save` puts a checksum next to the configuration. We flip bit 30 of a weight: if this bit
# is 0, the weight becomes 2¹²⁸ times as large. Last, an entry is left out: `load_official` names it and
# changes nothing.


# %%
def attempt(what, read, *args):
    try:
        read(*args)
        outcome = "read without complaint"
    except ValueError as error:  # a FileFormatError is one
        outcome = str(error).split(": ", 1)[1]
    print(f"{what}: {outcome.split('(')[-1].rstrip(')')}")
    return outcome


outcomes = []
for kind, read, at in ((".pth", read_torch, start[key]), (".safetensors", load, 8 + n + begin)):
    file, whole = here / f"model{kind}", (here / f"model{kind}").read_bytes()
    flipped = whole[: at + 3] + bytes([whole[at + 3] ^ 64]) + whole[at + 4 :]  # in the last byte of four
    for what, broken in ((", half", whole[: len(whole) // 2]), (", one bit wrong", flipped)):
        file.write_bytes(broken)
        outcomes.append(attempt(kind + what, read, file))
was, now = float(ours.flat[0]), float(read_safetensors(here / "model.safetensors")[0][path].flat[0])
print(f"  read as plain safetensors, its first weight was {was:.4f} and is now {now:.1e}")
assert "read without complaint" not in outcomes and now == was * 2.0**128
assert "CRC" in outcomes[1] and "checksum differs" in outcomes[3]
lost = attempt("head.bias left out", load_official, {k: theirs[k] for k in theirs if k != "head.bias"}, other)
assert lost == "missing head.bias" and np.array_equal(other(images).data, logits)  # nothing was written
folder.cleanup()

# %% [markdown]
# ## The figure
# - Above, left: the whole .pth, one pixel for each byte, in rows of 1,024. The colour tells the part of the
#   model, with its share of the bytes. Look at the dark rows at the top: that is the whole program.
# - Above, right: how often each instruction occurs in the program. Orange ones reach outside.
# - Below, left: the first 40 weights of a kernel, one row each, bit by bit. The fraction looks like noise;
#   the exponent hardly varies from weight to weight.
# - Below, right: the relative error of the first weight if one bit is flipped. Look at bit 30 on the far
#   right: one bit can multiply a weight by 10³⁸.

# %%
fig, ((whole, program), (bits, error)) = viz.figure(2, 2, size=(12, 8.4), width_ratios=(1.25, 1))
parts = "zip", "data.pkl", "patch_embed", "attn", "mlp", "head"
rgb = np.array([to_rgb(c) for c in (viz.GREY, viz.INK, viz.BLUE, viz.ORANGE, viz.GREEN, "#b03a8c")])
owner = np.zeros(len(pth), int)  # of each byte: which part
for name, info in zip(["data.pkl", *theirs], infos, strict=True):
    owner[start[info.filename] :][: info.file_size] = [part in name for part in parts].index(True)
pixels = 1 - (1 - rgb)[owner] * (0.2 + 0.8 * np.frombuffer(pth, "u1")[:, None] / 255)
pixels = np.pad(pixels, ((0, -len(pth) % 1024), (0, 0)), constant_values=1).reshape(-1, 1024, 3)
whole.imshow(pixels, aspect="auto")
whole.set(title=f"model.pth: {len(pth):,} bytes", xlabel="byte in the row", ylabel="row of 1,024 bytes")
for i, part in enumerate(parts):
    whole.plot([], [], "s", color=rgb[i], markersize=9, label=f"{part}\n{(owner == i).mean():.1%}")
whole.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
words, times = zip(*counts.most_common(8)[::-1], strict=True)
program.barh(words, times, color=[viz.ORANGE if w in "GLOBAL REDUCE BINPERSID" else viz.BLUE for w in words])
program.set(title="its program: orange reaches outside", xlabel="instructions")
words = flat[:40].view("u4")[:, None]  # as 32 bits each
ones = words >> np.arange(32, dtype="u4") & 1
assert (ones[:, 29] == 1).mean() > 0.9 and (ones[:, 30] == 0).all() and 0.4 < ones[:, :23].mean() < 0.6
wrong = (words[0] ^ np.uint32(1) << np.arange(32, dtype="u4")).view("f4").astype(float)
field = np.repeat([2, 3, 5], (23, 8, 1))  # fraction, exponent, sign
bits.imshow(1 - (1 - rgb)[field] * (0.12 + 0.88 * ones[..., None]), aspect="auto", interpolation="nearest")
bits.set(title="40 weights: dark is 1", xlabel="bit", ylabel="weight")
for name, i in (("fraction", 2), ("exponent", 3), ("sign", 5)):
    where = np.flatnonzero(field == i)
    error.semilogy(where, abs(wrong[where] / was - 1), "o", color=rgb[i], label=name)
error.set(title=f"one bit of {was:.4f} flipped", xlabel="bit", ylabel="relative error of the weight")
error.legend(frameon=False, loc="upper left")
viz.save(fig, "12_checkpoint")

# %% [markdown]
# ## What was shown
# What is in such a file? A safetensors file is a length, a JSON header and numbers. A .pth is a zip archive
# of numbers and a program, here of 1,624 instructions for 63 tensors. Both gave the model back exactly: its
# logits were equal.
#
# Why is that dangerous? An ordinary reader does whatever the program asks for, here it made a folder. How can
# one read it safely? A machine that cannot import read the same weights and made no folder.
#
# A safetensors file runs nothing, but it has no checksum either: one flipped bit made a weight 2¹²⁸ times as
# large, and a plain reader did not notice. So keep a checksum next to the numbers.
#
# ## Five questions (answers: lessons/solutions/12_checkpoint.py)
#
# 1. Which bit of a float32 turns 1 into −1? How large is the error if bit 0 of a weight is flipped?
# 2. In the program, why does the dtype of a tensor stand with its storage, and shape and strides with the
#    tensor? What can two tensors share?
# 3. The class Trap is not in the pickle. What is, and why is that enough?
# 4. A linear map of 64 → 64 could be loaded without its transposition, and no shape would be wrong. How can
#    one find out, and what does `load_official` rely on?
# 5. A reader that only allows a list of known functions is safe from calls. What else can a hostile file do,
#    with no call at all? How does `read_torch` bound it?
#
# ## Practice
#
#     python -m lessons.practice 12_checkpoint
#
# ★ `to_infinity`: predict which flipped bit turns 1 into infinity.
#
# ★★ `tensor_of`: read a tensor from the bytes of a safetensors file; a model then runs with it.
#
# ★★ `strides`: name the strides that turn our kernel into theirs without moving a byte.
#
# ★★★ `machine`: write a machine that reads pickles and calls nothing.
