# %% [markdown]
# # Solutions to 12 · Checkpoints

# %%
import os
import pickle
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from data_utils.images.digits import load_digits
from minispike import create_model
from minispike.files.interop import load_official, to_official
from minispike.files.picklemachine import run_pickle
from minispike.files.torchfile import read_torch

# %% [markdown]
# ## 1 · Bits of a float32
# Bit 31, the highest, is the sign. Bit 0 is the lowest of the 23 bits of the fraction: the weight changes by
# 2⁻²³ of its power of two, which is at most 1.2 · 10⁻⁷ of the weight. Nobody would notice.


# %%
def flip(x, bit):
    return (np.array([x], "f4").view("u4") ^ np.uint32(1 << bit)).view("f4")[0]


assert flip(1, 31) == -1 and flip(1, 30) == float("inf")
weights = np.random.default_rng(0).standard_normal(100).astype("f4")
errors = [abs(float(flip(w, 0)) / float(w) - 1) for w in weights]
assert 2.0**-24 <= max(errors) <= 2.0**-23 < 1.2e-7

# %% [markdown]
# ## 2 · Storage and tensor
# A storage is a flat row of numbers of one kind, so its dtype belongs to the row. A tensor is a walk over
# it: where it begins, how many steps along each axis, and how far each step goes. Two tensors can share a
# storage, for example a matrix and its transpose, or a row of it. NumPy's views work in the same way.

# %%
matrix = np.arange(12, dtype="f4").reshape(3, 4)
row = matrix[1]
assert np.shares_memory(matrix, matrix.T) and np.shares_memory(matrix, row)
assert matrix.strides == (16, 4) and matrix.T.strides == (4, 16) and row.strides == (4,)

# %% [markdown]
# ## 3 · What is in the pickle
# The name of a function and its arguments. `__reduce__` was run when the pickle was *written*; it said what
# to write. The reader needs nothing else: it fetches the function by its name from its own Python.


# %%
class Trap:
    def __reduce__(self):
        return os.getcwd, ()


program = pickle.dumps(Trap(), protocol=2)
assert b"Trap" not in program and b"getcwd" in program
assert pickle.loads(program) == os.getcwd() and "getcwd" in run_pickle(program, {}).name

# %% [markdown]
# ## 4 · A square matrix
# Shapes cannot tell. The logits can: compare those of the loaded model with known ones, on a real input.
# `load_official` relies on names: an entry that it knows as a linear map is transposed, whatever its shape.

# %%
images = load_digits()[0][0][:32]
model = create_model("spikformer_1_64_digits", T=3, v_threshold=0.05, rng=12).eval()
logits, theirs = model(images).data, to_official(model)
name = "block.0.attn.proj_linear.weight"
assert theirs[name].shape == (64, 64)
other = create_model("spikformer_1_64_digits", T=3, v_threshold=0.05, rng=0).eval()
load_official(theirs, other)
assert np.array_equal(other(images).data, logits)
load_official(theirs | {name: theirs[name].T.copy()}, other)
assert not np.array_equal(other(images).data, logits)

# %% [markdown]
# ## 5 · Harm without a call
# A file can claim more memory than it has bytes: zeros that were compressed, a tensor whose strides of 0
# repeat one number, or a list that contains one list twice, which contains another twice, and so on.
# `read_torch` refuses compressed entries and entries that claim more bytes than the file has. It returns a
# record in the place of a tensor that is larger than the file, and it limits the size of the program. Nested
# lists stay small as long as nobody copies or prints them.

# %%
nested: list = []
for _ in range(30):
    nested = [nested, nested]
program = pickle.dumps(nested, protocol=2)
found, depth = run_pickle(program, {}), 0
while found:
    assert found[0] is found[1]  # one list, twice
    found, depth = found[0], depth + 1
assert len(program) < 400 and depth == 30  # printed, it would have 2³⁰ pairs of brackets

with tempfile.TemporaryDirectory() as folder:
    bomb = Path(folder) / "bomb.pth"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("archive/data/0", bytes(10_000_000))
    assert bomb.stat().st_size < 100_000
    try:
        read_torch(bomb)
        message = ""
    except ValueError as error:
        message = str(error)
    assert "compressed" in message
