# %% [markdown]
# # Solutions to 12 · Checkpoints

# %%
import os
import pickle
import pickletools

import numpy as np
from numpy.lib.stride_tricks import as_strided

from minispike import create_model
from minispike.files.interop import to_official

# %% [markdown]
# ★ Bit 31 is the sign. The exponent of 1 is 127 = 0111 1111; with its largest bit, 30, it becomes 255, which
# means infinity where the fraction is 0.


# %%
def flip(x, bit):
    return (np.array([x], "f4").view("u4") ^ np.uint32(1 << bit)).view("f4")[0]


sign, worst = 31, 30
assert flip(1, sign) == -1 and flip(1, worst) == float("inf")

# %% [markdown]
# ★★ In our order, one step in `out` is 1 number, in `in` n_out, in kw n_in·n_out, in kh kw·n_in·n_out. The
# strides are these four, in their order of axes.


# %%
def strides(kh, kw, n_in, n_out):
    return 1, n_out, kw * n_in * n_out, n_in * n_out


model = create_model("spikformer_1_64_digits")
ours = model.stem.stages[1].map.weight.data
theirs = to_official(model)["patch_embed.proj_conv1.weight"]
assert np.array_equal(as_strided(ours, (16, 8, 3, 3), [4 * s for s in strides(3, 3, 8, 16)]), theirs)

# %% [markdown]
# ★★★ The memo (BINPUT) is for values that occur twice, and can be passed over here. A MARK remembers how high
# the stack was. REDUCE is the only place where something could happen: here it makes a tuple.


# %%
class Trap:
    def __reduce__(self):
        return os.makedirs, ("x",)


def machine(program):
    stack, marks = [], []
    for opcode, arg, _ in pickletools.genops(program):
        match opcode.name:
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "BINUNICODE" | "BININT" | "BININT1" | "GLOBAL":
                stack.append(arg)
            case "MARK":
                marks.append(len(stack))
            case "TUPLE1":
                stack.append((stack.pop(),))
            case "APPEND" | "APPENDS":
                at = marks.pop() if opcode.name == "APPENDS" else len(stack) - 1
                stack[at - 1] += stack[at:]
                del stack[at:]
            case "SETITEM" | "SETITEMS":
                at = marks.pop() if opcode.name == "SETITEMS" else len(stack) - 2
                stack[at - 1].update(zip(stack[at::2], stack[at + 1 :: 2], strict=True))
                del stack[at:]
            case "REDUCE":
                args = stack.pop()
                stack.append(("call", stack.pop(), args))
            case "PROTO" | "BINPUT" | "STOP":
                pass
            case _:
                raise ValueError(f"an instruction that this machine lacks: {opcode.name}")
    return stack.pop()


assert machine(pickle.dumps([1, {"a": Trap()}], 2)) == [1, {"a": ("call", "os makedirs", ("x",))}]
assert not os.path.exists("x")
assert machine(pickle.dumps({"a": [1, 2], "b": [3]}, 2)) == {"a": [1, 2], "b": [3]}
