"""Tasks for lesson 12: a flipped bit, a tensor in safetensors, strides, a machine that calls nothing."""

import json
import pickle
import pickletools
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from minispike import create_model, no_grad
from minispike.files.checkpoint import read_safetensors, save
from minispike.files.interop import to_official
from minispike.files.picklemachine import Inert, run_pickle
from minispike.files.torchfile import read_torch

from .checks import Wrong, same, task

IMPORTS = """
import json
import pickletools

import numpy as np
"""

# ---------------------------------------------------------------- predict


def wrong_bit(value):
    if not isinstance(value, int | np.integer) or not 0 <= value < 32:
        return f"a bit of a float32 has a number from 0 to 31, not {value!r}"
    found = (np.ones(1, "f4").view("u4") ^ np.uint32(1 << int(value))).view("f4")[0]
    return "" if found == np.inf else f"with bit {value} flipped, 1 becomes {found:.9g}"


@task(
    "★",
    hints=[
        "From the highest bit down: 1 sign, 8 exponent, 23 fraction. Infinity has all ones as exponent.",
        "The exponent of 1 is 127, in bits 0111 1111.",
    ],
    answer=wrong_bit,
)
def to_infinity():
    """Return which bit of the float32 1.0 makes it infinite if it is flipped; 0 is the lowest."""
    return 30


# ---------------------------------------------------------------- a tensor in a safetensors file


def written(arrays, note):
    """Return a safetensors file as bytes [n], uint8."""
    header, data = {"__metadata__": {"note": note}}, b""
    for name, a in arrays.items():
        offsets = [len(data), len(data) + a.nbytes]
        kind = {"f2": "F16", "f4": "F32", "f8": "F64"}[a.dtype.str[1:]]
        header[name] = {"dtype": kind, "shape": list(a.shape), "data_offsets": offsets}
        data += a.tobytes()
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return np.frombuffer(len(text).to_bytes(8, "little") + text + data, "u1")


def file_cases(rng):
    small = {"w": rng.standard_normal((2, 3)).astype("f4")}
    more = {f"layer.{i}": rng.standard_normal(shape) for i, shape in enumerate([(3,), (2, 1, 4), (), (5, 7)])}
    kinds = {"half": rng.standard_normal((4, 3)).astype("f2"), "whole": rng.standard_normal(6).astype("f4")}
    for arrays, note in ((small, "small"), (more, "größer"), (kinds, "x" * 300)):
        raw = written(arrays, note)
        for name in arrays:
            yield {"raw": raw, "name": name}


def library_tensor(raw, name):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        file.write_bytes(raw.tobytes())
        values = np.array(read_safetensors(file)[0][name])
    return {"begin": raw.tobytes().index(values.tobytes()), "values": values}


def weights_of(tensor_of):
    """Let it read the weights of a model from a file that the library saved."""
    saved, other = (create_model("spikformer_1_64_digits", T=3, v_threshold=0.05, rng=rng) for rng in (1, 2))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        save(saved, file)
        raw = np.frombuffer(file.read_bytes(), "u1")
    other.load_state_dict({name: tensor_of(raw, name)["values"] for name in saved.state_dict()})
    images = np.random.default_rng(0).random((5, 8, 8, 1)).astype("f4")
    with no_grad():
        want, got = saved.eval()(images).data, other.eval()(images).data
    if want.std() < 0.01:
        raise Wrong("this model is silent")
    same("the logits of a model with these weights", got, want)


@task(
    "★★",
    hints=[
        'int.from_bytes(raw[:8].tobytes(), "little") is the header\'s length in bytes.',
        "json.loads reads bytes. Offsets count from the header's end, which is at byte 8 + length.",
        "np.frombuffer(raw[begin:end].tobytes(), kind).reshape(shape), where kind is f2, f4 or f8.",
    ],
    cases=file_cases,
    expected=library_tensor,
    place=weights_of,
)
def tensor_of(raw, name):
    """Read one tensor from the bytes of a safetensors file.

    raw: uint8, [n], the whole file: 8 bytes with the header's length, lowest byte first; the header, in JSON;
    the numbers. header[name] holds "dtype" ("F16", "F32" or "F64"), "shape", and "data_offsets": where its
    bytes begin and end, counted from the header's end. Numbers have their lowest byte first.
    Return a dict: "begin", at which byte of the file the tensor begins, and "values", the array.
    """
    file = raw.tobytes()
    n = int.from_bytes(file[:8], "little")
    entry = json.loads(file[8 : 8 + n])[name]
    begin, end = (8 + n + offset for offset in entry["data_offsets"])
    kind = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[entry["dtype"]]
    return {"begin": begin, "values": np.frombuffer(file[begin:end], kind).reshape(entry["shape"])}


# ---------------------------------------------------------------- strides


def kernel_cases(rng):
    for kh, kw, n_in, n_out in ((2, 3, 4, 5), (3, 3, 1, 2), (1, 5, 7, 3), (4, 2, 3, 6), (7, 1, 2, 9)):
        yield {"kh": kh, "kw": kw, "n_in": n_in, "n_out": n_out}


def library_strides(kh, kw, n_in, n_out):
    theirs = np.zeros((kh, kw, n_in, n_out), "u1").transpose(3, 2, 0, 1)
    return {
        "ours": np.array(np.zeros((kh, kw, n_in, n_out), "u1").strides),
        "theirs": np.array(theirs.strides),
    }


def write_pth(path, array, size, strides):
    """Write a .pth file with one tensor, "w", on the bytes of an array of float32."""

    def text(s):
        return b"X" + len(s).to_bytes(4, "little") + s.encode("ascii")

    def numbers(values):
        return b"(" + b"".join(b"J" + int(value).to_bytes(4, "little") for value in values) + b"t"

    length = b"J" + array.size.to_bytes(4, "little")
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + length + b"tQ"
    rest = b"J\0\0\0\0" + numbers(size) + numbers(strides) + b"\x89ccollections\nOrderedDict\n(tR"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tR"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}(" + text("w") + tensor + b"u.")
        archive.writestr("archive/data/0", array.tobytes())


def kernel_of(strides):
    """Let the library read a .pth with our bytes and these strides: it must find their kernel."""
    model = create_model("spikformer_1_64_digits", rng=3)
    ours = model.stem.stages[1].map.weight.data
    kh, kw, n_in, n_out = ours.shape
    steps = strides(kh, kw, n_in, n_out)["theirs"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.pth"
        write_pth(file, ours, (n_out, n_in, kh, kw), steps)
        found = np.array(read_torch(file)["w"])
    same("the kernel in a .pth file", found, to_official(model)["patch_embed.proj_conv1.weight"])


@task(
    "★★",
    hints=[
        "In an array [a, b, c, d] whose last axis runs fastest, one step along c is d numbers.",
        "Along kh, kw, in and out one step is kw·n_in·n_out, n_in·n_out, n_out and 1.",
        "Theirs are the same four, in the order out, in, kh, kw.",
    ],
    cases=kernel_cases,
    expected=library_strides,
    place=kernel_of,
)
def strides(kh, kw, n_in, n_out):
    """Find how far apart neighbours lie, so that one row of bytes can be read in two layouts.

    A kernel [kh, kw, in, out] lies in memory as NumPy has it: its last axis runs fastest. A stride is how far
    it is from an entry to the next one along an axis, in numbers (not bytes).
    Return a dict of two arrays [4] of whole numbers: "ours", the strides along kh, kw, in and out; and
    "theirs", the strides with which the same bytes are a kernel [out, in, kh, kw].
    """
    ours = [kw * n_in * n_out, n_in * n_out, n_out, 1]
    return {"ours": np.array(ours), "theirs": np.array([ours[3], ours[2], ours[0], ours[1]])}


# ---------------------------------------------------------------- a machine that calls nothing


class Trap:
    """A harmless one: an ordinary reader of pickles would get 5."""

    def __reduce__(self):
        return abs, (-5,)


def program_cases(rng):
    row = [7, 300, 70000, -2]
    for rows in (
        [[1, 2], [3, 4]],
        [[1], [2], [3]],
        [[1, Trap()], [Trap(), 2], [3, 255]],
        [row, [1, 2, 3, 4], row],  # the same list twice
        [[Trap()]],
        rng.integers(0, 1000, (5, 3)).tolist(),
    ):
        yield {"program": np.frombuffer(pickle.dumps(rows, protocol=2), "u1")}


def library_machine(program):
    rows = run_pickle(program.tobytes(), {})
    return np.array([[-1 if isinstance(value, Inert) else value for value in row] for row in rows])


@task(
    "★★★",
    hints=[
        "Keep a stack, a list of marks (how high the stack was), and a dict as memo.",
        "APPENDS: values = stack[mark:], delete them, then extend stack[-1] with them. REDUCE: pop the "
        "arguments and the name, push −1.",
        "BINPUT: memo[arg] = stack[-1]. BINGET: push memo[arg]. At the end one value is left on the stack.",
    ],
    cases=program_cases,
    expected=library_machine,
)
def machine(program):
    """Read a pickle of a list of lists of whole numbers, and call nothing.

    program: uint8, [n]. `for opcode, arg, _ in pickletools.genops(program.tobytes())` gives its instructions;
    opcode.name is one of
    PROTO, STOP                  nothing to do
    MARK                         remembers how high the stack is
    EMPTY_LIST                   pushes a new list
    BININT, BININT1, BININT2     push arg, a number
    GLOBAL                       pushes arg, the name of a function
    TUPLE1                       replaces the topmost value by a tuple of it
    REDUCE                       takes arguments and, below, a function; pushes what the call gives
    APPEND                       appends the topmost value to the list below it
    APPENDS                      appends all values since the last MARK to the list below them
    BINPUT, BINGET               note the topmost value under the number arg; push what was noted
    Here no call is made: in its place −1 is pushed. Return the lists as an array of whole numbers.
    """
    stack, marks, memo = [], [], {}
    for opcode, arg, _ in pickletools.genops(program.tobytes()):
        match opcode.name:
            case "MARK":
                marks.append(len(stack))
            case "EMPTY_LIST":
                stack.append([])
            case "BININT" | "BININT1" | "BININT2" | "GLOBAL":
                stack.append(arg)
            case "TUPLE1":
                stack.append((stack.pop(),))
            case "REDUCE":
                del stack[-2:]
                stack.append(-1)
            case "APPEND" | "APPENDS":
                at = marks.pop() if opcode.name == "APPENDS" else len(stack) - 1
                stack[at - 1].extend(stack[at:])
                del stack[at:]
            case "BINPUT":
                memo[arg] = stack[-1]
            case "BINGET":
                stack.append(memo[arg])
    return np.array(stack.pop())
